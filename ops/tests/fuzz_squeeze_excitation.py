"""Random calls of `squeeze_excitation`, compared with the formulas of `naive.py` in float64."""

import math
import random

import torch
from fuzz_calls import DTYPES, EPSILON, Call, Expected, growth, make_tensor
from fuzz_feed_forward import multiply

OPTIONAL = ('bias1', 'bias2')
STEEPEST_SIGMOID = 0.25


def make_call(rng: random.Random) -> Call:
    dtype = rng.choice([dtype for dtype in DTYPES if dtype != torch.float64])
    sizes = [rng.choice([1, rng.randint(1, 9), rng.randint(1, 30)]) for _ in '12']
    channels, squeezed = (
        rng.choice([1, 2, 7, 15, 16, 17, 33, 64, 65, 130, rng.randint(1, 900)]) for _ in '12'
    )
    channels = max(1, min(channels, 300_000 // math.prod(sizes)))
    shape = [rng.choice([1, 1, 2, 3, 9]), channels, *sizes]
    if rng.random() < 0.03:
        shape[0] = 0
    shapes = dict(
        x=shape,
        weight1=[squeezed, channels],
        bias1=[squeezed],
        weight2=[channels, squeezed],
        bias2=[channels],
    )
    tensors = {
        name: make_tensor(rng, wanted, dtype)
        if name not in OPTIONAL or rng.random() < 0.7
        else None
        for name, wanted in shapes.items()
    }
    call = Call('squeeze_excitation', tensors)
    if rng.random() < 1 / 3:
        call.broken = break_call(rng, call)
    return call


def break_call(rng: random.Random, call: Call) -> str:
    """Make one argument invalid; return which."""
    tensors = call.tensors
    name = rng.choice([name for name, tensor in tensors.items() if tensor is not None])
    tensor = tensors[name]
    kinds = ['rank', 'dtype', 'unknown dtype', 'device', 'sparse', 'none', 'size', 'no positions']
    kind = rng.choice(kinds)
    if kind == 'rank':
        others = [rank for rank in range(6) if rank != tensor.dim()]
        tensors[name] = torch.randn([2] * rng.choice(others)).to(tensor.dtype)
    elif kind == 'dtype':
        tensors[name] = tensor.to(rng.choice([t for t in DTYPES if t != tensor.dtype]))
    elif kind == 'unknown dtype':
        new = rng.choice([torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64])
        for each in tensors:
            tensors[each] = tensors[each] if tensors[each] is None else tensors[each].to(new)
        name = 'all'
    elif kind == 'device':
        tensors[name] = tensor.to('meta')
    elif kind == 'sparse':
        tensors[name] = tensor.to_sparse()
    elif kind == 'none':
        name = rng.choice(['x', 'weight1', 'weight2'])
        tensors[name] = None
    elif kind == 'size':
        shape = list(tensor.shape)
        shape[1 if name == 'x' else rng.randrange(len(shape))] += rng.randint(1, 3)
        tensors[name] = torch.randn(shape).to(tensor.dtype)
    else:
        name = 'x'
        x = tensors[name]
        tensors[name] = x[:, :, :0] if rng.random() < 0.5 else x[:, :, :, :0]
    return f'{name}: {kind}'


def reference(call: Call) -> list[Expected]:
    """The numbers of `naive.py`, and how far off those of the kernel may be."""
    tensors, x = call.tensors, call.tensors['x']
    _, weight1, bias1, weight2, bias2 = (
        tensor if tensor is None else tensor.double() for tensor in tensors.values()
    )
    values = x.double().flatten(2)  # [N, C, positions]
    of_sum = growth(min(values.shape[2], 256), x) * EPSILON  # sums of chunks are of float64
    vectors, off = values.mean(2), of_sum * values.abs().mean(2)
    for name, weight, bias in (('weight1', weight1, bias1), ('weight2', weight2, bias2)):
        if name == 'weight2':
            vectors = vectors.relu()
        vectors, off = multiply(vectors, off, weight, growth(weight.shape[1], tensors[name]))
        if bias is not None:
            vectors = vectors + bias
            off = off + 2 * EPSILON * (vectors.abs() + bias.abs())
    margin = STEEPEST_SIGMOID * off + 4 * EPSILON
    return [Expected(vectors.sigmoid(), margin, torch.float32)]
