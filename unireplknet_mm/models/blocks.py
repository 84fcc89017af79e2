"""The building blocks of UniRepLKNet: Dilated Reparam Block, LarK and SmaK blocks, their layers.

Paper: §3.2.1 and §3.2.2, Fig. 3 and 6 (arXiv 2410.08049). What differs from the authors' code:

- the folding of branches, norms, layer scale and GRN bias lives in `reparameterize.py` as pure functions
  and works in every floating dtype and on every device;
- activation checkpointing is non-reentrant and updates BatchNorm's running statistics once, not twice;
- the depthwise convolutions run on the compiled op where it is faster (`unireplknet_mm.ops`);
- in inference, what follows them in a block runs as one compiled op where that is faster (`fused`), in
  training the branches of a Dilated Reparam Block (its `fused`), GELU and GRN (`expanded`); BatchNorm and
  SE are then a factor and a summand of the linear layer's input (`product_of_normed`);
- kernel sizes from 19 up have default branches (see `default_branches`), and a user may pass others;
- the depthwise convolutions may be dilated, for backbones that keep the resolution (`output_stride`).
"""

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm  # what 'SyncBN' builds
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import products
from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.architecture import (
    branch_names,
    check_branches,
    default_branches,
)
from unireplknet_mm.models.layers import (
    DropPath,
    build_conv_layer,
    build_norm_layer,
    computes_as,
    is_untouched,
    leaves_process,
    may_rearrange,
    may_rearrange_training,
)
from unireplknet_mm.models.phases import join_phases, split_phases
from unireplknet_mm.models.scaled_linear import moments, scaled_linear
from unireplknet_ops import (
    DepthwiseConv2d,
    DepthWiseConv2dImplicitGEMM,
    depthwise_conv2d,
    dilated_reparam,
    dilated_reparam_takes_op,
    feed_forward,
    feed_forward_takes_op,
    gelu_grn,
    gelu_grn_takes_op,
    is_available,
    squeeze_excitation,
)
from unireplknet_ops.convolution_rules import same_padding
from unireplknet_ops.dispatch import forced_implementation
from unireplknet_ops.feedforward import global_response_norm
from unireplknet_ops.torch_internals import add_all_, multiply_all_

torch.fx.wrap(
    'global_response_norm'
)  # a node of its own for torch.fx, which cannot trace its dtypes


def batch_norm_tensors(norm: _BatchNorm, dtype: torch.dtype) -> rep.BatchNormTensors:
    """A BatchNorm module's tensors in the dtype that folding computes in, as of an affine one.

    Raises:
        ArgumentError: it has no running statistics, or is another norm.
    """
    mean, var = getattr(norm, 'running_mean', None), getattr(norm, 'running_var', None)
    if mean is None or var is None:
        raise ArgumentError(f'{norm} does not fold: only BatchNorms with running statistics do')
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    return rep.BatchNormTensors(*(t.to(dtype) for t in (mean, var, weight, bias)), norm.eps)


def is_plain_conv(conv: nn.Module, kernel_size: int, dilation: int) -> bool:
    """Whether a convolution is the one that was built with these, free to run where it is fastest."""
    return (
        is_untouched(conv, DepthwiseConv2d, DepthWiseConv2dImplicitGEMM)
        and conv.implementation == 'auto'
        and conv.kernel_size == (kernel_size, kernel_size)
        and conv.dilation == (dilation, dilation)
        and conv.is_as_built()
    )


def is_affine(norm: _BatchNorm) -> bool:
    return norm.weight is not None and norm.bias is not None


def uses_own_batch(norm: nn.Module) -> bool:
    """Whether a norm is a BatchNorm that takes the statistics of its input, in this process alone."""
    if not is_untouched(norm, nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm):
        return False
    is_alone = type(norm) is nn.BatchNorm2d or not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    )
    return norm.training and is_affine(norm) and is_alone


def uses_own_statistics(norm: nn.Module) -> bool:
    """Whether a norm is a BatchNorm in evaluation, which takes the running statistics."""
    return (
        is_untouched(norm, nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm)
        and not norm.training
        and is_affine(norm)
        and norm.running_mean is not None
    )


