"""The steps of a block in fewer passes over its maps: what `blocks.py` computes module by module, exactly.

In inference all that follows SE's factor is one compiled op (`inferred`). In training GELU and GRN are one op
(`expanded`), in front of which BatchNorm and SE are a factor and a summand of the linear layer's input
(`product_of_normed`); layer scale is part of the last BatchNorm (`contracted_and_scaled`). Each `can_` tells
whether the modules are those that were built, free of hooks, and whether it pays.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unireplknet_mm.models import products
from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.batch_norms import (
    BATCH_NORMS,
    batch_norm_tensors,
    is_affine,
    update_running_statistics,
    uses_own_batch,
)
from unireplknet_mm.models.block_layers import (
    GlobalResponseNorm,
    SqueezeExcitation,
    ToChannelsFirst,
    ToChannelsLast,
)
from unireplknet_mm.models.layers import (
    DropPath,
    is_untouched,
    may_rearrange,
    may_rearrange_training,
)
from unireplknet_mm.models.scaled_linear import moments, scaled_linear
from unireplknet_ops import (
    feed_forward,
    feed_forward_takes_op,
    gelu_grn,
    gelu_grn_takes_op,
    squeeze_excitation,
)

if TYPE_CHECKING:
    from unireplknet_mm.models.blocks import UniRepLKNetBlock

# Layers of pwconv1 and act, which `expanded` computes in two steps.
EXPANDING_LAYERS = ((ToChannelsLast,), (nn.Linear,), (nn.GELU,), (GlobalResponseNorm,))
# SE with its two layers.
SQUEEZING_LAYERS = ((SqueezeExcitation,), (nn.Conv2d,), (nn.Conv2d,))
# Those of pwconv2 whose BatchNorm can take layer scale over (`contracted_and_scaled`).
PROJECTING_LAYERS = ((nn.Linear,), (ToChannelsFirst,), (nn.BatchNorm2d,))
# What `inferred` computes in one after SE: pwconv1, act and pwconv2.
FUSED_LAYERS = (*EXPANDING_LAYERS, (nn.Linear,), (ToChannelsFirst,))


def can_infer(block: UniRepLKNetBlock, x: Tensor) -> bool:
    """Whether `inferred` may take the place of the modules: in inference, where the op is faster."""
    if not isinstance(x, Tensor):  # a torch.fx proxy
        return False
    if not block.is_as_drawn():
        return False
    if torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in itertools.chain(block.parameters(), [x])
    ):
        return False
    return is_plain_inference(block) and feed_forward_takes_op(
        x, block.pwconv1[1].weight, block.pwconv2[0].weight
    )


def is_plain_inference(block: UniRepLKNetBlock) -> bool:
    """Whether the modules that `inferred` computes in one are those that were built, in evaluation."""
    layers = [block.drop_path, *layers_of(block.pwconv1, block.act, block.pwconv2)]
    kinds = [(nn.Identity, DropPath), *FUSED_LAYERS]
    if not block.deploy:
        kinds.append(BATCH_NORMS)
    return (
        are_plain(layers, kinds)
        and is_two_products(block.se)
        and block.act[0].approximate == 'none'
        and block.act[1].is_of(block.pwconv1[1].out_features)
        and not (block.drop_path.training and isinstance(block.drop_path, DropPath))
        and not any(norm.training or norm.running_mean is None for norm in block.pwconv2[2:])
    )


def inferred(block: UniRepLKNetBlock, x: Tensor) -> Tensor:
    """`forward` in inference, with everything after SE's factor in one op."""
    y = block.norm(block.dwconv(x))
    linear1, grn, linear2 = block.pwconv1[1], block.act[1], block.pwconv2[0]
    output_scale, bias2, residual = None, linear2.bias, x
    if block.gamma is not None:  # which makes 32 bits of the map under autocast
        residual = x.to(torch.promote_types(x.dtype, block.gamma.dtype))
    for norm in block.pwconv2[2:]:
        ones = torch.ones_like(norm.running_mean, dtype=torch.float32)
        output_scale, bias2 = rep.fold_batch_norm(ones, bias2, batch_norm_tensors(norm, ones.dtype))
        if block.gamma is not None:
            output_scale, bias2 = rep.fold_output_scale(output_scale, bias2, block.gamma)
    return feed_forward(
        y,
        linear1.weight,
        linear1.bias,
        *grn.vectors(),
        linear2.weight,
        bias2,
        input_scale=squeeze_excitation(y, *block.se.matrices()),
        output_scale=output_scale,
        residual=residual,
        implementation='op',
    )


