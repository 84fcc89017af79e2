"""Each rule on published configs: what it changes, what it reports, what it leaves alone."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from published_configs import REFUSED
from torch import nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.architecture import ARCHITECTURES
from unireplknet_mm.swapping import SwapError
from unireplknet_mm.swapping.maps import measure_backbone
from unireplknet_mm.swapping.recipes import PUBLISHED_RATES
from unireplknet_mm.swapping.swap import FeatureMap, summarise

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
CAFFE = 'mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py'
FCN = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
CHANNELS = list(ARCHITECTURES['a']['channels'])
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


# Normalisation


def test_caffe_images_become_rgb_with_the_deviation_of_the_weights(plan, reported):
    swap = plan(CAFFE)
    preprocessor = swap.model['data_preprocessor']
    assert (preprocessor['mean'], preprocessor['std']) == (MEAN, STD)
    assert preprocessor['bgr_to_rgb'] is True
    assert preprocessor['pad_size_divisor'] == 32
    places = reported(swap, 'model.data_preprocessor')
    assert set(places) == {
        f'model.data_preprocessor.{key}' for key in ('mean', 'std', 'bgr_to_rgb')
    }
    assert places['model.data_preprocessor.bgr_to_rgb'] == 'False -> True'


def test_images_as_they_are_become_normalised_and_padded_with_the_mean(plan):
    swap = plan('mmdet::yolox/yolox_s_8xb8-300e_coco.py', edit=pad_with_grey)
    preprocessor = swap.model['data_preprocessor']
    assert (preprocessor['mean'], preprocessor['std']) == (MEAN, STD)
    assert preprocessor['bgr_to_rgb'] is True and preprocessor['pad_value'] == 0


def pad_with_grey(config):
    config.model.data_preprocessor.pad_value = 114


def test_numbers_that_are_right_are_not_reported(plan, reported):
    assert not reported(plan(RETINANET), 'model.data_preprocessor')


def transforms(config, kind: str) -> list[dict]:
    from unireplknet_mm.configuration import find_dicts, type_name

    return [part for part in find_dicts(config) if type_name(part) == kind]


def test_expand_repeats_the_new_mean(plan, reported):
    swap = plan('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py')
    expands = transforms(swap.config, 'Expand')
    assert expands
    for expand in expands:
        assert expand['mean'] == MEAN and expand['to_rgb'] is True
    assert reported(swap, 'Expand in train_dataloader')


CAFFE_NUMBERS = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def normalize_in(*loaders: str, **numbers):
    """The form of mmdet 2: pipelines normalise and pad with the mean, the data preprocessor does neither."""

    def edit(config):
        config.model.data_preprocessor = dict(
            type='DetDataPreprocessor', bgr_to_rgb=True, pad_size_divisor=32
        )
        for loader in loaders:
            pipeline = config[loader].dataset.pipeline
            grey = dict(type='Pad', size=(9, 9), pad_val=dict(img=(103.53, 116.28, 123.675)))
            pipeline[-1:-1] = [grey, dict(type='Normalize', **(numbers or CAFFE_NUMBERS))]

    return edit


def test_crops_repeat_the_new_numbers(plan):
    def caffe(config):
        numbers = {key: CAFFE_NUMBERS[key] for key in ('mean', 'std')}
        config.model.data_preprocessor.update(numbers, bgr_to_rgb=False)
        pipeline = config.train_dataloader.dataset.pipeline
        pipeline.insert(2, dict(type='RandomCenterCropPad', crop_size=(512, 512), **CAFFE_NUMBERS))
        nothing = dict(type='Normalize', mean=[0, 0, 0], std=[1, 1, 1], to_rgb=False)
        pipeline.insert(3, nothing)

    swap = plan(RETINANET, edit=caffe)
    (crop,) = transforms(swap.config, 'RandomCenterCropPad')
    assert (crop['mean'], crop['std'], crop['to_rgb']) == (MEAN, STD, True)
    (nothing,) = transforms(swap.config, 'Normalize')
    assert (nothing['mean'], nothing['std'], nothing['to_rgb']) == ([0, 0, 0], [1, 1, 1], False)


def test_pipelines_that_normalise_go_on_doing_it_alone(plan, reported):
    """An image through the swapped pipeline and preprocessor is normalised and turned to RGB once."""
    from mmcv.transforms import Normalize

    swap = plan(RETINANET, edit=normalize_in(*LOADERS))
    settings = swap.model['data_preprocessor']
    assert settings.get('mean') is None and settings.get('std') is None
    assert (
        reported(swap, 'model.data_preprocessor')['model.data_preprocessor.bgr_to_rgb']
        == 'True -> False'
    )
    found = transforms(swap.config['train_dataloader'], 'Normalize')
    bgr = np.full((32, 32, 3), (10.0, 20.0, 30.0), np.float32)
    image = Normalize(**{key: found[0][key] for key in ('mean', 'std', 'to_rgb')})(dict(img=bgr))
    with DefaultScope.overwrite_default_scope('mmdet'):
        preprocessor = MODELS.build(settings)
    inputs = torch.from_numpy(image['img']).permute(2, 0, 1)
    (seen,) = preprocessor(dict(inputs=[inputs], data_samples=[DetDataSample()]))['inputs']
    expected = [(x - mean) / std for x, mean, std in zip((30, 20, 10), MEAN, STD, strict=True)]
    assert seen[:, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)
    for loader in LOADERS:
        (normalize,) = transforms(swap.config[loader], 'Normalize')
        assert (normalize['mean'], normalize['std'], normalize['to_rgb']) == (MEAN, STD, True)
        (pad,) = transforms(swap.config[loader], 'Pad')
        assert pad['pad_val']['img'] == tuple(MEAN[::-1])


@pytest.mark.parametrize(
    ('loaders', 'numbers', 'message'),
    [
        (LOADERS[:1], {}, 'in train_dataloader and not in val_dataloader, test_dataloader'),
        (LOADERS, dict(mean=[0.5] * 3, std=[0.2] * 3), 'for images from 0 to 1'),
    ],
)
def test_pipelines_that_normalise_in_part_or_in_other_units_are_refused(
    plan, loaders, numbers, message
):
    with pytest.raises(SwapError, match=message):
        plan(RETINANET, edit=normalize_in(*loaders, **numbers))


def test_images_that_are_normalised_twice_are_refused(plan):
    def twice(config):
        before = dict(config.model.data_preprocessor)
        normalize_in(*LOADERS)(config)
        config.model.data_preprocessor = before

    with pytest.raises(SwapError, match=r'twice, by Normalize .* and by model.data_preprocessor'):
        plan(RETINANET, edit=twice)


def test_normalize_for_other_channels_stays_with_a_warning(plan):
    numbers = dict(mean=[1.0, 2.0, 3.0, 4.0], std=[1.0] * 4, to_rgb=False)
    swap = plan(RETINANET, edit=normalize_in(*LOADERS, **numbers))
    assert transforms(swap.config['train_dataloader'], 'Normalize')[0]['mean'] == numbers['mean']
    assert any('Normalize normalises 4 channels' in text for text in swap.warnings)


def test_crops_that_paint_black_go_on_painting_black(plan, original):
    name = 'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py'
    before = [crop['mean'] for crop in transforms(original(name), 'RandomCenterCropPad')]
    assert [0, 0, 0] in before
    swap = plan(name)
    assert [crop['mean'] for crop in transforms(swap.config, 'RandomCenterCropPad')] == before


def test_fill_colours_of_a_classifier_follow_in_the_order_of_the_image(plan):
    swap = plan('mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py', edit=half_grey)
    assert swap.config['data_preprocessor']['mean'] == MEAN
    colours = {tuple(part['fill_color']) for part in transforms(swap.config, 'RandomErasing')}
    assert colours == {tuple(MEAN[::-1])}
    assert {tuple(p['fill_std']) for p in transforms(swap.config, 'RandomErasing')} == {
        tuple(STD[::-1])
    }


def test_deviation_that_equals_the_mean_stays_a_deviation(plan):
    swap = plan('mmpretrain::van/van-tiny_8xb128_in1k.py')  # 127.5 for both
    erasing = transforms(swap.config, 'RandomErasing')
    assert erasing
    for part in erasing:
        assert list(part['fill_color']) == MEAN[::-1] and list(part['fill_std']) == STD[::-1]


def half_grey(config):
    """Other numbers than ImageNet's, wherever the config has them."""
    from unireplknet_mm.configuration import find_dicts

    config.data_preprocessor.update(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0])
    for part in find_dicts(config):
        if 'fill_color' in part:
            part.update(fill_color=[100.0, 110.0, 120.0], fill_std=[70.0, 60.0, 50.0])