def update_running_statistics(
    norms: Sequence[_BatchNorm], means: Sequence[Tensor], variances: Sequence[Tensor]
) -> None:
    """What BatchNorms in training do with the means and the unbiased variances of their batch.

    All in few calls, since a compiler takes as long to trace a small step as a large one.
    """
    kept = [
        (norm, mean, var)
        for norm, mean, var in zip(norms, means, variances, strict=True)
        if norm.track_running_stats and norm.running_mean is not None
    ]
    norms = [norm for norm, _, _ in kept]
    counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    if counters:
        add_all_(counters, 1)
    running = [norm.running_mean for norm in norms] + [norm.running_var for norm in norms]
    new = [mean for _, mean, _ in kept] + [var for _, _, var in kept]
    new = [value.to(old.dtype) for value, old in zip(new, running, strict=True)]
    momenta = {norm.momentum for norm in norms}
    if len(momenta) == 1 and None not in momenta:
        (momentum,) = momenta
        multiply_all_(running, 1 - momentum)  # not `lerp`, which makes NaN of the infinite
        add_all_(running, new, momentum)
        return
    for old, value, norm in zip(running, new, [*norms, *norms], strict=True):
        momentum = norm.momentum or 0.0
        if norm.momentum is None and norm.num_batches_tracked is not None:
            momentum = norm.num_batches_tracked.reciprocal()  # the average of all batches
        old.mul_(1 - momentum).add_(value * momentum)


# N * H * W from which on the branches of a training block with frozen statistics merge, from a sweep.
MINIMUM_POSITIONS_TO_MERGE = 98


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW map (`data_format='channels_first'` in ConvNeXt).

    The output has the memory format of the input, NCHW where that has neither.
    """

    def forward(self, x: Tensor) -> Tensor:
        is_traced = not isinstance(x, Tensor)  # by torch.fx
        is_channels_first = is_traced or x.is_contiguous() or x.stride(1) != 1
        x = x.permute(0, 2, 3, 1)  # [N, H, W, C]
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        x = x.permute(0, 3, 1, 2)
        return x.contiguous() if is_channels_first else x


class ToChannelsLast(nn.Module):
    """[N, C, H, W] -> [N, H, W, C]. A module, so that the published indices of a Sequential hold.

    Contiguous, since a linear layer whose weight needs no gradient runs strided maps as one small product
    a row, with the weight copied for each.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