def can_expand(block: UniRepLKNetBlock, x: Tensor) -> bool:
    """Whether `expanded` may take the place of the modules: where GELU and GRN are faster as one op."""
    layers = layers_of(block.pwconv1, block.act)
    if not are_plain(layers, EXPANDING_LAYERS):
        return False
    _, linear, gelu, grn = layers
    return (
        gelu.approximate == 'none'
        and gelu_grn_takes_op(x, linear.bias, *grn.vectors())
        and grn.is_of(linear.out_features)
    )


def expanded(block: UniRepLKNetBlock, x: Tensor) -> Tensor:
    """`expand` of a block, with GELU and GRN in one op."""
    linear, grn = block.pwconv1[1], block.act[1]
    if can_scale_input(block, x):
        product = product_of_normed(block, x)
    else:
        to_channels_last = block.pwconv1[0]
        product = products.linear(to_channels_last(block.se(block.norm(x))), linear.weight)
    return gelu_grn(product, linear.bias, *grn.vectors())


def can_scale_input(block: UniRepLKNetBlock, x: Tensor) -> bool:
    """Whether `product_of_normed` may take the place of BN, SE and Linear: in training."""
    parameters = [*block.norm.parameters(), *block.se.parameters(), block.pwconv1[1].weight]
    return (
        may_rearrange_training(x, parameters)
        and uses_own_batch(block.norm)
        and is_two_products(block.se)
        and x.numel() > x.shape[1]  # else the norm has an error to raise
    )


def product_of_normed(block: UniRepLKNetBlock, x: Tensor) -> Tensor:
    """BN -> SE -> Linear ×4 without its bias: (N, C, H, W) -> [N, H, W, ffn_ratio C].

    BN and SE are one factor and one summand a channel of each image: x is the only map to keep.
    """
    norm, values = block.norm, x.numel() // x.shape[1]
    x, means, variance = moments(x)
    mean = means.mean(0)
    factor = norm.weight / torch.sqrt(variance + norm.eps)
    normed_means = (means - mean) * factor + norm.bias
    scale = block.se.scale_by_products(normed_means)
    unbiased = variance.detach() * (values / (values - 1))
    update_running_statistics([norm], [mean.detach()], [unbiased])
    shift = norm.bias - mean * factor
    return scaled_linear(x, factor * scale, shift * scale, block.pwconv1[1].weight)


def can_scale_norm(block: UniRepLKNetBlock, x: Tensor) -> bool:
    """Whether layer scale may be part of the BatchNorm in front of it: no pass and no map of its own.

    Not in 16 bits, where its initial 1e-6 is too small to be multiplied, and not under autocast, where
    it makes 32 bits of the map.
    """
    layers = layers_of(block.pwconv2)
    if block.gamma is None or not are_plain(layers, PROJECTING_LAYERS) or not block.is_as_drawn():
        return False
    linear, _, norm = layers
    return is_affine(norm) and may_rearrange(
        x, (*linear.parameters(), *norm.parameters(), block.gamma)
    )


def contracted_and_scaled(block: UniRepLKNetBlock, x: Tensor) -> Tensor:
    """`contract` of a block, with layer scale in the BatchNorm's weight and bias."""
    linear, to_channels_first, norm = block.pwconv2
    # A copy, which shares the buffers: other threads may compute with the module itself.
    scaled_norm = copy.copy(norm)
    gamma = block.gamma.flatten()
    scaled_norm._parameters = dict(weight=norm.weight * gamma, bias=norm.bias * gamma)
    return scaled_norm(to_channels_first(products.linear(x, linear.weight, linear.bias)))


def can_contract(block: UniRepLKNetBlock, x: Tensor) -> bool:
    """Whether `contracted` may take the place of pwconv2: where its product is faster."""
    layers = layers_of(block.pwconv2)
    return are_plain(layers[:1], PROJECTING_LAYERS[:1]) and products.takes_over(
        x, layers[0].weight, layers[0].bias
    )


def contracted(block: UniRepLKNetBlock, x: Tensor) -> Tensor:
    """What pwconv2 computes, a linear layer and the BatchNorm of a block that is not folded."""
    linear, *others = block.pwconv2
    x = products.linear(x, linear.weight, linear.bias)
    for layer in others:
        x = layer(x)
    return x


def is_two_products(se: nn.Module) -> bool:
    """Whether an SE is as it was built, so that `SqueezeExcitation.scale_by_products` may compute it."""
    layers = list(se.children())
    return are_plain([se, *layers], SQUEEZING_LAYERS) and all(
        (conv.kernel_size, conv.padding, conv.groups) == ((1, 1), (0, 0), 1) for conv in layers
    )


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