def test_colour_of_an_image_padded_with_its_masks_follows(plan):
    def pad(config):
        grey = dict(type='Pad', size=(9, 9), pad_val=dict(img=(104, 116, 124), masks=0, seg=255))
        config.train_dataloader.dataset.pipeline.append(grey)

    swap = plan(CAFFE, edit=pad)
    (transform,) = transforms(swap.config['train_dataloader'], 'Pad')
    assert transform['pad_val'] == dict(img=(104, 116, 124), masks=0, seg=255)  # the same, as RGB

    def pad_black_and_white(config):
        pad(config)
        config.model.data_preprocessor.update(mean=[127.5] * 3, std=[127.5] * 3)
        config.train_dataloader.dataset.pipeline[-1]['pad_val']['img'] = [127.5] * 3

    swap = plan(CAFFE, edit=pad_black_and_white)
    (transform,) = transforms(swap.config['train_dataloader'], 'Pad')
    assert transform['pad_val'] == dict(img=MEAN[::-1], masks=0, seg=255)


# Levels, backbone


def test_measured_maps_of_a_dilated_resnet():
    config = dict(
        type='ResNetV1c',
        depth=18,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
    )
    maps = measure_backbone(config, 'mmseg')
    assert maps == [FeatureMap(4, 64), FeatureMap(8, 128), FeatureMap(8, 256), FeatureMap(8, 512)]