class ToChannelsFirst(nn.Module):
    """[N, H, W, C] -> [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Squeeze-and-Excitation (arXiv 1709.01507) on NCHW maps, reduction 1/4 (§3.2.1)."""

    def __init__(self, channels: int, squeezed_channels: int):
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed_channels, 1)
        self.up = nn.Conv2d(squeezed_channels, channels, 1)

    def scale(self, x: Tensor) -> Tensor:
        """The factor of each channel, (N, C, 1, 1)."""
        scale = F.adaptive_avg_pool2d(x, 1)
        return torch.sigmoid(self.up(F.relu(self.down(scale))))

    def scale_by_products(self, means: Tensor) -> Tensor:
        """`scale` from the means of each image's channels, both (N, C).

        A matrix product costs half of what a convolution of one position does.
        """
        weight1, bias1, weight2, bias2 = self.matrices()
        return torch.sigmoid(F.linear(F.relu(F.linear(means, weight1, bias1)), weight2, bias2))

    def matrices(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Weight and bias of the two layers, as of linear ones."""
        down, up = self.down, self.up
        return down.weight.flatten(1), down.bias, up.weight.flatten(1), up.bias

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


class ExtraConvolutions(nn.Sequential):
    """Convolutions in the place of SE, each with BatchNorm and ReLU (Table 3a, A to C; Fig. 7).

    The paper names no shortcut around them, so there is none.

    Args:
        structure: 'bottleneck', a 1×1 convolution to a quarter of the channels, a depthwise 3×3 and a 1×1
            back; 'two_1x1', the same without the depthwise one; 'two_dw3x3', two depthwise 3×3.
        channels: C of the (N, C, H, W) input and output.
        norm_cfg, conv_cfg, deploy: as in `DilatedReparamBlock`.
        dilation: of the depthwise convolutions.
    """

    STRUCTURES = ('bottleneck', 'two_1x1', 'two_dw3x3')

    def __init__(
        self,
        structure: str,
        channels: int,
        norm_cfg: dict,
        conv_cfg: dict | None,
        deploy: bool,
        dilation: int = 1,
    ):
        super().__init__()
        self.conv_cfg = conv_cfg
        narrow = max(1, channels // 4)
        reduce, expand = (channels, narrow, 1), (narrow, channels, 1)
        layers = dict(  # channels of input and output, kernel size
            bottleneck=(reduce, (narrow, narrow, 3), expand),
            two_1x1=(reduce, expand),
            two_dw3x3=((channels, channels, 3),) * 2,
        )
        for in_channels, out_channels, kernel_size in layers[structure]:
            if kernel_size == 1:
                self.append(nn.Conv2d(in_channels, out_channels, 1, bias=deploy))
            else:
                conv = build_depthwise_conv(out_channels, kernel_size, conv_cfg, deploy, dilation)
                self.append(conv)
            self.append(nn.Identity() if deploy else build_batch_norm(norm_cfg, out_channels))
            self.append(nn.ReLU())

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into the convolution before it, in place. A second call does nothing."""
        for i in range(0, len(self), 3):
            conv, norm = self[i], self[i + 1]
            if isinstance(norm, nn.Identity):
                continue
            dtype = rep.folding_dtype(conv.weight.dtype)
            weight, bias = rep.fold_batch_norm(
                conv.weight.detach().to(dtype), conv.bias, batch_norm_tensors(norm, dtype)
            )
            if conv.kernel_size == (1, 1):
                new = nn.Conv2d(conv.in_channels, conv.out_channels, 1, device='meta')
                self[i] = with_parameters_like(new, conv, weight, bias)
            else:
                self[i] = conv_like(conv, weight, bias, self.conv_cfg)
            self[i + 1] = nn.Identity()


def build_extra_structure(
    structure: str,
    channels: int,
    norm_cfg: dict,
    conv_cfg: dict | None,
    deploy: bool,
    dilation: int,
) -> nn.Module:
    """What stands between a block's depthwise convolution and its FFN: SE, or another of Table 3a.

    Raises:
        ArgumentError: there is no such structure.
    """
    if structure == 'se':
        return SqueezeExcitation(channels, max(1, channels // 4))
    if structure == 'none':
        return nn.Identity()
    if structure not in ExtraConvolutions.STRUCTURES:
        known = ', '.join(('se', 'none', *ExtraConvolutions.STRUCTURES))
        raise ArgumentError(f'extra_structure must be one of {known}, got {structure!r}')
    return ExtraConvolutions(structure, channels, norm_cfg, conv_cfg, deploy, dilation)


class GlobalResponseNorm(nn.Module):
    """Global Response Normalization on [N, H, W, C] maps, by `global_response_norm`."""

    def __init__(self, channels: int, use_bias: bool = True):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels)) if use_bias else None

    def forward(self, x: Tensor) -> Tensor:
        return global_response_norm(x, self.gamma, self.beta)

    def vectors(self) -> list[Tensor | None]:
        """gamma and beta as vectors, (C,)."""
        return [None if tensor is None else tensor.flatten() for tensor in (self.gamma, self.beta)]

    def is_of(self, channels: int) -> bool:
        """Whether gamma and beta have one value a channel, not one for all, which the modules broadcast."""
        return all(t is None or t.numel() == channels for t in (self.gamma, self.beta))


class DilatedReparamBlock(nn.Module):
    """A K×K depthwise convolution, in training with parallel dilated ones, each with BatchNorm (Fig. 6).

    Args:
        channels: C of the (N, C, H, W) input and output.
        kernel_size: K, odd, at least 5.
        branches: (kernel size, dilation) pairs; None takes `default_branches(kernel_size)`.
        norm_cfg: the BatchNorm of every branch.
        conv_cfg: the type of all its convolutions, None for `nn.Conv2d`.
        deploy: build the folded structure, one convolution with bias.
        dilation: of the K×K kernel; those of the branches are multiplied by it, so that they still fold.
            The compiled op takes no such kernels (`unireplknet_ops.convolution_rules`), but where it would
            run the undilated block on a CPU, it runs this one on the map's phases (`phases.py`). Elsewhere
            `F.conv2d` runs it.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        branches: Sequence[Sequence[int]] | None = None,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        conv_cfg: dict | None = dict(type='DepthwiseConv2d'),  # noqa: B006
        deploy: bool = False,
        dilation: int = 1,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        default = default_branches(kernel_size)
        self.branches = default if branches is None else check_branches(kernel_size, branches)
        self.branch_names = branch_names(self.branches)
        self.conv_cfg = conv_cfg
        self.lk_origin = build_depthwise_conv(channels, kernel_size, conv_cfg, deploy, dilation)
        if deploy:
            return
        self.origin_bn = build_batch_norm(norm_cfg, channels)
        for name, (size, relative) in zip(self.branch_names, self.branches, strict=True):
            conv = build_depthwise_conv(channels, size, conv_cfg, False, relative * dilation)
            self.add_module(f'dil_conv_{name}', conv)
            self.add_module(f'dil_bn_{name}', build_batch_norm(norm_cfg, channels))

    @property
    def deploy(self) -> bool:
        return not hasattr(self, 'origin_bn')

    def dilated_layers(self) -> Iterator[tuple[nn.Conv2d, _BatchNorm, int]]:
        for name, (_, dilation) in zip(self.branch_names, self.branches, strict=True):
            yield getattr(self, f'dil_conv_{name}'), getattr(self, f'dil_bn_{name}'), dilation

    def layers(self) -> list[tuple[nn.Conv2d, _BatchNorm, int]]:
        """Convolution, BatchNorm and dilation of every branch, the large kernel first.

        The dilation is the one between the taps of the large kernel, on which the branches fold.
        """
        return [(self.lk_origin, self.origin_bn, 1), *self.dilated_layers()]

    def has_plain_convs(self) -> bool:
        """Whether every convolution is the one that was built, and has a bias only in the folded form."""
        if self.deploy:
            return is_plain_conv(self.lk_origin, self.kernel_size, self.dilation)
        sizes = [self.kernel_size, *(size for size, _ in self.branches)]
        return all(
            is_plain_conv(conv, size, dilation * self.dilation) and conv.bias is None
            for (conv, _, dilation), size in zip(self.layers(), sizes, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # which cannot look layers up by names that it puts together
            maps = [x]
            for layer in self.children():  # a convolution, its norm (none if folded), and so on
                maps.append(layer(x if len(maps) % 2 else maps[-1]))
            return maps[1] if len(maps) == 2 else torch.stack(maps[2::2]).sum(0)
        if self.dilation > 1 and self.can_split(x):
            return self.in_phases(x)
        if self.deploy:
            return self.lk_origin(x)
        if self.dilation == 1 and self.can_fuse(x):
            return self.fused(x)
        if self.dilation == 1 and self.can_merge(x):
            return depthwise_conv2d(x, *self.merged_kernel(x.dtype))
        out = self.origin_bn(self.lk_origin(x))
        for conv, norm, _ in self.dilated_layers():
            out = out + norm(conv(x))
        return out

    def can_split(self, x: Tensor) -> bool:
        """Whether `in_phases` may take the place of the modules: on CPUs, where the op has kernels."""
        if not isinstance(x, Tensor) or x.device.type != 'cpu' or x.dim() != 4:
            return False
        return (
            is_available('cpu')
            and forced_implementation() != 'native'
            and self.has_plain_convs()
            and not leaves_process()
        )

    def in_phases(self, x: Tensor) -> Tensor:
        """`forward` of a dilated block: without dilation, on each of the map's phases."""
        phases = split_phases(x, self.dilation)
        if self.deploy:
            out = depthwise_conv2d(phases, self.lk_origin.weight, self.lk_origin.bias)
            return join_phases(out, self.dilation, x)
        has_no_margin = phases.numel() == x.numel()  # which would count in the norms' statistics
        if has_no_margin and self.can_fuse(phases):
            return join_phases(self.fused(phases), self.dilation, x)
        out = None
        for conv, norm, dilation in self.layers():
            branch = depthwise_conv2d(phases, conv.weight, dilation=dilation)
            branch = norm(join_phases(branch, self.dilation, x))
            out = branch if out is None else out + branch
        return out

    def can_fuse(self, x: Tensor) -> bool:
        """Whether `fused` may take the place of the modules: in training, where the op is faster."""
        if not isinstance(x, Tensor):  # a torch.fx proxy
            return False
        convs, norms, _ = zip(*self.layers(), strict=True)
        if not all(map(uses_own_batch, norms)) or not self.has_plain_convs():
            return False
        if len(set(norms)) < len(norms):  # one whose statistics are updated several times
            return False
        vectors = [vector for norm in norms for vector in (norm.weight, norm.bias)]
        return dilated_reparam_takes_op(x, [conv.weight for conv in convs], vectors)

    def fused(self, x: Tensor) -> Tensor:
        """The undilated block in training, with all branches in one op, which keeps x alone for backward."""
        convs, norms, dilations = zip(*self.layers(), strict=True)
        out, means, variances = dilated_reparam(
            x,
            [conv.weight for conv in convs],
            dilations,
            [norm.weight for norm in norms],
            [norm.bias for norm in norms],
            [norm.eps for norm in norms],
            implementation='op',
        )
        values = x.numel() // x.shape[1]
        unbiased = variances * (values / (values - 1))
        update_running_statistics(norms, means, unbiased)
        return out

    def can_merge(self, x: Tensor) -> bool:
        """Whether one convolution with `merged_kernel` may take the place of the modules.

        In training with frozen statistics, exact to rounding, on maps that are large enough to pay for it.
        """
        return (
            may_rearrange_training(x, self.parameters())
            and x.numel() >= MINIMUM_POSITIONS_TO_MERGE * x.shape[1]
            and self.has_plain_convs()
            and all(uses_own_statistics(norm) for _, norm, _ in self.layers())
        )

    def merged_kernel(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight (C, 1, K, K) and bias (C,) of the one convolution that equals the block in evaluation.

        The convolutions count as they are, whatever they were built as; K and dilation are `lk_origin`'s.

        Raises:
            ArgumentError: somebody has changed a convolution so that it does not fold.
        """
        large, branches = self.lk_origin, []
        for conv, norm, _ in self.layers():
            check_folds(conv)
            dilation, rest = divmod(conv.dilation[0], large.dilation[0])
            reach = (conv.kernel_size[0] - 1) * dilation
            if rest or reach >= large.kernel_size[0]:
                raise ArgumentError(f'the taps of {conv} are not among those of {large}')
            norm = batch_norm_tensors(norm, dtype)
            branches.append(rep.Branch(conv.weight.to(dtype), norm, dilation, conv.bias))
        return rep.merge_branches(branches, large.kernel_size[0])

    def replace_by(self, conv: nn.Conv2d) -> None:
        """Drop the branches; `conv` is the block from now on."""
        self.lk_origin = conv
        del self.origin_bn
        for name in self.branch_names:
            delattr(self, f'dil_conv_{name}')
            delattr(self, f'dil_bn_{name}')

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold the branches into one convolution, in place. A second call does nothing."""
        if not self.deploy:
            check_folds(self.lk_origin)
            dtype = rep.folding_dtype(self.lk_origin.weight.dtype)
            self.replace_by(conv_like(self.lk_origin, *self.merged_kernel(dtype), self.conv_cfg))


# Layers of pwconv1 and act, which `UniRepLKNetBlock.expanded` computes in two steps.
EXPANDING_LAYERS = ((ToChannelsLast,), (nn.Linear,), (nn.GELU,), (GlobalResponseNorm,))
# SE with its two layers.
SQUEEZING_LAYERS = ((SqueezeExcitation,), (nn.Conv2d,), (nn.Conv2d,))
# Those of pwconv2 whose BatchNorm can take layer scale over (`projected`).
PROJECTING_LAYERS = ((nn.Linear,), (ToChannelsFirst,), (nn.BatchNorm2d,))
# What `fused` computes in one after SE: pwconv1, act and pwconv2.
FUSED_LAYERS = (*EXPANDING_LAYERS, (nn.Linear,), (ToChannelsFirst,))


class UniRepLKNetBlock(nn.Module):
    """A LarK block (kernel size ≥ 7) or a SmaK block (3 or 5) of the paper's Fig. 3.

    Depthwise convolution -> BN -> SE -> Linear ×4 -> GELU -> GRN -> Linear -> BN -> layer scale -> drop
    path, added to the input; the depthwise convolution is a Dilated Reparam Block where it is large.

    Args:
        channels: C of the (N, C, H, W) input and output.
        kernel_size: K of the depthwise convolution, odd; with 1 there is its BatchNorm alone (Table 3d).
        drop_path_rate: probability that a sample skips the block in training.
        layer_scale_init_value: initial layer scale, 0 for none.
        branches, norm_cfg, conv_cfg, deploy: as in `DilatedReparamBlock`.
        with_cp: recompute activations in the backward pass instead of keeping them.
        ffn_ratio: the hidden width of the two linear layers, in C.
        dilation: of the depthwise convolutions.
        extra_structure: what stands in SE's place, under its name: 'se', 'none' or one of
            `ExtraConvolutions` (Table 3a).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        branches: Sequence[Sequence[int]] | None = None,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        conv_cfg: dict | None = dict(type='DepthwiseConv2d'),  # noqa: B006
        deploy: bool = False,
        with_cp: bool = False,
        ffn_ratio: int = 4,
        dilation: int = 1,
        extra_structure: str = 'se',
    ):
        super().__init__()
        self.deploy = deploy
        self.with_cp = with_cp
        self.conv_cfg = conv_cfg
        if kernel_size >= 7:
            self.dwconv = DilatedReparamBlock(
                channels, kernel_size, branches, norm_cfg, conv_cfg, deploy, dilation
            )
        elif kernel_size > 1 or deploy:
            self.dwconv = build_depthwise_conv(channels, kernel_size, conv_cfg, deploy, dilation)
        else:
            self.dwconv = nn.Identity()
        self.norm = nn.Identity() if deploy else build_batch_norm(norm_cfg, channels)
        self.se = build_extra_structure(
            extra_structure, channels, norm_cfg, conv_cfg, deploy, dilation
        )
        hidden = ffn_ratio * channels
        self.pwconv1 = nn.Sequential(ToChannelsLast(), nn.Linear(channels, hidden))
        self.act = nn.Sequential(nn.GELU(), GlobalResponseNorm(hidden, use_bias=not deploy))
        self.pwconv2 = nn.Sequential(nn.Linear(hidden, channels, bias=deploy), ToChannelsFirst())
        if not deploy:
            self.pwconv2.append(build_batch_norm(norm_cfg, channels))
        has_layer_scale = layer_scale_init_value > 0 and not deploy
        self.gamma = (
            nn.Parameter(torch.full((channels,), layer_scale_init_value))
            if has_layer_scale
            else None
        )
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def residual(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            x = self.act(self.pwconv1(self.se(self.norm(self.dwconv(x)))))
        else:
            x = self.expanded(self.dwconv(x))
        if not torch.jit.is_scripting() and self.can_scale_norm(x):
            x = self.projected(x)
        else:
            x = self.pwconv2(x) if torch.jit.is_scripting() else self.contracted(x)
            if self.gamma is not None:
                x = x * self.gamma.reshape(-1, 1, 1)
        return self.drop_path(x)

    @torch.jit.unused
    def can_scale_norm(self, x: Tensor) -> bool:
        """Whether layer scale may be part of the BatchNorm in front of it: no pass and no map of its own.

        Not in 16 bits, where its initial 1e-6 is too small to be multiplied, and not under autocast, where
        it makes 32 bits of the map.
        """
        layers = layers_of(self.pwconv2)
        if self.gamma is None or not are_plain(layers, PROJECTING_LAYERS):
            return False
        linear, _, norm = layers
        return is_affine(norm) and may_rearrange(
            x, (*linear.parameters(), *norm.parameters(), self.gamma)
        )

    @torch.jit.unused
    def contracted(self, x: Tensor) -> Tensor:
        """Linear -> BN, where it is: [N, H, W, ffn_ratio C] -> (N, C, H, W)."""
        layers = layers_of(self.pwconv2)
        if not are_plain(layers[:1], PROJECTING_LAYERS[:1]):
            return self.pwconv2(x)
        linear, *others = layers
        if not products.takes_onednn(x, linear.weight, linear.bias):  # graphs show the module
            return self.pwconv2(x)
        x = products.linear(x, linear.weight, linear.bias)
        for layer in others:
            x = layer(x)
        return x

    @torch.jit.unused
    def projected(self, x: Tensor) -> Tensor:
        """Linear -> BN -> layer scale: [N, H, W, ffn_ratio C] -> (N, C, H, W)."""
        linear, to_channels_first, norm = self.pwconv2
        # A copy, which shares the buffers: other threads may compute with the module itself.
        scaled_norm = copy.copy(norm)
        gamma = self.gamma.flatten()
        scaled_norm._parameters = dict(weight=norm.weight * gamma, bias=norm.bias * gamma)
        return scaled_norm(to_channels_first(products.linear(x, linear.weight, linear.bias)))

    @torch.jit.unused
    def expanded(self, x: Tensor) -> Tensor:
        """BN -> SE -> Linear ×4 -> GELU -> GRN: (N, C, H, W) -> [N, H, W, ffn_ratio C]."""
        layers = layers_of(self.pwconv1, self.act)
        if not are_plain(layers, EXPANDING_LAYERS):
            return self.act(self.pwconv1(self.se(self.norm(x))))
        to_channels_last, linear, gelu, grn = layers
        vectors = grn.vectors()
        if (
            gelu.approximate != 'none'
            or not gelu_grn_takes_op(x, linear.bias, *vectors)
            or not grn.is_of(linear.out_features)
        ):
            return self.act(self.pwconv1(self.se(self.norm(x))))
        if self.can_scale_input(x):
            product = self.product_of_normed(x)
        else:
            product = products.linear(to_channels_last(self.se(self.norm(x))), linear.weight)
        return gelu_grn(product, linear.bias, *vectors)

    @torch.jit.unused
    def can_scale_input(self, x: Tensor) -> bool:
        """Whether `product_of_normed` may take the place of BN, SE and Linear: in training."""
        parameters = [*self.norm.parameters(), *self.se.parameters(), self.pwconv1[1].weight]
        return (
            may_rearrange_training(x, parameters)
            and uses_own_batch(self.norm)
            and is_two_products(self.se)
            and x.numel() > x.shape[1]  # else the norm has an error to raise
        )

    @torch.jit.unused
    def product_of_normed(self, x: Tensor) -> Tensor:
        """BN -> SE -> Linear ×4 without its bias: (N, C, H, W) -> [N, H, W, ffn_ratio C].

        BN and SE are one factor and one summand a channel of each image: x is the only map to keep.
        """
        norm, values = self.norm, x.numel() // x.shape[1]
        x, means, variance = moments(x)
        mean = means.mean(0)
        factor = norm.weight / torch.sqrt(variance + norm.eps)
        normed_means = (means - mean) * factor + norm.bias
        scale = self.se.scale_by_products(normed_means)
        unbiased = variance.detach() * (values / (values - 1))
        update_running_statistics([norm], [mean.detach()], [unbiased])
        shift = norm.bias - mean * factor
        return scaled_linear(x, factor * scale, shift * scale, self.pwconv1[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return x + self.residual(x)
        return self.forward_eager(x)

    @torch.jit.unused
    def forward_eager(self, x: Tensor) -> Tensor:
        if self.can_fuse(x):
            return self.fused(x)
        if not (self.with_cp and torch.is_grad_enabled()):
            return x + self.residual(x)
        if torch.compiler.is_compiling():  # which takes no context; statistics count twice then
            return x + checkpoint(self.residual, x, use_reentrant=False)
        contexts = lambda: (contextlib.nullcontext(), untracked_statistics(self))  # noqa: E731
        return x + checkpoint(self.residual, x, use_reentrant=False, context_fn=contexts)

    def can_fuse(self, x: Tensor) -> bool:
        """Whether `fused` may take the place of the modules: in inference, where the op is faster."""
        if not isinstance(x, Tensor):  # a torch.fx proxy
            return False
        if torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in itertools.chain(self.parameters(), [x])
        ):
            return False
        return self.is_plain_inference() and feed_forward_takes_op(
            x, self.pwconv1[1].weight, self.pwconv2[0].weight
        )

    def is_plain_inference(self) -> bool:
        """Whether the modules that `fused` computes in one are those that were built, in evaluation."""
        layers = [self.drop_path, *layers_of(self.pwconv1, self.act, self.pwconv2)]
        kinds = [(nn.Identity, DropPath), *FUSED_LAYERS]
        if not self.deploy:
            kinds.append((nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm))
        return (
            are_plain(layers, kinds)
            and is_two_products(self.se)
            and self.act[0].approximate == 'none'
            and self.act[1].is_of(self.pwconv1[1].out_features)
            and not (self.drop_path.training and isinstance(self.drop_path, DropPath))
            and not any(norm.training or norm.running_mean is None for norm in self.pwconv2[2:])
        )

    def fused(self, x: Tensor) -> Tensor:
        """`forward` in inference, with everything after SE's factor in one op."""
        y = self.norm(self.dwconv(x))
        linear1, grn, linear2 = self.pwconv1[1], self.act[1], self.pwconv2[0]
        output_scale, bias2, residual = None, linear2.bias, x
        if self.gamma is not None:  # which makes 32 bits of the map under autocast
            residual = x.to(torch.promote_types(x.dtype, self.gamma.dtype))
        for norm in self.pwconv2[2:]:
            ones = torch.ones_like(norm.running_mean, dtype=torch.float32)
            output_scale, bias2 = rep.fold_batch_norm(
                ones, bias2, batch_norm_tensors(norm, ones.dtype)
            )
            if self.gamma is not None:
                output_scale, bias2 = rep.fold_output_scale(output_scale, bias2, self.gamma)
        return feed_forward(
            y,
            linear1.weight,
            linear1.bias,
            *grn.vectors(),
            linear2.weight,
            bias2,
            input_scale=squeeze_excitation(y, *self.se.matrices()),
            output_scale=output_scale,
            residual=residual,
            implementation='op',
        )

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold everything that folds, in place: one depthwise convolution and two linear layers remain.

        A second call does nothing. New parameters keep the device, dtype and `requires_grad` of the
        ones they replace.
        """
        if self.deploy:
            return
        grn, linear, norm = self.folded_layers()
        is_large = isinstance(self.dwconv, DilatedReparamBlock)
        conv = self.dwconv.lk_origin if is_large else self.dwconv
        if isinstance(conv, nn.Identity):
            conv = identity_conv(self.norm, self.conv_cfg)
        check_folds(conv)
        dtype = rep.folding_dtype(conv.weight.dtype)
        weight, bias = (
            self.dwconv.merged_kernel(dtype)
            if is_large
            else (conv.weight.detach().to(dtype), conv.bias)
        )
        weight, bias = rep.fold_batch_norm(weight, bias, batch_norm_tensors(self.norm, dtype))
        folded_conv = conv_like(conv, weight, bias, self.conv_cfg)

        weight = linear.weight.detach().to(dtype)
        bias = rep.fold_input_bias(weight, linear.bias, grn.beta.detach().to(dtype))
        weight, bias = rep.fold_batch_norm(weight, bias, batch_norm_tensors(norm, dtype))
        if self.gamma is not None:
            weight, bias = rep.fold_output_scale(weight, bias, self.gamma.detach().to(dtype))
        folded_linear = linear_like(linear, weight, bias)

        if isinstance(self.se, ExtraConvolutions):
            self.se.switch_to_deploy()
        if is_large:
            self.dwconv.replace_by(folded_conv)
        else:
            self.dwconv = folded_conv
        self.norm = nn.Identity()
        self.pwconv2 = nn.Sequential(folded_linear, self.pwconv2[1])
        self.pwconv2.train(self.training)
        grn.beta = None
        self.gamma = None
        self.deploy = True

    def folded_layers(self) -> tuple[GlobalResponseNorm, nn.Linear, nn.Module]:
        """GRN, the second linear layer and the norm behind it, which fold into one linear layer.

        Raises:
            ArgumentError: somebody has replaced or wrapped one of them.
        """
        layers: list[nn.Module] = []
        for sequence in (self.act, self.pwconv2):
            layers += sequence if isinstance(sequence, nn.Sequential) else [sequence]
        kinds = (nn.Module, GlobalResponseNorm, nn.Linear, ToChannelsFirst, nn.Module)
        is_foldable = len(layers) == len(kinds) and all(map(isinstance, layers, kinds))
        if not is_foldable or not computes_as(layers[2], nn.Linear):
            raise ArgumentError(
                f'{", ".join(type(layer).__name__ for layer in layers)} do not fold: only GELU, '
                'GlobalResponseNorm, Linear, ToChannelsFirst and a BatchNorm do, as they were built'
            )
        _, grn, linear, _, norm = layers
        return grn, linear, norm


def layers_of(*sequences: nn.Module) -> list[nn.Module]:
    """The layers of sequences, one after the other; none if somebody replaced or hooked into a sequence."""
    if not all(is_untouched(sequence, nn.Sequential) for sequence in sequences):
        return []
    return [*itertools.chain(*sequences)]


def are_plain(layers: Sequence[nn.Module], kinds: Sequence[tuple[type[nn.Module], ...]]) -> bool:
    """Whether nobody replaced or hooked into the layers, which are of these kinds."""
    return len(layers) == len(kinds) and all(
        is_untouched(layer, *kind) for layer, kind in zip(layers, kinds, strict=True)
    )


def is_two_products(se: nn.Module) -> bool:
    """Whether an SE is as it was built, so that `SqueezeExcitation.scale_by_products` may compute it."""
    layers = list(se.children())
    return are_plain([se, *layers], SQUEEZING_LAYERS) and all(
        (conv.kernel_size, conv.padding, conv.groups) == ((1, 1), (0, 0), 1) for conv in layers
    )


def build_depthwise_conv(
    channels: int, kernel_size: int, conv_cfg: dict | None, bias: bool, dilation: int = 1
) -> nn.Conv2d:
    return build_conv_layer(
        conv_cfg,
        channels,
        channels,
        kernel_size,
        padding=same_padding((kernel_size, kernel_size), dilation),
        dilation=dilation,
        groups=channels,
        bias=bias,
    )


def build_batch_norm(norm_cfg: dict, channels: int) -> _BatchNorm:
    norm = build_norm_layer(norm_cfg, channels)
    if not isinstance(norm, _BatchNorm):
        raise ArgumentError(
            f'norm_cfg={norm_cfg} is not a BatchNorm and would not fold: use BN or SyncBN'
        )
    return norm


def identity_conv(norm: _BatchNorm, conv_cfg: dict | None) -> nn.Conv2d:
    """A depthwise 1×1 convolution that changes nothing, for a norm to be folded into."""
    with torch.device('meta'):
        conv = build_depthwise_conv(norm.num_features, 1, conv_cfg, bias=False)
    ones = torch.ones_like(norm.running_mean).reshape(-1, 1, 1, 1)
    needs_grad = norm.weight is None or norm.weight.requires_grad
    conv.weight = nn.Parameter(ones, requires_grad=needs_grad)
    return conv.train(norm.training)


def check_folds(conv: nn.Module) -> None:
    """Check that a depthwise convolution has what `build_depthwise_conv` gives one of its size and dilation.

    Raises:
        ArgumentError: somebody has changed or wrapped it.
    """
    is_foldable = (
        computes_as(conv, nn.Conv2d)
        and conv.in_channels == conv.out_channels == conv.groups
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.kernel_size[0] % 2 == 1
        and conv.dilation[0] == conv.dilation[1]
        and conv.stride == (1, 1)
        and conv.padding_mode == 'zeros'
        and conv.padding in ('same', same_padding(conv.kernel_size, conv.dilation[0]))
    )
    if not is_foldable:
        raise ArgumentError(
            f'{" ".join(str(conv).split())} does not fold: only depthwise convolutions of stride 1 do, '
            "with odd square kernels and zeros as 'same' padding"
        )


def conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor, conv_cfg: dict | None) -> nn.Conv2d:
    """A depthwise convolution with bias that takes the place of `conv`.

    Raises:
        ArgumentError: as in `check_folds`.
    """
    check_folds(conv)
    with torch.device('meta'):
        new = build_depthwise_conv(
            len(weight), weight.shape[-1], conv_cfg, bias=True, dilation=conv.dilation[0]
        )
    return with_parameters_like(new, conv, weight, bias)


def linear_like(linear: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with bias that takes the place of `linear`."""
    new = nn.Linear(linear.in_features, linear.out_features, device='meta')
    return with_parameters_like(new, linear, weight, bias)


def with_parameters_like(new: nn.Module, old: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    requires_grad = old.weight.requires_grad
    for name, tensor in (('weight', weight), ('bias', bias)):
        tensor = tensor.to(old.weight.dtype).contiguous()
        setattr(new, name, nn.Parameter(tensor, requires_grad=requires_grad))
    return new.train(old.training)


@contextlib.contextmanager
def untracked_statistics(module: nn.Module) -> Iterator[None]:
    """Within it, BatchNorms in training mode leave their running statistics alone.

    For the second forward pass of activation checkpointing, which would count every batch twice. The
    norms still write (with weight 0): autograd must save the same tensors in both passes. And they still
    count, which SyncBatchNorm insists on, a number that is thrown away.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked
