"""Random calls of `gelu_grn` and its gradient, compared with the formulas of `naive.py` in float64."""

import math
import random

import torch
from fuzz_calls import DTYPES, EPSILON, Call, Expected, growth, make_tensor
from torch import Tensor

VECTORS = ('bias', 'gamma', 'beta')
# As csrc/cpu/gelu.h has them: the errors of GELU, over max(|x|, 1), and of its derivative.
ERRORS = {torch.bfloat16: (2e-6, 4e-6)}
ERRORS_OF_OTHERS = (2e-7, 3e-7)


def make_call(rng: random.Random) -> Call:
    dtype = rng.choice([dtype for dtype in DTYPES if dtype != torch.float64])
    positions = [
        rng.choice([1, rng.randint(1, 9), rng.randint(1, 30)]) for _ in range(rng.randint(1, 3))
    ]
    if rng.random() < 1 / 20:  # several chunks of rows
        positions = [rng.randint(256, 1200)]
    channels = rng.choice([1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 130, 513])
    channels = max(1, min(channels, 200_000 // math.prod(positions)))
    shape = [rng.choice([1, 1, 2, 3]), *positions, channels]
    if rng.random() < 0.03:
        shape[rng.randrange(len(shape) - 1)] = 0
    tensors = dict(x=make_tensor(rng, shape, dtype))
    for name in VECTORS:
        is_given = name == 'gamma' or rng.random() < 0.7
        tensors[name] = make_tensor(rng, [channels], torch.float32) if is_given else None
    call = Call('gelu_grn', tensors)
    if rng.random() < 0.5:
        norm = forward(call)['norm'].float()
        del tensors['beta']
        grad_output = make_tensor(rng, shape, dtype)
        call = Call('gelu_grn_backward', dict(grad_output=grad_output, **tensors, norm=norm))
    if rng.random() < 1 / 3:
        call.broken = break_call(rng, call)
    return call


def break_call(rng: random.Random, call: Call) -> str:
    """Make one argument invalid; return which."""
    tensors = call.tensors
    name = rng.choice([name for name, tensor in tensors.items() if tensor is not None])
    tensor = tensors[name]
    kind = rng.choice(['rank', 'dtype', 'unknown dtype', 'device', 'sparse', 'none', 'channels'])
    if kind == 'rank':
        others = [0, 1, 2] if name == 'x' else [n for n in range(6) if n != tensor.dim()]
        tensors[name] = torch.randn([2] * rng.choice(others)).to(tensor.dtype)
    elif kind == 'dtype':
        others = [torch.float64] if name == 'x' else [t for t in DTYPES if t != tensor.dtype]
        tensors[name] = tensor.to(rng.choice(others))
    elif kind == 'unknown dtype':
        new = rng.choice([torch.int8, torch.int64, torch.bool, torch.complex64])
        for each in tensors:
            tensors[each] = tensors[each] if tensors[each] is None else tensors[each].to(new)
    elif kind == 'device':
        tensors[name] = tensor.to('meta')
    elif kind == 'sparse':
        tensors[name] = tensor.to_sparse()
    elif kind == 'none':
        name = rng.choice([name for name in tensors if name not in ('bias', 'beta')])
        tensors[name] = None
    else:
        shape = list(tensor.shape)
        shape[0 if name == 'grad_output' and rng.random() < 0.5 else -1] += rng.randint(1, 3)
        tensors[name] = torch.randn(shape).to(tensor.dtype)
    return f'{name}: {kind}'


def forward(call: Call) -> dict[str, Tensor]:
    """The numbers of `naive.py`, and `off_*`: how far off those of the kernel may be."""
    x, bias, gamma, beta = (
        tensor if tensor is None else tensor.double()
        for tensor in map(call.tensors.get, ('x', *VECTORS))
    )
    x = x.flatten(1, -2)  # [N, positions, C]
    of_gelu, of_derivative = ERRORS.get(call.tensors['x'].dtype, ERRORS_OF_OTHERS)
    z = x if bias is None else x + bias
    h = torch.nn.functional.gelu(z)
    off_h = (of_gelu + 2 * EPSILON) * z.abs().clamp(min=1)
    more = growth(x.shape[1], call.tensors['x']) * EPSILON
    norm, off_norm, factor, off_factor = grn_factor(h, off_h, gamma, more)
    output = factor * h if beta is None else factor * h + beta
    off_output = off_factor * (h.abs() + off_h) + factor.abs() * off_h
    off_output += 2 * EPSILON * ((factor * h).abs() + (0 if beta is None else beta.abs()))
    return dict(
        z=z,
        h=h,
        off_h=off_h,
        of_derivative=of_derivative,
        norm=norm.flatten(1),
        off_norm=off_norm.flatten(1),
        output=output,
        off_output=off_output,
    )


def grn_factor(h: Tensor, off_h: Tensor, gamma: Tensor, more: float) -> tuple[Tensor, ...]:
    """GRN's norm over the positions of h [N, positions, C], its factor, and how far off each may be.

    more: rounding errors of the sum of squares, in the sum.
    """
    norm = h.square().sum(1, keepdim=True).sqrt()
    off_norm = off_h.square().sum(1, keepdim=True).sqrt() + more * norm
    mean = norm.mean(-1, keepdim=True) + 1e-6
    off_mean = off_norm.mean(-1, keepdim=True) + 4 * EPSILON * mean
    response = norm / mean
    least = (mean - off_mean).clamp(min=1e-6)
    off_response = (off_norm + response * off_mean) / least + 4 * EPSILON * response
    off_factor = gamma.abs() * off_response + 2 * EPSILON * (1 + gamma.abs() * response)
    return norm, off_norm, gamma * response + 1, off_factor


def reference(call: Call) -> list[Expected]:
    found = forward(call)
    shape, dtype = call.tensors['x'].shape, call.tensors['x'].dtype
    if call.operator == 'gelu_grn':
        output, off_output = (found[name].reshape(shape) for name in ('output', 'off_output'))
        norm = Expected(found['norm'], found['off_norm'], torch.float32)
        return [Expected(output, off_output, dtype), norm]
    return backward(call, found)


def backward(call: Call, found: dict[str, Tensor]) -> list[Expected]:
    """The gradients of x, bias, gamma and beta, for the norm that the call gives."""
    gamma, h, off_h, z = call.tensors['gamma'].double(), found['h'], found['off_h'], found['z']
    grad_output = call.tensors['grad_output'].double().reshape(h.shape)
    maps = (call.tensors['grad_output'], call.tensors['x'])
    more = growth(h.shape[1], *maps) * EPSILON
    norm = call.tensors['norm'].double()[:, None]  # [N, 1, C]
    mean = norm.mean(-1, keepdim=True) + 1e-6
    response = norm / mean

    product = (grad_output * h).sum(1, keepdim=True)
    off_product = (grad_output.abs() * (off_h + more * h.abs())).sum(1, keepdim=True)
    grad_response, off_grad_response = gamma * product, gamma.abs() * off_product
    size = grad_response.abs() + off_grad_response
    grad_norm = grad_response / mean - (grad_response * norm).mean(-1, keepdim=True) / mean**2
    off_grad_norm = off_grad_response / mean + 4 * EPSILON * size / mean
    off_grad_norm += ((off_grad_response + 4 * EPSILON * size) * norm).mean(
        -1, keepdim=True
    ) / mean**2
    of_hidden = torch.where(norm > 0, grad_norm / norm, 0)
    off_of_hidden = torch.where(norm > 0, off_grad_norm / norm, 0) + 2 * EPSILON * of_hidden.abs()
    of_output = 1 + gamma * response
    grad_hidden = grad_output * of_output + of_hidden * h
    off_grad_hidden = off_of_hidden * (h.abs() + off_h) + of_hidden.abs() * off_h
    off_grad_hidden += 4 * EPSILON * grad_output.abs() * (1 + (gamma * response).abs())
    off_grad_hidden += 2 * EPSILON * (of_hidden * h).abs()

    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    slope = (1 + torch.erf(z / math.sqrt(2))) / 2 + z * density
    grad_x = grad_hidden * slope
    # The derivative's own slope is below 1; the sum with the bias is rounded.
    off_slope = found['of_derivative'] + 2 * EPSILON * z.abs().clamp(min=1)
    off_grad_x = off_grad_hidden * (slope.abs() + off_slope) + grad_hidden.abs() * off_slope

    def summed(value: Tensor, off: Tensor) -> Expected:
        over = tuple(range(value.dim() - 1))
        return Expected(value.sum(over), (off + 2 * more * value.abs()).sum(over), torch.float32)

    x = call.tensors['x']
    return [
        Expected(grad_x.reshape(x.shape), off_grad_x.reshape(x.shape), x.dtype),
        summed(grad_x, off_grad_x),
        summed(response * product, response * (off_product + 4 * EPSILON * product.abs())),
        summed(grad_output, torch.zeros_like(grad_output)),
    ]