def test_batch_norm_without_eps_is_measured_all_the_same():
    norm = dict(type='BN', requires_grad=False, eps=0)
    assert measure_backbone(
        dict(type='ResNet', depth=18, norm_cfg=norm, out_indices=(3,)), 'mmdet'
    ) == [FeatureMap(32, 512)]


def test_error_without_a_message_is_named_by_its_place():
    def complain():
        raise AssertionError

    with pytest.raises(AssertionError) as caught:
        complain()
    line = complain.__code__.co_firstlineno + 1
    assert summarise(caught.value) == f'AssertionError: in complain of test_rules.py, line {line}'
    assert summarise(ValueError('too  small\nby 3')) == 'ValueError: too small'


def test_levels_that_the_neck_skips_are_not_put_out(plan):
    swap = plan(RETINANET)
    assert swap.model['backbone']['out_indices'] == (1, 2, 3)
    neck = swap.model['neck']
    assert neck['in_channels'] == CHANNELS[1:] and neck['start_level'] == 0
    assert swap.model['bbox_head'] == plan(CAFFE).model['bbox_head']  # untouched


@pytest.mark.parametrize(
    ('name', 'edit', 'argument'),
    [
        ('dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', None, 'dcn'),
        ('gcnet/mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco.py', None, 'plugins'),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', None, 'frozen_stages'),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', None, 'norm_eval'),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', None, 'init_cfg'),
        ('gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py', None, 'conv_cfg'),
    ],
)
def test_arguments_of_a_resnet_are_dropped_and_reported(plan, reported, name, edit, argument):
    swap = plan(f'mmdet::{name}', edit=edit)
    assert argument not in swap.model['backbone']
    assert reported(swap)[f'model.backbone.{argument}'].endswith('dropped')


@pytest.mark.parametrize(
    ('old', 'kind'),
    [
        (dict(norm_cfg=dict(type='SyncBN', requires_grad=True), norm_eval=False), 'SyncBN'),
        (dict(norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False), 'BN'),
        (dict(norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True), 'SyncBN'),
        (dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=False), 'SyncBN'),
        (dict(norm_cfg=dict(type='GN', num_groups=32), norm_eval=False), 'SyncBN'),
    ],
)
def test_batch_norm_stays_what_it_was_unless_it_was_frozen(plan, old, kind):
    swap = plan(RETINANET, edit=lambda config: config.model.backbone.update(old))
    assert swap.model['backbone']['norm_cfg'] == dict(type=kind)


def test_checkpointing_and_channels_of_the_image_stay(plan):
    edit = lambda config: config.model.backbone.update(with_cp=True, in_channels=4)  # noqa: E731
    backbone = plan(RETINANET, edit=edit).model['backbone']
    assert backbone['with_cp'] is True and backbone['in_channels'] == 4


def test_dilated_detector_keeps_its_strides(plan):
    swap = plan('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py')
    assert swap.model['backbone']['output_stride'] == 16
    assert swap.model['rpn_head']['in_channels'] == CHANNELS[-1]
    roi_head = swap.model['roi_head']
    assert roi_head['bbox_roi_extractor']['out_channels'] == CHANNELS[-1]
    assert roi_head['bbox_head']['in_channels'] == CHANNELS[-1]


