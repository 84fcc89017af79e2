"""Figures of papers that stand beside what is measured here: Tables 1, 5 and 18 of arXiv 2410.08049."""

from typing import NamedTuple

TABLE_1_KERNEL_SIZES = (3, 5, 7, 9, 13, 17, 21, 27, 29, 31)
# Milliseconds of 24 depthwise convolutions of (64, 384, R, R) in float32 on a GTX 2080 Ti, by R.
TABLE_1 = {
    16: dict(
        pytorch=(5.6, 11.0, 14.4, 17.6, 36.0, 57.2, 83.4, 133.5, 150.7, 171.4),
        ours=(5.6, 6.5, 6.4, 6.9, 7.5, 8.4, 8.4, 8.4, 8.3, 8.4),
    ),
    32: dict(
        pytorch=(21.9, 34.1, 54.8, 76.1, 141.2, 230.5, 342.3, 557.8, 638.6, 734.8),
        ours=(21.9, 28.7, 34.6, 40.6, 52.5, 64.5, 73.9, 87.9, 92.7, 96.7),
    ),
    64: dict(
        pytorch=(69.6, 141.2, 228.6, 319.8, 600.0, 977.7, 1454.4, 2371.1, 2698.4, 3090.4),
        ours=(69.6, 112.6, 130.7, 152.6, 199.7, 251.5, 301.0, 378.2, 406.0, 431.7),
    ),
}


class ImageNetFigures(NamedTuple):
    """A row of Table 5.

    Args:
        label: the paper's name; ‡ marks ImageNet-22K pretraining.
        model: its name in `catalogue.py`.
        resolution: side of the input in pixels.
        top1: per cent, the model's own paper's.
        throughput: images/s on an A100 with batches of 128, None where this table has no figure at hand.
    """

    label: str
    model: str
    resolution: int
    top1: float
    throughput: int | None = None

    @property
    def family(self) -> str:
        return self.label.rpartition('-')[0]


TABLE_5 = (
    ImageNetFigures('UniRepLKNet-A', 'unireplknet_a', 224, 77.0),
    ImageNetFigures('UniRepLKNet-F', 'unireplknet_f', 224, 78.6),
    ImageNetFigures('ConvNeXt V2-A', 'convnextv2_atto', 224, 76.2),
    ImageNetFigures('FastViT-T8', 'fastvit_t8', 256, 75.6),
    ImageNetFigures('ConvNeXt V2-F', 'convnextv2_femto', 224, 78.0),
    ImageNetFigures('UniRepLKNet-P', 'unireplknet_p', 224, 80.2, 3949),
    ImageNetFigures('FastViT-T12', 'fastvit_t12', 256, 79.1),
    ImageNetFigures('ConvNeXt V2-P', 'convnextv2_pico', 224, 79.7, 3339),
    ImageNetFigures('FastViT-S12', 'fastvit_s12', 256, 79.8),
    ImageNetFigures('UniRepLKNet-N', 'unireplknet_n', 224, 81.6, 2807),
    ImageNetFigures('ConvNeXt V2-N', 'convnextv2_nano', 224, 81.2),
    ImageNetFigures('UniRepLKNet-T', 'unireplknet_t', 224, 83.2, 1804),
    ImageNetFigures('ConvNeXt-T', 'convnext_tiny', 224, 82.1),
    ImageNetFigures('Swin-T', 'swin_tiny_patch4_window7_224', 224, 81.3),
    ImageNetFigures('FastViT-SA24', 'fastvit_sa24', 256, 82.6),
    ImageNetFigures('PVTv2-B2', 'pvt_v2_b2', 224, 82.0, 1620),
    ImageNetFigures('CoAtNet-0', 'coatnet_0_224', 224, 81.6, 1613),
    ImageNetFigures('DeiT III-S', 'deit3_small_patch16_224', 224, 81.4),
    ImageNetFigures('SwinV2-T', 'swinv2_tiny_window8_256', 256, 81.8),
    ImageNetFigures('SLaK-T', 'slak_t', 224, 82.5),
    ImageNetFigures('UniRepLKNet-S', 'unireplknet_s', 224, 83.9),
    ImageNetFigures('ConvNeXt-S', 'convnext_small', 224, 83.1),
    ImageNetFigures('Swin-S', 'swin_small_patch4_window7_224', 224, 83.0),
    ImageNetFigures('FastViT-SA36', 'fastvit_sa36', 256, 83.6),
    ImageNetFigures('CoAtNet-1', 'coatnet_1_224', 224, 83.3),
    ImageNetFigures('FastViT-MA36', 'fastvit_ma36', 256, 83.9),
    ImageNetFigures('SwinV2-S', 'swinv2_small_window8_256', 256, 83.7),
    ImageNetFigures('RepLKNet-31B', 'replknet_31b', 224, 83.5),
    ImageNetFigures('PVTv2-B5', 'pvt_v2_b5', 224, 83.8),
    ImageNetFigures('UniRepLKNet-S‡', 'unireplknet_s', 384, 86.4, 435),
    ImageNetFigures('ConvNeXt-S‡', 'convnext_small', 384, 85.8),
    ImageNetFigures('UniRepLKNet-B‡', 'unireplknet_b', 384, 87.4),
    ImageNetFigures('ConvNeXt-B‡', 'convnext_base', 384, 86.8),
    ImageNetFigures('UniRepLKNet-L‡', 'unireplknet_l', 384, 87.9, 190),
    ImageNetFigures('ConvNeXt-L‡', 'convnext_large', 384, 87.5, 185),
    ImageNetFigures('RepLKNet-31L‡', 'replknet_31l', 384, 86.6, 158),
    ImageNetFigures('DeiT III-B‡', 'deit3_base_patch16_384', 384, 86.7),
    ImageNetFigures('DeiT III-L‡', 'deit3_large_patch16_384', 384, 87.7),
    ImageNetFigures('SwinV2-L‡', 'swinv2_large_window12to24_192to384', 384, 87.6),
    ImageNetFigures('UniRepLKNet-XL‡', 'unireplknet_xl', 384, 88.0),
    ImageNetFigures('ConvNeXt-XL‡', 'convnext_xlarge', 384, 87.8),
)

# Of Table 5, what is not measured here.
NOT_IN_TABLE_5 = (
    'InternImage (its deformable convolution is an extension of its own), CoAtNet-2 and -3 (timm has them '
    'for 224² only)'
)


class TrainingCost(NamedTuple):
    """A row of Table 18: UniRepLKNet-S at 224², batch 4096 on eight A100 GPUs."""

    label: str
    gigabytes: float
    throughput: int


TABLE_18 = (
    TrainingCost('Dilated Reparam Block', 24.6, 6642),
    TrainingCost('single large-kernel convolution', 20.8, 9675),
)


def figures_of(model: str, resolution: int) -> ImageNetFigures | None:
    """The row of Table 5 of a model at a resolution; None where there is none."""
    name = model.rpartition(':')[2]
    return next((row for row in TABLE_5 if (row.model, row.resolution) == (name, resolution)), None)
