"""RepLKNet (arXiv 2203.06717, §4.1): the base model of the paper's Table 2d.

What differs from mmpretrain's RepLKNet: the op runs the kernels, everything that has a norm behind it folds,
and kernels that are no larger than the small one (3×3 in Table 2d) have none beside them. Structure only: no
published weights load into it.
"""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.backbone import Backbone
from unireplknet_mm.models.batch_norms import build_batch_norm
from unireplknet_mm.models.convolution_unit import ConvolutionUnit
from unireplknet_mm.models.layers import DropPath
from unireplknet_mm.models.state_dict import refuse_other_units

NUM_STAGES = 4


class RepLKBlock(nn.Module):
    """BN -> 1×1 -> depthwise K×K with a small kernel beside it -> 1×1, ReLU between; residual.

    Args:
        small_kernel_size: beside a kernel that is larger.
        drop_path_rate: probability that a sample skips the block in training.
        channels, kernel_size, norm_cfg, conv_cfg, deploy: as in `FoldableRepLKNet`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        small_kernel_size: int,
        drop_path_rate: float,
        norm_cfg: dict,
        conv_cfg: dict | None,
        deploy: bool,
    ):
        super().__init__()
        common = dict(norm_cfg=norm_cfg, deploy=deploy)
        self.norm = build_batch_norm(norm_cfg, channels)
        self.pw1 = ConvolutionUnit(channels, channels, 1, activation=F.relu, **common)
        self.dwconv = ConvolutionUnit(
            channels,
            channels,
            kernel_size,
            groups=channels,
            conv_cfg=conv_cfg,
            activation=F.relu,
            small_kernel_size=small_kernel_size if small_kernel_size < kernel_size else None,
            **common,
        )
        self.pw2 = ConvolutionUnit(channels, channels, 1, **common)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.pw2(self.dwconv(self.pw1(self.norm(x)))))


class ConvFFN(nn.Module):
    """BN -> 1×1 to four times the channels -> GELU -> 1×1 back; residual."""

    def __init__(self, channels: int, drop_path_rate: float, norm_cfg: dict, deploy: bool):
        super().__init__()
        common = dict(norm_cfg=norm_cfg, deploy=deploy)
        self.norm = build_batch_norm(norm_cfg, channels)
        self.pw1 = ConvolutionUnit(channels, 4 * channels, 1, activation=F.gelu, **common)
        self.pw2 = ConvolutionUnit(4 * channels, channels, 1, **common)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.pw2(self.pw1(self.norm(x))))


@MODELS.register_module()
class FoldableRepLKNet(Backbone):
    """RepLKNet: (N, 3, H, W) -> maps of stride 4, 8, 16 and 32.

    Args:
        channels, depths, kernel_sizes: of the four stages, those of 31B by default; odd kernels.
        small_kernel_size: of the kernel beside each larger one.
        out_indices: the stages, 0 to 3, whose output is returned.
        has_final_norm: whether the last stage's output goes through a BatchNorm, as in classifiers.
        drop_path_rate: drop path of the last block; it rises linearly from 0.
        norm_cfg: `dict(type='BN')` or `dict(type='SyncBN')`.
        conv_cfg: type of the depthwise convolutions; those of stride 2 are always `nn.Conv2d`.
        deploy: build the folded structure.
        init_cfg: MMEngine's initialisation; `dict(type='Pretrained', checkpoint=...)` takes a classifier that
            was trained with the suite. Default: truncated normal, deviation 0.02.

    Raises:
        ArgumentError: numbers that are not four, an even kernel size, an output index that does not exist.
    """

    def __init__(
        self,
        channels: Sequence[int] = (128, 256, 512, 1024),
        depths: Sequence[int] = (2, 2, 18, 2),
        kernel_sizes: Sequence[int] = (31, 29, 27, 13),
        small_kernel_size: int = 5,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        has_final_norm: bool = False,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        conv_cfg: dict | None = dict(type='DepthwiseConv2d'),  # noqa: B006
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        if init_cfg is None:
            init_cfg = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0)
        super().__init__(init_cfg=init_cfg)
        _check(channels, depths, kernel_sizes, small_kernel_size, out_indices)
        self.out_indices = tuple(out_indices)
        self.out_channels = [channels[i] for i in self.out_indices]
        self.deploy = deploy

        common = dict(norm_cfg=norm_cfg, deploy=deploy)
        unit = dict(activation=F.relu, **common)
        depthwise = dict(groups=channels[0], conv_cfg=conv_cfg, **unit)
        width = channels[0]
        self.stem = nn.Sequential(
            ConvolutionUnit(3, width, 3, stride=2, **unit),
            ConvolutionUnit(width, width, 3, **depthwise),
            ConvolutionUnit(width, width, 1, **unit),
            ConvolutionUnit(width, width, 3, stride=2, **depthwise),
        )
        self.transitions = nn.ModuleList(
            nn.Sequential(
                ConvolutionUnit(narrow, wide, 1, **unit),
                ConvolutionUnit(wide, wide, 3, stride=2, **dict(depthwise, groups=wide)),
            )
            for narrow, wide in itertools.pairwise(channels)
        )
        num_blocks = sum(depths)
        rates = iter(drop_path_rate * i / max(1, num_blocks - 1) for i in range(num_blocks))
        self.stages = nn.ModuleList()
        for wide, depth, kernel_size in zip(channels, depths, kernel_sizes, strict=True):
            blocks = []
            for rate in itertools.islice(rates, depth):
                block = RepLKBlock(
                    wide, kernel_size, small_kernel_size, rate, conv_cfg=conv_cfg, **common
                )
                blocks += [block, ConvFFN(wide, rate, **common)]
            self.stages.append(nn.Sequential(*blocks))
        self.norm = build_batch_norm(norm_cfg, channels[-1]) if has_final_norm else nn.Identity()
        self.register_load_state_dict_pre_hook(refuse_other_units)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> a tuple of (N, C_i, H/s, W/s), s = 4, 8, 16, 32, rounded up."""
        x = self.stem(x)
        outputs = []
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = self.transitions[i - 1](x)
            x = stage(x)
            if i in self.out_indices:
                outputs.append(self.norm(x) if i == NUM_STAGES - 1 else x)
        return tuple(outputs)

    def switch_to_deploy(self) -> None:
        """Fold norms and small kernels for inference, in place: same outputs. A second call does nothing.

        The norms at the beginning of the blocks stay: nothing stands before them.
        """
        for module in self.modules():
            if isinstance(module, ConvolutionUnit):
                module.switch_to_deploy()
        self.deploy = True


def _check(
    channels: Sequence[int],
    depths: Sequence[int],
    kernel_sizes: Sequence[int],
    small_kernel_size: int,
    out_indices: Sequence[int],
) -> None:
    for name, values in dict(channels=channels, depths=depths, kernel_sizes=kernel_sizes).items():
        if len(values) != NUM_STAGES:
            raise ArgumentError(
                f'{name} must be {NUM_STAGES} numbers, one a stage, got {tuple(values)}'
            )
    for size in (*kernel_sizes, small_kernel_size):
        if size < 1 or size % 2 == 0:
            raise ArgumentError(f'kernel size {size} must be odd')
    indices = tuple(out_indices)
    if not indices or list(indices) != sorted(set(indices) & set(range(NUM_STAGES))):
        raise ArgumentError(
            f'out_indices must rise from 0 to {NUM_STAGES - 1} at most, without repetition, got {indices}'
        )