def test_pixel_decoder_takes_the_channels_from_its_head(plan):
    swap = plan('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')
    assert swap.model['panoptic_head']['in_channels'] == CHANNELS
    assert swap.model['panoptic_head']['feat_channels'] == 256


def test_reversed_channels_stay_reversed(plan):
    neck = plan('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py').model['neck']
    assert neck['in_channels'] == CHANNELS[:0:-1]


# Segmentation heads


def test_dilated_segmenter_is_warned_about_and_reads_two_stages(plan):
    swap = plan(FCN)
    assert swap.model['backbone']['out_indices'] == (2, 3)
    head, auxiliary = swap.model['decode_head'], swap.model['auxiliary_head']
    assert (head['in_channels'], head['in_index']) == (CHANNELS[3], 1)
    assert (auxiliary['in_channels'], auxiliary['in_index']) == (CHANNELS[2], 0)
    assert any('stride 32 instead of 8. --output-stride 8' in text for text in swap.warnings)


def test_output_stride_keeps_the_resolution_and_ends_the_warning(plan):
    swap = plan(FCN, output_stride=8)
    assert swap.model['backbone']['output_stride'] == 8
    assert not any('stride' in text for text in swap.warnings)


def test_maps_that_enchead_takes_and_does_not_read_are_left_out(plan):
    swap = plan('mmseg::encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    assert swap.model['backbone']['out_indices'] == (2, 3)  # stage 3 is the auxiliary head's
    head = swap.model['decode_head']
    assert (head['in_channels'], head['in_index']) == ([CHANNELS[3]], (1,))


def test_ocr_heads_read_maps_of_one_size(plan):
    name = 'mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py'
    swap = plan(name)
    assert (
        swap.model['backbone']['output_stride'] == 16
    )  # of stages 3 and 4, which the two heads read
    assert plan(name, output_stride=8).model['backbone']['output_stride'] == 8
    with pytest.raises(SwapError, match='maps of one size: --output-stride 16'):
        plan(name, output_stride=32)


def test_first_map_of_deeplabv3plus_stays_the_first(plan):
    swap = plan('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    head = swap.model['decode_head']
    assert swap.model['backbone']['out_indices'] == (0, 2, 3)
    assert (head['in_channels'], head['in_index']) == (CHANNELS[3], 2)
    assert head['c1_in_channels'] == CHANNELS[0] and head['c1_channels'] == 48


def test_start_of_k_nets_iterations_is_adapted_and_the_iterations_are_not(plan, original):
    name = 'mmseg::knet/knet-s3_r50-d8_deeplabv3_8xb2-adamw-80k_ade20k-512x512.py'
    head = plan(name).model['decode_head']
    assert head['kernel_generate_head']['in_channels'] == CHANNELS[3]
    assert head['kernel_update_head'] == original(name).model.decode_head.kernel_update_head


def test_heads_behind_jpu_see_what_it_passes_on(plan):
    swap = plan('mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py')
    assert swap.model['neck']['in_channels'] == tuple(CHANNELS[1:])
    assert swap.model['decode_head']['in_channels'] == 2048  # JPU's own width
    assert swap.model['auxiliary_head']['in_channels'] == CHANNELS[2]


def test_pyramid_of_a_transformer_goes(plan):
    swap = plan('mmseg::vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py')
    assert swap.model['neck'] is None
    assert swap.model['decode_head']['in_channels'] == CHANNELS


# Classification


def test_classifier_pools_in_front_of_the_norm(plan):
    model = plan(RESNET).model
    assert model['neck'] is None and model['backbone']['gap_before_final_norm'] is True
    assert model['backbone']['out_indices'] == (3,)
    assert model['head']['in_channels'] == CHANNELS[-1]


def test_head_that_pools_itself_gets_maps(plan):
    model = plan('mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py').model
    assert 'gap_before_final_norm' not in model['backbone']
    assert model['head']['in_channels'] == CHANNELS[-1]


# Purpose


@pytest.mark.parametrize(
    ('name', 'side'),
    [
        ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', 32),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', None),
    ],
)
def test_images_that_end_as_one_pixel_are_warned_about(plan, name, side):
    warnings = [text for text in plan(name).warnings if 'last map of 1×1' in text]
    assert len(warnings) == (side is not None)
    assert all(f'images of {side}×{side}' in text for text in warnings)


def test_linear_probe_is_told_that_the_whole_network_trains(plan, reported):
    name = 'mmpretrain::mocov2/benchmarks/resnet50_8xb32-linear-steplr-100e_in1k.py'
    swap = plan(name)
    assert reported(swap)['model.backbone.init_cfg'] == 'Pretrained without a file dropped'
    assert any('on a frozen ResNet' in text for text in swap.warnings)

    def three_of_four(config):
        config.model.backbone.frozen_stages = 3

    assert not any('frozen' in text for text in plan(name, edit=three_of_four).warnings)


# Optimiser


def test_sgd_becomes_adamw_and_the_schedule_follows(plan, original, reported):
    swap = plan(FCN)
    wrapper = swap.config['optim_wrapper']
    assert wrapper['optimizer'] == dict(
        type='AdamW',
        lr=5e-5,
        betas=(0.9, 0.999),
        weight_decay=0.05,  # 4xb2: 8 images
    )
    assert original(FCN).param_scheduler[0].eta_min == 1e-4
    warm_up, decay = swap.config['param_scheduler']
    assert (warm_up['type'], decay['type']) == ('LinearLR', 'PolyLR')
    assert decay['eta_min'] == pytest.approx(5e-7)  # 1e-4 would be above the rate itself
    assert 'SGD with lr 0.01 -> AdamW with lr 5e-05' in reported(swap)['optim_wrapper.optimizer']


def test_learning_rate_goes_with_the_batch(plan):
    swap = plan('mmdet::yolox/yolox_s_8xb8-300e_coco.py')  # 64 images
    assert swap.config['optim_wrapper']['optimizer']['lr'] == pytest.approx(4e-4)
    assert plan(RESNET).config['optim_wrapper']['optimizer']['lr'] == pytest.approx(2.5e-4)
    trained = plan(RESNET, arch='t', pretrained='unireplknet_t_in1k')
    assert trained.config['optim_wrapper']['optimizer']['lr'] == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    ('images', 'rate', 'told'),
    [
        (3, 1.875e-5, ['the 3 images that train_dataloader states; on N GPUs take N times']),
        (None, 1e-4, []),  # that of 16 images
    ],
)
def test_batch_that_is_stated_for_one_gpu_alone(plan, images, rate, told):
    def state(config):
        config.auto_scale_lr = None
        config.train_dataloader.batch_size = images

    swap = plan(RETINANET, edit=state)
    assert swap.config['optim_wrapper']['optimizer']['lr'] == pytest.approx(rate)
    warnings = [text for text in swap.warnings if 'how many GPUs' in text]
    assert len(warnings) == len(told)
    assert all(part in text for part, text in zip(told, warnings, strict=True))


