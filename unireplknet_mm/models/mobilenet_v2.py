"""MobileNet V2 (arXiv 1801.04381) with large depthwise kernels: the baseline of the paper's §3.1.2.

What differs from mmpretrain's and mmseg's: the kernel sizes, the shortcut and a small branch beside large
kernels (Fig. 4) are arguments, and everything folds for inference. Where the structures are the same, so are
the names of the parameters.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.backbone import Backbone
from unireplknet_mm.models.convolution_unit import ConvolutionUnit
from unireplknet_mm.models.layers import DropPath
from unireplknet_mm.models.state_dict import refuse_other_units

# Of each of the seven layers: expansion, channels and number of blocks (Table 2 of arXiv 1801.04381).
LAYERS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """1×1 to `expansion` times the channels, depthwise K×K, 1×1 back; added to the input where it fits.

    Args:
        in_channels, out_channels, stride, dilation, kernel_size: of the block and its depthwise convolution.
        expansion: 1 builds no first 1×1.
        has_shortcut: False leaves out the addition where there could be one (Table 2a).
        small_kernel_size: of the branch beside a depthwise kernel that is larger.
        drop_path_rate: probability that a sample skips the block in training, where there is a shortcut.
        norm_cfg, conv_cfg, deploy: as in `LargeKernelMobileNetV2`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        expansion: int,
        stride: int,
        dilation: int,
        has_shortcut: bool,
        small_kernel_size: int | None,
        drop_path_rate: float,
        norm_cfg: dict,
        conv_cfg: dict | None,
        deploy: bool,
    ):
        super().__init__()
        hidden = expansion * in_channels
        common = dict(norm_cfg=norm_cfg, deploy=deploy)
        has_branch = small_kernel_size is not None and small_kernel_size < kernel_size
        layers = [
            ConvolutionUnit(
                hidden,
                hidden,
                kernel_size,
                stride=stride,
                dilation=dilation,
                groups=hidden,
                conv_cfg=conv_cfg,
                activation=F.relu6,
                small_kernel_size=small_kernel_size if has_branch else None,
                **common,
            ),
            ConvolutionUnit(hidden, out_channels, 1, **common),
        ]
        if expansion != 1:
            layers.insert(0, ConvolutionUnit(in_channels, hidden, 1, activation=F.relu6, **common))
        self.conv = nn.Sequential(*layers)
        self.is_added = has_shortcut and stride == 1 and in_channels == out_channels
        drops = self.is_added and drop_path_rate > 0
        self.drop_path = DropPath(drop_path_rate) if drops else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.conv(x)) if self.is_added else self.conv(x)


