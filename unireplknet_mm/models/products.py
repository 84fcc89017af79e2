"""Linear layers where PyTorch's own products leave most of a processor's arithmetic unused.

PyTorch hands float32 products on x86 to MKL, which keeps to AVX2 on AMD's processors. oneDNN, which PyTorch
brings too and takes for its 16-bit products, uses AVX-512 there: on a Zen 5, a product of a block takes 0.44
times as long forward and in the gradient of the input, 0.4 to 0.6 times in that of the weight, whose
operands are copied.

In float16 PyTorch takes eight times as long as in float32 on processors that have no float16 arithmetic:
there the products are computed in float32, and rounded.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_mm.models.layers import (
    is_slow_in_float16,
    leaves_process,
    may_rearrange,
    may_rearrange_modules,
)
from unireplknet_ops.deferred import when_imported
from unireplknet_ops.dispatch import PLAIN_TYPES
from unireplknet_ops.torch_internals import (
    below_autograd,
    constant_in_graphs,
    has_slow_float32_products,
    is_batched,
    is_transformed,
    onednn_linear,
)

# Multiplications from which on the calls to oneDNN cost less than it saves, from a sweep with one and two
# threads: of 2**21 a step takes 1.2 to 1.6 times as long, of 2**22 0.75 to 1.4 times.
LEAST_MULTIPLICATIONS = 2**22
# In float16, a step of 2**9 takes 2.7 times as long as PyTorch's, of 2**16 0.7 times, of 2**24 0.05 times.
LEAST_MULTIPLICATIONS_IN_FLOAT16 = 2**15


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of x (..., C_in), weight (C_out, C_in) and bias (C_out,), with its derivative."""
    if takes_float32(x, weight, bias):
        float16 = (None if t is None else t.to(torch.float16) for t in (x, weight, bias))
        return _LinearInFloat32.apply(*float16)
    if not takes_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():
        output = torch.ops.unireplknet_mm.linear(x, weight)
        return output if bias is None else output + bias
    return _Linear.apply(x, weight, bias)


def takes_over(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `linear` of these leaves PyTorch's product for one that is faster."""
    return takes_onednn(x, weight, bias) or takes_float32(x, weight, bias)


def takes_float32(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `linear` computes these in float32 in the place of float16."""
    return (
        isinstance(x, Tensor)
        and not torch.compiler.is_compiling()
        and is_slow_in_float16(x, (weight, bias))
        and all(t is None or type(t) in PLAIN_TYPES for t in (x, weight, bias))
        and may_rearrange_modules()
        and not is_batched(x)
        and _fits(x, weight, bias)
        and x.numel() * weight.shape[0] >= LEAST_MULTIPLICATIONS_IN_FLOAT16
    )


def takes_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `linear` of these leaves PyTorch's product: where oneDNN is faster, and nobody can tell.

    Not for shapes that do not fit each other, which PyTorch broadcasts or names.
    """
    if not isinstance(x, Tensor):  # a torch.fx proxy
        return False
    if torch.compiler.is_compiling():
        if leaves_process() or torch.is_autocast_enabled('cpu'):
            return False
        if any(t is not None and type(t) not in PLAIN_TYPES for t in (x, weight, bias)):
            return False
    elif not may_rearrange(x, (weight, bias)):
        return False
    return _fits(x, weight, bias) and _is_faster(x, weight)


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        weight.dim() == 2
        and x.dim() > 0
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
    )


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K) times the transpose of weight (O, K), of any strides, within a function's own derivative.

    Where that is to be differentiated again, PyTorch's product runs.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _is_faster(x, weight):
        return F.linear(x, weight)
    with below_autograd():
        return torch.ops.unireplknet_mm.linear(x, weight)


def gradient_of_weight(
    grad_output: Tensor, x: Tensor, multiply: Callable[[Tensor, Tensor], Tensor] = product
) -> Tensor:
    """(O, K), from that of a product (..., O) and its input (..., K), by `product` or the operator.

    oneDNN copies the operand on the right quickly and PyTorch the one on the left slowly, which is why that
    is the narrower one: with 25,088 rows of 96 and 384 numbers it takes 0.3 times as long.
    """
    grad_rows = grad_output.reshape(-1, grad_output.shape[-1])
    rows = x.reshape(-1, x.shape[-1])
    if grad_rows.shape[1] > rows.shape[1] and _onednn_is_faster():
        return multiply(rows.t(), grad_rows.t()).t().contiguous()
    return multiply(grad_rows.t(), rows.t())


class _Linear(torch.autograd.Function):
    """The operator with its derivative, without a detour by the dispatcher to Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        output = product(x, weight)
        return output if bias is None else output.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return _gradients_with_bias(ctx, grad_output, x, weight)


class _LinearInFloat32(torch.autograd.Function):
    """A linear layer of float16 tensors, computed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast('cpu', enabled=False):
            output = product(x.float(), weight.float())
            return (output if bias is None else output.add_(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.autocast('cpu', enabled=False):
            grads = _gradients_with_bias(ctx, grad_output.float(), x.float(), weight.float())
            return tuple(None if grad is None else grad.to(x.dtype) for grad in grads)


def _gradients_with_bias(
    ctx: Any, grad_output: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor | None, ...]:
    grads = _gradients(ctx, grad_output, x, weight, product)
    grad_rows = grad_output.reshape(-1, len(weight))
    return *grads, grad_rows.sum(0) if ctx.needs_input_grad[2] else None


def _gradients(ctx: Any, grad_output: Tensor, x: Tensor, weight: Tensor, multiply: Any) -> tuple:
    """Of x and of the weight, by a function that multiplies with a transpose."""
    grad_x = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_x = multiply(grad_output, weight.t())
    if ctx.needs_input_grad[1]:
        grad_weight = gradient_of_weight(grad_output, x, multiply)
    return grad_x, grad_weight


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    if not (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == 'cpu'
        and _onednn_is_faster()
        and not is_transformed()
    ):
        return False
    if torch.compiler.is_compiling():  # whose sizes may be unknown
        return True
    return x.numel() * weight.shape[0] >= LEAST_MULTIPLICATIONS and not is_batched(x)


@constant_in_graphs
def _onednn_is_faster() -> bool:
    is_enabled = onednn_linear is not None and torch.backends.mkldnn.enabled
    return is_enabled and has_slow_float32_products()


# For graphs and for who counts operations: the product by oneDNN as an operator.

_library = torch.library.Library('unireplknet_mm', 'DEF')  # what it registers lives as long as it
_library.define('linear(Tensor x, Tensor weight) -> Tensor')


def _run(x: Tensor, weight: Tensor) -> Tensor:
    if x.numel() == 0 or weight.numel() == 0:
        return F.linear(x, weight)
    # oneDNN refuses strides of overlapping rows; the transpose of a weight or map is as good as it is.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    return onednn_linear(x, weight, None)


def _run_fake(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, grad_output, *ctx.saved_tensors, torch.ops.unireplknet_mm.linear)


def _register_flop_formula() -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.unireplknet_mm.linear)(_flops)


def _flops(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    flops = 2 * weight_shape[0]
    for size in x_shape:
        flops *= size
    return flops


_library.impl('linear', _run, 'CPU')
torch.library.register_fake('unireplknet_mm::linear', _run_fake, lib=_library)
torch.library.register_autograd(
    'unireplknet_mm::linear', _backward, setup_context=_setup_context, lib=_library
)
when_imported('torch.utils.flop_counter', _register_flop_formula)