def test_sgd_stays_on_request(plan, original):
    swap = plan(FCN, keep_optimizer=True)
    assert swap.config['optim_wrapper'] == original(FCN).optim_wrapper
    assert swap.config['param_scheduler'] == original(FCN).param_scheduler
    assert any('SGD stays' in text for text in swap.warnings)


def test_adamw_stays_and_loses_settings_for_parameters_that_are_gone(plan):
    swap = plan('mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py')
    keys = swap.config['optim_wrapper']['paramwise_cfg']['custom_keys']
    assert swap.config['optim_wrapper']['optimizer']['lr'] == 1e-4
    assert not any(key.startswith('backbone.') for key in keys)
    assert {'backbone', 'query_embed'} <= set(keys)


def test_keys_that_match_the_old_backbone_alone_are_dropped_and_named(plan, reported):
    def scale(config):
        config.optim_wrapper.paramwise_cfg = dict(
            custom_keys={
                'layer4': dict(lr_mult=0.1),  # of ResNet
                'layer1.0.conv1': dict(lr_mult=1.0, decay_mult=0.0),
                'conv1': dict(lr_mult=0.5),  # `pwconv1` of UniRepLKNet has it too
                'lateral_convs': dict(lr_mult=2.0),  # of the neck
                'bn': dict(decay_mult=0.0),  # of ResNet and the head
                'nothing': dict(lr_mult=0.0),  # of neither
            }
        )
        config.model.bbox_head.type = 'RetinaSepBNHead'
        config.model.bbox_head.update(num_ins=5, norm_cfg=dict(type='BN'))

    swap = plan(RETINANET, edit=scale)
    keys = swap.config['optim_wrapper']['paramwise_cfg']['custom_keys']
    assert set(keys) == {'conv1', 'lateral_convs', 'bn', 'nothing'}
    place = 'optim_wrapper.paramwise_cfg.custom_keys'
    assert reported(swap)[place] == 'layer4, layer1.0.conv1 dropped'
    (warning,) = [text for text in swap.warnings if 'custom_keys' in text]
    assert 'scaled the rates of parts of ResNet that are gone: layer4 (lr_mult=0.1).' in warning


