"""UniRepLKNet, the large-kernel ConvNet of "Scaling Up Your Kernels" (arXiv 2410.08049, §3.2, Table 4).

The one backbone of the suite: classification, detection, segmentation and the other modalities share it.
Parameter names are those of the published checkpoints. What differs from the authors' code is said in
`blocks.py`, and one thing here: structures do not mix silently, deploy weights in a training model, or
the reverse, are refused.
"""

import contextlib
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.architecture import ARCHITECTURES, NUM_STAGES, resolve_architecture
from unireplknet_mm.models.backbone import Backbone
from unireplknet_mm.models.block_layers import LayerNorm2d
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.layers import (
    is_faster_channels_last,
    is_slow_in_float16,
    is_untouched,
    to_channels_last,
)
from unireplknet_mm.models.state_dict import load_backbone_weights, refuse_other_structure

OUTPUT_STRIDES = (8, 16, 32)


@MODELS.register_module()
class UniRepLKNet(Backbone):
    """The UniRepLKNet backbone: (N, in_channels, H, W) -> maps of stride 4, 8, 16 and 32 (`output_stride`).

    Args:
        arch: a, f, p, n, t, s, b, l, xl or h (Table 4), or a dict with `depths` and `channels` (four
            numbers each) and optionally `kernel_sizes`: a size or a list of sizes, one a block, for each
            stage, 1 for blocks without a depthwise convolution. Without it, `default_kernel_sizes(depths)`.
        in_channels: channels of the input.
        out_indices: the stages, 0 to 3 or negative, whose output is returned, each through its own
            channel-wise LayerNorm `norm{i}`.
        drop_path_rate: drop path of the last block; the rate rises linearly from 0 over the blocks.
        layer_scale_init_value: initial layer scale; 0 builds none.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_cfg: BatchNorm of the blocks, `dict(type='BN')` or `dict(type='SyncBN')`.
        norm_eval: keep the BatchNorms in evaluation mode (running statistics) during training.
        conv_cfg: type of the blocks' depthwise convolutions, branches included. `DepthwiseConv2d` runs the
            compiled op (`unireplknet_mm.ops`) where it was measured to be faster; None is `nn.Conv2d`.
        branches: {kernel size: ((k, r), ...)}, the dilated branches beside a kernel of that size, where
            they are to differ from `default_branches`.
        gap_before_final_norm: for classification, as in mmpretrain's ConvNeXt: return one (N, C) tensor,
            the last stage's global average through the LayerNorm `norm`. `out_indices` must be `(3,)`.
        deploy: build the inference structure, for weights that were re-parameterized before.
        with_cp: recompute the blocks' activations in the backward pass to save memory.
        output_stride: 32, or 16 or 8 for heads that want fine maps (DeepLab, arXiv 1606.00915; what mmseg
            writes as `strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)`): from that stride on downsampling
            layers keep the resolution, and the convolutions behind them are dilated by what they no longer
            skip: stage 4 by 2 for 16, stage 3 by 2 and stage 4 by 4 for 8. Each kernel then sees the part
            of the image for which it was trained; parameters, names and folding stay, weights load. Every
            position left out before is computed now, so that a stage takes 4 or 16 times as much of time
            and memory. On CPUs the compiled op runs the large kernels dilated so (`phases.py`); GPUs run
            them natively, since dilated kernels above 9×9 are beyond the op.
        extra_structure: what follows the blocks' depthwise convolution (Table 3a): 'se', or, for studies,
            'none', 'bottleneck', 'two_1x1' or 'two_dw3x3' (`ExtraConvolutions`).
        init_cfg: MMEngine's initialisation; `dict(type='Pretrained', checkpoint=...)` takes any published
            file: ImageNet, detector or segmenter; with `sum_input_channels=True` into a backbone of one
            input channel, whose stem is the file's, summed over the three colours. Default: truncated
            normal, deviation 0.02.

    Raises:
        ArgumentError: unknown arch, sizes that do not match the depths, an even or too small kernel size,
            branches that do not fit, an output index or an output stride that does not exist.

    Source: arXiv 2410.08049; names and shapes follow https://github.com/AILab-CVC/UniRepLKNet.
    """

    ARCHITECTURES = ARCHITECTURES
    NUM_LAYERS = 12  # of layer-wise learning-rate decay, between the stem (0) and the heads (13)

    def __init__(
        self,
        arch: str | dict = 't',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        norm_eval: bool = False,
        conv_cfg: dict | None = dict(type='DepthwiseConv2d'),  # noqa: B006
        branches: dict[int, Sequence[Sequence[int]]] | None = None,
        gap_before_final_norm: bool = False,
        deploy: bool = False,
        with_cp: bool = False,
        output_stride: int = 32,
        extra_structure: str = 'se',
        init_cfg: dict | list[dict] | None = None,
    ):
        if init_cfg is None:
            init_cfg = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0)
        super().__init__(init_cfg=init_cfg)
        self.arch_settings = resolve_architecture(arch)
        depths, channels = self.arch_settings['depths'], self.arch_settings['channels']
        kernel_sizes = self.arch_settings['kernel_sizes']
        self.out_indices = resolve_out_indices(out_indices)
        dilations = stage_dilations(output_stride)
        if gap_before_final_norm and self.out_indices != (NUM_STAGES - 1,):
            raise ArgumentError(
                f'gap_before_final_norm=True returns the last stage only: set out_indices=(3,), '
                f'got {tuple(out_indices)}'
            )
        if not -1 <= frozen_stages <= NUM_STAGES:
            raise ArgumentError(
                f'frozen_stages must be between -1 and {NUM_STAGES}, got {frozen_stages}'
            )
        if not 0 <= drop_path_rate < 1:
            raise ArgumentError(
                f'drop_path_rate must be at least 0 and below 1, got {drop_path_rate}'
            )
        if in_channels < 1:
            raise ArgumentError(f'in_channels must be at least 1, got {in_channels}')
        self.in_channels = in_channels
        self.output_stride = output_stride
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.gap_before_final_norm = gap_before_final_norm
        self.deploy = deploy
        branches = {int(size): pairs for size, pairs in (branches or {}).items()}

        self.downsample_layers = nn.ModuleList([build_stem(in_channels, channels[0])])
        for (narrow, wide), (before, after) in zip(
            itertools.pairwise(channels), itertools.pairwise(dilations), strict=True
        ):
            stride = 2 * before // after
            self.downsample_layers.append(build_downsampling(narrow, wide, stride, before))

        num_blocks = sum(depths)
        rates = iter(drop_path_rate * i / max(1, num_blocks - 1) for i in range(num_blocks))
        self.stages = nn.ModuleList()
        for stage_channels, stage_kernel_sizes, dilation in zip(
            channels, kernel_sizes, dilations, strict=True
        ):
            blocks = [
                UniRepLKNetBlock(
                    stage_channels,
                    kernel_size,
                    drop_path_rate=next(rates),
                    layer_scale_init_value=layer_scale_init_value,
                    branches=branches.get(kernel_size),
                    norm_cfg=norm_cfg,
                    conv_cfg=conv_cfg,
                    deploy=deploy,
                    with_cp=with_cp,
                    dilation=dilation,
                    extra_structure=extra_structure,
                )
                for kernel_size in stage_kernel_sizes
            ]
            self.stages.append(nn.Sequential(*blocks))

        if gap_before_final_norm:
            self.norm = nn.LayerNorm(channels[-1], eps=1e-6)
        else:
            for i in self.out_indices:
                self.add_module(f'norm{i}', LayerNorm2d(channels[i], eps=1e-6))
        self.register_load_state_dict_pre_hook(refuse_other_structure)
        self.freeze_stages()

    @property
    def out_channels(self) -> list[int]:
        """Channels of each returned map, in the order of `out_indices`."""
        return [self.arch_settings['channels'][i] for i in self.out_indices]

    @property
    def out_strides(self) -> list[int]:
        """Stride of each returned map against the input, in the order of `out_indices`."""
        return [stage_stride(i, self.output_stride) for i in self.out_indices]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> a tuple of (N, C_i, H/s, W/s), s of `out_strides`, rounded up.

        With `gap_before_final_norm`, a tuple of one (N, C) tensor. Maps have the memory format of x, whatever
        the one in between.
        """
        is_converted = is_faster_channels_last(x)
        if is_converted:
            x = to_channels_last(x)
        outputs = []
        for i, (downsample, stage) in enumerate(
            zip(self.downsample_layers, self.stages, strict=True)
        ):
            x = stage(downsample(x))
            if self.gap_before_final_norm:
                continue
            if i in self.out_indices:
                outputs.append(getattr(self, f'norm{i}')(x))
            if i == self.out_indices[-1]:
                break
        if self.gap_before_final_norm:
            outputs.append(self.norm(x.mean((-2, -1))))
        return tuple(output.contiguous() if is_converted else output for output in outputs)

    def load_pretrained(self, path: str, sum_input_channels: bool = False) -> None:
        """Load all weights from a file, a URL or a name, of any published form."""
        load_backbone_weights(self, path, sum_input_channels)

    def frozen_parts(self) -> Sequence[nn.Module]:
        if self.frozen_stages < 0:
            return ()
        num_stages = max(1, self.frozen_stages)
        return [*self.downsample_layers[:num_stages], *self.stages[: self.frozen_stages]]

    def switch_to_deploy(self) -> None:
        """Fold every block for inference, in place (§3.2.2): same outputs, one kernel where six were.

        A second call does nothing. Device, dtype, `requires_grad` and the training flag stay.
        """
        for module in self.modules():
            if isinstance(module, UniRepLKNetBlock):
                module.switch_to_deploy()
        self.deploy = True

    def get_layer_depth(self, param_name: str, prefix: str = 'backbone.') -> tuple[int, int]:
        """The layer of a parameter for layer-wise learning-rate decay, as in the published recipes.

        Stem 0; stage 1 → 1; second downsampling and stage 2 → 2; third downsampling → 3; block i of stage
        3 → 3 + i // 3; fourth downsampling and stage 4 → 12; output norms and everything outside 13.

        Args:
            param_name: the parameter's name in the whole model.
            prefix: what the backbone's parameters start with there.

        Returns:
            The layer and the number of layers, 14.
        """
        num_layers = self.NUM_LAYERS + 2
        outside = num_layers - 1
        if not param_name.startswith(prefix):
            return outside, num_layers
        parts = param_name[len(prefix) :].split('.')
        last = self.NUM_LAYERS
        if parts[0] == 'downsample_layers':
            return (0, 2, 3, last)[int(parts[1])], num_layers
        if parts[0] == 'stages':
            third = min(3 + int(parts[2]) // 3, last - 1)
            return (1, 2, third, last)[int(parts[1])], num_layers
        return outside, num_layers


class Downsampling(nn.Sequential):
    """Dense convolutions of stride 2, with what stands behind each, run where `is_slow_in_float16` says."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x) if torch.jit.is_scripting() else self.computed(layer, x)
        return x

    @torch.jit.unused
    def computed(self, layer: nn.Module, x: Tensor) -> Tensor:
        if not (
            is_slow_in_float16(x, layer.parameters())
            and is_untouched(layer, nn.Conv2d)
            and layer.padding_mode == 'zeros'
        ):
            return layer(x)
        x, weight, bias = (
            None if tensor is None else tensor.to(torch.float16).float()
            for tensor in (x, layer.weight, layer.bias)
        )
        settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
        is_autocast = torch.is_autocast_enabled('cpu')
        with torch.autocast('cpu', enabled=False) if is_autocast else contextlib.nullcontext():
            return F.conv2d(x, weight, bias, *settings).to(torch.float16)


