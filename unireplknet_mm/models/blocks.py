"""LarK and SmaK blocks, of which UniRepLKNet consists (paper: §3.2.1, Fig. 3).

What differs from the authors' code: the depthwise convolutions run on the compiled op where it is faster
(`unireplknet_mm.ops`), and so do the steps behind them (`fused_block.py`); activation checkpointing is
non-reentrant and updates BatchNorm's running statistics once, not twice; norms, layer scale and GRN's bias
fold in every floating dtype and on every device (`reparameterize.py`).
"""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import fused_block
from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.batch_norms import (
    batch_norm_tensors,
    build_batch_norm,
    untracked_statistics,
)
from unireplknet_mm.models.block_layers import (
    ExtraConvolutions,
    GlobalResponseNorm,
    ToChannelsFirst,
    ToChannelsLast,
    build_extra_structure,
)
from unireplknet_mm.models.depthwise import (
    build_depthwise_conv,
    check_folds,
    conv_like,
    identity_conv,
)
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_mm.models.layers import DropPath, computes_as, linear_like


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

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            if fused_block.can_infer(self, x):
                return fused_block.inferred(self, x)
            if self.with_cp and torch.is_grad_enabled():
                return x + self.checkpointed_residual(x)
        return x + self.residual(x)

    def residual(self, x: Tensor) -> Tensor:
        return self.drop_path(self.contract(self.expand(self.dwconv(x))))

    def expand(self, x: Tensor) -> Tensor:
        """BN -> SE -> Linear ×4 -> GELU -> GRN: (N, C, H, W) -> [N, H, W, ffn_ratio C]."""
        if not torch.jit.is_scripting():  # noqa: SIM102  what stands behind it is not compiled then
            if fused_block.can_expand(self, x):
                return fused_block.expanded(self, x)
        return self.act(self.pwconv1(self.se(self.norm(x))))

    def contract(self, x: Tensor) -> Tensor:
        """Linear -> BN -> layer scale: [N, H, W, ffn_ratio C] -> (N, C, H, W)."""
        if not torch.jit.is_scripting():
            if fused_block.can_scale_norm(self, x):
                return fused_block.contracted_and_scaled(self, x)
            if fused_block.can_contract(self, x):
                return self.scaled(fused_block.contracted(self, x))
        return self.scaled(self.pwconv2(x))

    def scaled(self, x: Tensor) -> Tensor:
        """Times layer scale, of a block that has one."""
        return x if self.gamma is None else x * self.gamma.reshape(-1, 1, 1)

    def checkpointed_residual(self, x: Tensor) -> Tensor:
        """`residual`, which is computed again in the backward pass instead of kept."""
        if torch.compiler.is_compiling():  # which takes no context; statistics count twice then
            return checkpoint(self.residual, x, use_reentrant=False)
        contexts = lambda: (contextlib.nullcontext(), untracked_statistics(self))  # noqa: E731
        return checkpoint(self.residual, x, use_reentrant=False, context_fn=contexts)

    def is_as_drawn(self) -> bool:
        """Whether no subclass computes a step in another way."""
        steps = ('residual', 'expand', 'contract', 'scaled')
        return type(self) is UniRepLKNetBlock or all(
            getattr(type(self), step) is getattr(UniRepLKNetBlock, step) for step in steps
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