def test_frozen_parts_that_are_gone_are_warned_about(plan):
    def freeze(config):
        keys = {'stem': dict(lr_mult=0.0), 'backbone.layer1': dict(lr_mult=0.0)}
        config.optim_wrapper.paramwise_cfg = dict(custom_keys=keys)

    swap = plan(FCN, edit=freeze, keep_optimizer=True)  # ResNetV1c has a `stem`
    assert not swap.config['optim_wrapper']['paramwise_cfg']['custom_keys']
    (warning,) = [text for text in swap.warnings if 'custom_keys' in text]
    assert 'froze parts of ResNetV1c that are gone: stem (lr_mult=0), backbone.layer1' in warning


def test_slow_backbone_of_random_weights_is_warned_about(plan):
    name = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'
    slow = 'keeps the backbone at 0.1 times the learning rate'
    assert any(slow in text for text in plan(name).warnings)
    trained = plan(name, arch='t', pretrained='unireplknet_t_in1k')
    assert not any(slow in text for text in trained.warnings)


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',  # norms exempted by a name
        'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',  # by names in the backbone
        'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',  # by their kind
        'mmdet::detr/detr_r50_8xb2-150e_coco.py',  # not at all
    ],
)
def test_norms_and_scales_are_not_decayed_by_the_original_adamw(plan, reported, name):
    swap = plan(name)
    wrapper = swap.config['optim_wrapper']
    assert 'LayerDecayOptimWrapperConstructor' in reported(swap)['optim_wrapper.constructor']
    # The backbone's parameters under their names in the model, without the rest of it.
    model = nn.Module()
    model.backbone = MODELS.build(swap.model['backbone'] | dict(norm_cfg=dict(type='BN')))
    config = dict(type='OptimWrapper', optimizer=wrapper['optimizer'])
    config |= {key: wrapper[key] for key in ('constructor', 'paramwise_cfg')}
    groups = build_optim_wrapper(model, config).optimizer.param_groups
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    rest = {n: p for n, p in model.named_parameters() if p.squeeze().dim() <= 1}
    assert rest and not [n for n, p in rest.items() if decays[id(p)]]
    full = wrapper['optimizer']['weight_decay']
    assert all(decays[id(p)] == full for n, p in model.named_parameters() if n not in rest)


def test_constructor_of_the_users_stays_and_is_named(plan):
    edit = lambda config: config.optim_wrapper.update(constructor='Mine')  # noqa: E731
    swap = plan('mmdet::detr/detr_r50_8xb2-150e_coco.py', edit=edit)
    assert swap.config['optim_wrapper']['constructor'] == 'Mine'
    assert any('Mine stays: see that it exempts' in text for text in swap.warnings)


def test_settings_that_the_constructor_lacks_are_reported(plan):
    def scale(config):
        config.optim_wrapper.paramwise_cfg.update(dwconv_decay_mult=0.0, flat_decay_mult=0.5)

    swap = plan('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', edit=scale)
    dropped = [c.what for c in swap.changes if c.place == 'optim_wrapper.paramwise_cfg']
    assert dropped == ['bias_lr_mult=2 dropped', 'dwconv_decay_mult=0 dropped']
    assert swap.config['optim_wrapper']['paramwise_cfg'] == dict(
        decay_rate=1.0, flat_decay_mult=0.5
    )


def schedule(*parts):
    def edit(config):
        config.param_scheduler = [dict(part) for part in parts]

    return edit


@pytest.mark.parametrize(
    ('scheduler', 'is_warm_up'),
    [
        (dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500), True),
        (dict(type='ConstantLR', factor=1 / 3, by_epoch=False, begin=0, end=500), True),
        (dict(type='LinearLR', start_factor=1.0, end_factor=0.1, begin=0, end=12), False),
        (dict(type='LinearLR', start_factor=0.1, begin=6, end=12), False),
        (dict(type='ConstantLR', factor=0.5), False),
        (dict(type='OneCycleLR', eta_max=0.01, total_steps=100), True),
    ],
)
def test_warm_up_is_added_where_none_is(plan, scheduler, is_warm_up):
    steps = dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11])
    schedulers = plan(RETINANET, edit=schedule(scheduler, steps)).config['param_scheduler']
    assert len(schedulers) == (2 if is_warm_up else 3)