def build_stem(in_channels: int, channels: int) -> Downsampling:
    """Two stride-2 3×3 convolutions with channel-wise LayerNorm, GELU between them: stride 4."""
    return Downsampling(
        nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1),
        LayerNorm2d(channels // 2, eps=1e-6),
        nn.GELU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
        LayerNorm2d(channels, eps=1e-6),
    )


def build_downsampling(
    in_channels: int, out_channels: int, stride: int = 2, dilation: int = 1
) -> Downsampling:
    return Downsampling(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation),
        LayerNorm2d(out_channels, eps=1e-6),
    )


def stage_stride(stage: int, output_stride: int = 32) -> int:
    """Stride of a stage's map against the input: 4, 8, 16, 32, and `output_stride` at most."""
    return min(4 * 2**stage, output_stride)


def stage_dilations(output_stride: int) -> tuple[int, ...]:
    """How far each stage's kernels are dilated: by the downsampling left out in front of them."""
    if type(output_stride) is not int or output_stride not in OUTPUT_STRIDES:
        raise ArgumentError(
            f'output_stride must be {", ".join(map(str, OUTPUT_STRIDES[:-1]))} or {OUTPUT_STRIDES[-1]}, '
            f'got {output_stride!r}: only stages 3 and 4 can keep the resolution of the stage before'
        )
    return tuple(
        stage_stride(stage) // stage_stride(stage, output_stride) for stage in range(NUM_STAGES)
    )


def resolve_out_indices(out_indices: Sequence[int] | int) -> tuple[int, ...]:
    indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    if not indices or not all(-NUM_STAGES <= i < NUM_STAGES for i in indices):
        raise ArgumentError(f'out_indices must be stages from 0 to {NUM_STAGES - 1}, got {indices}')
    resolved = tuple(i % NUM_STAGES for i in indices)
    if list(resolved) != sorted(set(resolved)):
        raise ArgumentError(f'out_indices must rise and not repeat, got {indices}')
    return resolved
