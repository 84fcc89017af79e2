"""Configs of mmdet, mmseg and mmpretrain that the swap is proven on, and those that it must refuse."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A config of an installed package, with the options of the swap."""

    config: str
    options: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """As in the command."""
        return ' '.join(
            [
                self.config,
                *(f'--{key.replace("_", "-")} {value}' for key, value in self.options.items()),
            ]
        )


def _cases(package: str, names: list[str | tuple[str, dict]]) -> list[Case]:
    pairs = [(name, {}) if isinstance(name, str) else name for name in names]
    return [Case(f'{package}::{name}', options) for name, options in pairs]


DETECTORS = _cases(
    'mmdet',
    [
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'retinanet/retinanet_r50-caffe_fpn_1x_coco.py',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
        'rpn/rpn_r50-caffe-c4_1x_coco.py',
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
        'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
        'dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py',
        'gcnet/mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco.py',
        'gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py',
        'pafpn/faster-rcnn_r50_pafpn_1x_coco.py',
        'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py',
        'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py',
        'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
        'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
        'pvt/retinanet_pvtv2-b0_fpn_1x_coco.py',
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        'atss/atss_r50_fpn_1x_coco.py',
        'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
        'gfl/gfl_r50_fpn_1x_coco.py',
        'tood/tood_r50_fpn_1x_coco.py',
        'vfnet/vfnet_r50_fpn_1x_coco.py',
        'paa/paa_r50_fpn_1x_coco.py',
        'yolof/yolof_r50-c5_8xb8-1x_coco.py',
        'yolo/yolov3_d53_8xb8-320-273e_coco.py',
        'yolox/yolox_s_8xb8-300e_coco.py',
        'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        'rtmdet/rtmdet_l_8xb32-300e_coco.py',
        'rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
        'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
        'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py',
        'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
        'detr/detr_r50_8xb2-150e_coco.py',
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
        'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py',
        'queryinst/queryinst_r50_fpn_1x_coco.py',
        'solov2/solov2_r50_fpn_1x_coco.py',
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
        'htc/htc_r50_fpn_1x_coco.py',
        'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
        'maskformer/maskformer_r50_ms-16xb1-75e_coco.py',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
        'yolact/yolact_r50_1xb8-55e_coco.py',
    ],
)
SEGMENTERS = _cases(
    'mmseg',
    [
        'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
        'beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
        'vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py',
        'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        ('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', dict(output_stride=8)),
        'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        ('deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', dict(output_stride=16)),
        'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py',
        'sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py',
        'hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py',
        'ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',
        'ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py',
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py',
        'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py',
        ('setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py', dict(output_stride=16)),
        ('setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py', dict(output_stride=16)),
        'knet/knet-s3_r50-d8_deeplabv3_8xb2-adamw-80k_ade20k-512x512.py',
        'knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py',
        'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
        'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
        'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
        'fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py',
        'emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
        'danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'gcnet/gcnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        'psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    ],
)
CLASSIFIERS = _cases(
    'mmpretrain',
    [
        'resnet/resnet50_8xb32_in1k.py',
        'swin_transformer/swin-tiny_16xb64_in1k.py',
        'convnext/convnext-tiny_32xb128_in1k.py',
        'vision_transformer/vit-base-p16_64xb64_in1k.py',
        'vision_transformer/vit-base-p16_32xb128-mae_in1k.py',
        'hrnet/hrnet-w18_4xb32_in1k.py',
        'mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py',
        'efficientnet/efficientnet-b0_8xb32-01norm_in1k.py',
        'csra/resnet101-csra_1xb16_voc07-448px.py',
    ],
)
WORKING = [*DETECTORS, *SEGMENTERS, *CLASSIFIERS]
REFUSED = [
    *_cases(
        'mmdet',
        [
            'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
            'mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py',
            'detectors/cascade-rcnn_r50-rfp_1x_coco.py',
            'tridentnet/tridentnet_r50-caffe_1x_coco.py',
            'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
            'rtmdet/rtmdet_x_p6_4xb8-300e_coco.py',
            'mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py',
            'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
        ],
    ),
    *_cases(
        'mmseg',
        [
            'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py',
            'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py',
            'icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py',
            'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
            'unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py',
            'setr/setr_vit-l-mla_8xb1-160k_ade20k-512x512.py',
            'dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py',
            'mobilenet_v3/mobilenet-v3-d8-s_lraspp_4xb4-320k_cityscapes-512x1024.py',
            'san/san-vit-b16_coco-stuff164k-640x640.py',
        ],
    ),
    *_cases(
        'mmpretrain',
        [
            'vgg/vgg16_8xb32_in1k.py',
            'deit/deit-small-distilled_4xb256_in1k.py',
            'mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py',
        ],
    ),
]