@MODELS.register_module()
class LargeKernelMobileNetV2(Backbone):
    """MobileNet V2: (N, 3, H, W) -> maps of its seven layers and of the 1×1 convolution behind them.

    Args:
        widen_factor: what the channels are multiplied by, rounded to multiples of 8; the last convolution
            never has fewer than 1280. With 0.75 the parameters are those of the paper's Table 2c.
        kernel_sizes: of the depthwise convolutions, odd; one for all or one for each of the seven layers.
        has_shortcut: whether blocks are added to their input.
        small_kernel_size: of a branch with its own BatchNorm beside every larger depthwise kernel; None for
            none.
        strides: of the layers; 2 is that of their first block.
        dilations: of the layers' depthwise convolutions, as mmseg sets them for maps of stride 8.
        out_indices: 0 to 6 for the layers, 7 for the last convolution. What comes later is not built.
        drop_path_rate: drop path of the last block, rising linearly from 0; none without shortcuts.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i layers.
        norm_cfg: `dict(type='BN')` or `dict(type='SyncBN')`.
        norm_eval: keep the BatchNorms in evaluation mode during training.
        conv_cfg: type of the depthwise convolutions; those of stride 2 are always `nn.Conv2d`.
        deploy: build the folded structure.
        init_cfg: MMEngine's initialisation; `dict(type='Pretrained', checkpoint=...)` takes a classifier that
            was trained with the suite. Default: as in mmpretrain.

    Raises:
        ArgumentError: numbers that are not seven, an even kernel size, an output index that does not exist.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        kernel_sizes: int | Sequence[int] = 3,
        has_shortcut: bool = True,
        small_kernel_size: int | None = None,
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        dilations: Sequence[int] = (1, 1, 1, 1, 1, 1, 1),
        out_indices: Sequence[int] = (7,),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        norm_eval: bool = False,
        conv_cfg: dict | None = dict(type='DepthwiseConv2d'),  # noqa: B006
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer='_BatchNorm'),
            ]
        super().__init__(init_cfg=init_cfg)
        if isinstance(kernel_sizes, int):
            kernel_sizes = (kernel_sizes,) * len(LAYERS)
        _check(kernel_sizes, small_kernel_size, strides, dilations, out_indices, frozen_stages)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.deploy = deploy

        channels = _round_to_eight(32 * widen_factor)
        common = dict(norm_cfg=norm_cfg, activation=F.relu6, deploy=deploy)
        self.conv1 = ConvolutionUnit(3, channels, 3, stride=2, **common)
        num_blocks = sum(depth for *_, depth in LAYERS)
        rates = iter(drop_path_rate * i / (num_blocks - 1) for i in range(num_blocks))
        all_channels = []
        for i, (expansion, wide, depth) in enumerate(LAYERS[: max(self.out_indices) + 1]):
            wide = _round_to_eight(wide * widen_factor)
            blocks = []
            for block in range(depth):
                blocks.append(
                    InvertedResidual(
                        channels,
                        wide,
                        kernel_sizes[i],
                        expansion,
                        stride=strides[i] if block == 0 else 1,
                        dilation=dilations[i],
                        has_shortcut=has_shortcut,
                        small_kernel_size=small_kernel_size,
                        drop_path_rate=next(rates),
                        norm_cfg=norm_cfg,
                        conv_cfg=conv_cfg,
                        deploy=deploy,
                    )
                )
                channels = wide
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
            all_channels.append(channels)
        if max(self.out_indices) == len(LAYERS):
            last = max(LAST_CHANNELS, int(LAST_CHANNELS * widen_factor))
            self.conv2 = ConvolutionUnit(channels, last, 1, **common)
            all_channels.append(last)
        self.out_channels = [all_channels[i] for i in self.out_indices]
        self.register_load_state_dict_pre_hook(refuse_other_units)
        self.freeze_stages()

    def layers(self) -> list[nn.Module]:
        """What `out_indices` counts, as far as it is built."""
        names = [*(f'layer{i + 1}' for i in range(len(LAYERS))), 'conv2']
        return [getattr(self, name) for name in names[: max(self.out_indices) + 1]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> a tuple of (N, C_i, H_i, W_i), sizes rounded up."""
        x = self.conv1(x)
        outputs = []
        for i, layer in enumerate(self.layers()):
            x = layer(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def frozen_parts(self) -> Sequence[nn.Module]:
        if self.frozen_stages < 0:
            return ()
        return self.conv1, *self.layers()[: self.frozen_stages]

    def switch_to_deploy(self) -> None:
        """Fold norms and branches for inference, in place: same outputs. A second call does nothing."""
        for module in self.modules():
            if isinstance(module, ConvolutionUnit):
                module.switch_to_deploy()
        self.deploy = True


def _check(
    kernel_sizes: Sequence[int],
    small_kernel_size: int | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    out_indices: Sequence[int],
    frozen_stages: int,
) -> None:
    numbers = dict(kernel_sizes=kernel_sizes, strides=strides, dilations=dilations)
    for name, values in numbers.items():
        if len(values) != len(LAYERS):
            raise ArgumentError(
                f'{name} must be {len(LAYERS)} numbers, one a layer, got {tuple(values)}'
            )
    small = [] if small_kernel_size is None else [small_kernel_size]
    for size in (*kernel_sizes, *small):
        if size < 1 or size % 2 == 0:
            raise ArgumentError(f'kernel size {size} must be odd')
    indices = tuple(out_indices)
    if not indices or list(indices) != sorted(set(indices) & set(range(len(LAYERS) + 1))):
        raise ArgumentError(
            f'out_indices must rise from 0 to {len(LAYERS)} at most, without repetition, got {indices}'
        )
    if not -1 <= frozen_stages <= len(LAYERS):
        raise ArgumentError(
            f'frozen_stages must be between -1 and {len(LAYERS)}, got {frozen_stages}'
        )


def _round_to_eight(channels: float) -> int:
    """The nearest multiple of 8, at least 8, that is not more than 10 % smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