def test_schedule_of_the_weight_decay_is_warned_about(plan):
    cosine = dict(type='CosineAnnealingParamScheduler', param_name='weight_decay', eta_min=1e-5)
    swap = plan(RETINANET, edit=schedule(cosine))
    assert any('goes on changing weight_decay' in text for text in swap.warnings)


def test_rate_for_training_from_scratch_is_warned_about_with_pretrained_weights(plan):
    name = 'mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py'  # 0.004 for 256 images
    swap = plan(name, arch='b', pretrained='unireplknet_b_in22k')
    (warning,) = swap.warnings
    assert 'keeps its learning rate 0.004, 2.5 times' in warning
    assert not any('learning rate' in text for text in plan(name).warnings)


def test_layer_decay_of_another_backbone_becomes_that_of_this_one(plan, reported):
    name = 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
    swap = plan(name, arch='l', pretrained='unireplknet_l_in22k')
    wrapper = swap.config['optim_wrapper']
    assert wrapper['constructor'] == 'LayerDecayOptimWrapperConstructor'
    assert wrapper['paramwise_cfg'] == dict(decay_rate=0.7)
    assert reported(swap)['optim_wrapper.constructor'].endswith('decay_rate 0.95 -> 0.7')


def test_random_weights_get_no_layer_decay_unless_asked_for(plan):
    name = 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
    swap = plan(name, arch='l')
    assert swap.config['optim_wrapper']['paramwise_cfg'] == dict(decay_rate=1.0)
    (change,) = [c for c in swap.changes if c.place == 'optim_wrapper.constructor']
    assert '0.95 -> 1' in change.what and 'with --pretrained, decay_rate is 0.7' in change.why
    asked = plan(name, arch='l', layer_decay=True)
    assert asked.config['optim_wrapper']['paramwise_cfg'] == dict(decay_rate=0.7)
    assert any('decay_rate 0.7, as asked for' in text for text in asked.warnings)


def test_layer_decay_on_request_takes_the_place_of_one_rate_for_the_backbone(plan, reported):
    name = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'
    swap = plan(name, layer_decay=0.75)
    assert swap.config['optim_wrapper']['paramwise_cfg']['decay_rate'] == 0.75
    assert 'backbone' not in swap.config['optim_wrapper']['paramwise_cfg'].get('custom_keys', {})
    assert any('lr_mult' in what for what in reported(swap, 'optim_wrapper').values())


def test_rates_are_those_of_the_published_configs(original):
    from pathlib import Path

    from mmengine.config import Config

    configs = Path(__file__).parents[2] / 'configs'
    for task, pattern in (
        ('det', 'cascade_unireplknet_{}_3x'),
        ('seg', 'upernet_unireplknet_{}_160k'),
    ):
        for arch, rates in PUBLISHED_RATES[task].items():
            config = Config.fromfile(configs / task / f'{pattern.format(arch)}.py')
            assert config.model.backbone.drop_path_rate == rates.drop_path_rate, (task, arch)
            decay = config.optim_wrapper.paramwise_cfg.get('decay_rate', 1.0)
            assert decay == rates.decay_rate, (task, arch)
    for arch, rates in PUBLISHED_RATES['cls'].items():
        (path,) = sorted((configs / 'cls').glob(f'unireplknet_{arch}_in1k.py')) or (
            configs / 'cls'
        ).glob(f'unireplknet_{arch}_in22k_to_in1k_384.py')
        config = Config.fromfile(path)
        assert config.model.backbone.drop_path_rate == rates.drop_path_rate, arch
        assert config.optim_wrapper.paramwise_cfg.decay_rate == rates.decay_rate, arch


# Weights


def test_weights_are_put_in_and_those_of_the_model_go(plan, reported):
    edit = lambda config: config.update(load_from='https://host/detector.pth')  # noqa: E731
    swap = plan(RETINANET, arch='t', pretrained='unireplknet_t_in1k', edit=edit)
    assert swap.model['backbone']['init_cfg'] == dict(
        type='Pretrained', checkpoint='unireplknet_t_in1k'
    )
    assert swap.config['load_from'] is None and 'load_from' in reported(swap)
    assert not any('random weights' in text for text in swap.warnings)


