"""The Dilated Reparam Block (paper: §3.2.2, Fig. 6): modules, their faster forms, and the folding.

What differs from the authors' code: the folding is pure functions (`reparameterize.py`) and works in every
floating dtype and on every device; kernel sizes from 19 up have default branches (`default_branches`), and a
user may pass others; in training all branches run as one op where that is faster (`fused`), with frozen
statistics as one convolution (`merged_kernel`); the kernels may be dilated, for backbones that keep the
resolution (`output_stride`).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.architecture import branch_names, check_branches, default_branches
from unireplknet_mm.models.batch_norms import (
    batch_norm_tensors,
    build_batch_norm,
    update_running_statistics,
    uses_own_batch,
    uses_own_statistics,
)
from unireplknet_mm.models.depthwise import (
    build_depthwise_conv,
    check_folds,
    conv_like,
    is_plain_conv,
)
from unireplknet_mm.models.layers import leaves_process, may_rearrange_training
from unireplknet_mm.models.phases import join_phases, split_phases
from unireplknet_ops import (
    depthwise_conv2d,
    dilated_reparam,
    dilated_reparam_takes_op,
    is_available,
)
from unireplknet_ops.dispatch import forced_implementation

# N * H * W from which on the branches of a training block with frozen statistics merge, from a sweep.
MINIMUM_POSITIONS_TO_MERGE = 98


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