def test_weights_of_neck_and_heads_go_and_their_defaults_stay(plan, reported):
    def start(config):
        config.model.init_cfg = dict(type='Pretrained', checkpoint='whole.pth')
        config.model.neck.init_cfg = dict(type='Pretrained', checkpoint='neck.pth', prefix='neck.')
        config.model.bbox_head.init_cfg = [
            dict(type='Normal', layer='Conv2d', std=0.02),
            dict(type='Pretrained', checkpoint='head.pth', prefix='bbox_head.'),
        ]

    swap = plan(RETINANET, edit=start)
    assert swap.model['init_cfg'] is None and 'init_cfg' not in swap.model['neck']
    assert swap.model['bbox_head']['init_cfg'] == [dict(type='Normal', layer='Conv2d', std=0.02)]
    for part in ('', '.neck', '.bbox_head'):
        name = dict(zip(('', '.neck', '.bbox_head'), ('whole', 'neck', 'head'), strict=True))[part]
        assert reported(swap)[f'model{part}.init_cfg'] == f'{name}.pth dropped'


@pytest.mark.parametrize('scheme', ['torchvision', 'open-mmlab', 'mmcls'])
def test_zoos_of_other_networks_are_refused(plan, scheme):
    with pytest.raises(SwapError, match=f'{scheme}:// has no UniRepLKNet; take unireplknet_s_in1k'):
        plan(RETINANET, arch='s', pretrained=f'{scheme}://resnet50')


def test_random_weights_are_warned_about_with_the_names_to_choose_from(plan):
    (warning,) = [text for text in plan(RETINANET, arch='s').warnings if 'random' in text]
    assert 'unireplknet_s_in1k, unireplknet_s_in22k' in warning


def test_weights_of_another_arch_are_refused(plan):
    with pytest.raises(SwapError, match='weights of arch s, and --arch is t'):
        plan(RETINANET, arch='t', pretrained='unireplknet_s_in1k')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('unireplknet_q_in1k', 'does not exist; published are unireplknet_'),
        ('/nonexistent.pth', '--pretrained /nonexistent.pth: /nonexistent.pth does not exist'),
        ('ftp://host/weights.pth', 'ftp'),
    ],
)
def test_weights_that_are_nowhere_are_refused(plan, name, message):
    with pytest.raises(UserError, match=message):
        plan(RETINANET, arch='t', pretrained=name)


def test_weights_in_a_file_are_of_the_arch(plan, tmp_path):
    path = tmp_path / 'mine.pth'
    torch.save(dict(model=UniRepLKNet('a').state_dict()), path)
    swap = plan(RETINANET, arch='a', pretrained=str(path))
    assert swap.model['backbone']['init_cfg']['checkpoint'] == str(path)
    with pytest.raises(
        SwapError, match=r'weights are of UniRepLKNet-A .* the model is UniRepLKNet-T'
    ):
        plan(RETINANET, arch='t', pretrained=str(path))
    torch.save(dict(model=dict(conv=torch.zeros(1))), path)
    with pytest.raises(SwapError, match=f'--pretrained {path}: '):
        plan(RETINANET, arch='a', pretrained=str(path))


# Refusals


@pytest.mark.parametrize('case', REFUSED, ids=lambda case: case.config.rpartition('/')[2])
def test_refusals_give_a_reason(plan, case):
    with pytest.raises(SwapError) as error:
        plan(case.config, **case.options)
    assert len(str(error.value)) < 300


def test_output_stride_of_a_detector_is_refused(plan):
    with pytest.raises(
        SwapError, match=r'made for maps up to stride 32: leave\s+--output-stride out'
    ):
        plan(RETINANET, output_stride=8)


def test_neck_for_other_channels_is_refused(plan):
    edit = lambda config: config.model.neck.update(in_channels=[64, 128, 256, 512])  # noqa: E731
    with pytest.raises(
        SwapError, match=r'FPN has in_channels=\[64, 128, 256, 512\], but it gives \[256'
    ):
        plan(RETINANET, edit=edit)


def test_second_swap_is_refused(plan):
    edit = lambda config: config.model.backbone.update(type='UniRepLKNet')  # noqa: E731
    with pytest.raises(SwapError, match='it is one already'):
        plan(RETINANET, edit=edit)


def test_config_of_another_toolbox_is_refused(plan):
    with pytest.raises(SwapError, match="default_scope of the config is 'mmpose'"):
        plan(RETINANET, edit=lambda config: config.update(default_scope='mmpose'))
