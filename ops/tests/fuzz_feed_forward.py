"""Random calls of `feed_forward`, compared with the formulas of `naive.py` in float64."""

import math
import random

import torch
import torch.nn.functional as F
from fuzz_calls import DTYPES, EPSILON, Call, Expected, growth, make_tensor, map_format
from fuzz_gelu_grn import ERRORS, ERRORS_OF_OTHERS, grn_factor
from torch import Tensor

MAPS_AND_WEIGHTS = ('x', 'weight1', 'weight2', 'residual')
OPTIONAL = ('input_scale', 'bias1', 'beta', 'output_scale', 'bias2', 'residual')
STEEPEST_GELU = 1.13  # its largest derivative
UNIT_OF_BFLOAT16 = 2**-8


def make_call(rng: random.Random) -> Call:
    dtype = rng.choice([dtype for dtype in DTYPES if dtype != torch.float64])
    sizes = [rng.choice([1, rng.randint(1, 9), rng.randint(1, 20)]) for _ in '12']
    if rng.random() < 1 / 20:  # several chunks of rows and groups of images
        sizes = [rng.randint(50, 90) for _ in '12']
    batch = rng.choice([1, 1, 2, 3, 9])
    channels, hidden = (
        rng.choice([1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 65, 130, rng.randint(1, 600)]) for _ in '12'
    )
    rows = batch * math.prod(sizes)
    channels = max(1, min(channels, 400_000 // rows))
    hidden = max(1, min(hidden, 10_000_000 // (rows * channels)))
    shape = [batch, channels, *sizes]
    if rng.random() < 0.03:
        shape[rng.choice([0, 2, 3])] = 0
    shapes = dict(
        x=shape,
        input_scale=[shape[0], channels],
        weight1=[hidden, channels],
        bias1=[hidden],
        gamma=[hidden],
        beta=[hidden],
        weight2=[channels, hidden],
        output_scale=[channels],
        bias2=[channels],
        residual=shape,
    )
    tensors = {}
    for name, wanted in shapes.items():
        is_given = name not in OPTIONAL or rng.random() < 0.7
        is_map = name in MAPS_AND_WEIGHTS
        kind = dtype if is_map or rng.random() < 0.3 else torch.float32
        tensors[name] = make_tensor(rng, wanted, kind) if is_given else None
    call = Call('feed_forward', tensors)
    if rng.random() < 1 / 3:
        call.broken = break_call(rng, call)
    return call


def break_call(rng: random.Random, call: Call) -> str:
    """Make one argument invalid; return which."""
    tensors = call.tensors
    name = rng.choice([name for name, tensor in tensors.items() if tensor is not None])
    tensor = tensors[name]
    kind = rng.choice(['rank', 'dtype', 'unknown dtype', 'device', 'sparse', 'none', 'size'])
    if kind == 'rank':
        others = [rank for rank in range(6) if rank != tensor.dim()]
        tensors[name] = torch.randn([2] * rng.choice(others)).to(tensor.dtype)
    elif kind == 'dtype':
        allowed = {tensor.dtype}
        if name not in MAPS_AND_WEIGHTS:
            allowed |= {torch.float32, tensors['x'].dtype}
        tensors[name] = tensor.to(rng.choice([t for t in DTYPES if t not in allowed]))
    elif kind == 'unknown dtype':
        new = rng.choice([torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64])
        for each in MAPS_AND_WEIGHTS:
            tensors[each] = tensors[each] if tensors[each] is None else tensors[each].to(new)
        name = 'maps'
    elif kind == 'device':
        tensors[name] = tensor.to('meta')
    elif kind == 'sparse':
        tensors[name] = tensor.to_sparse()
    elif kind == 'none':
        name = rng.choice(['x', 'weight1', 'gamma', 'weight2'])
        tensors[name] = None
    else:
        shape = list(tensor.shape)
        shape[1 if name == 'x' else rng.randrange(len(shape))] += rng.randint(1, 3)
        tensors[name] = torch.randn(shape).to(tensor.dtype)
    return f'{name}: {kind}'


def reference(call: Call) -> list[Expected]:
    """The numbers of `naive.py`, and how far off those of the kernel may be."""
    tensors, x = call.tensors, call.tensors['x']
    dtype, shape = x.dtype, x.shape
    scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual = (
        tensor if tensor is None else tensor.double() for tensor in list(tensors.values())[1:]
    )
    # Rows and the hidden map are kept in pairs of bfloat16 where processors multiply those.
    in_pairs = dtype == torch.bfloat16 and torch.ops.unireplknet.cpu_isa() == 'avx512_bf16'
    unit = UNIT_OF_BFLOAT16 if in_pairs else EPSILON
    rows = x.double().permute(0, 2, 3, 1).flatten(1, 2)  # [N, positions, C]
    if scale is not None:
        rows = rows * scale[:, None]
    off_rows = unit * rows.abs()

    z, off_z = multiply(rows, off_rows, weight1, growth(shape[1], x, tensors['weight1']))
    if bias1 is not None:
        z = z + bias1
        off_z = off_z + 2 * EPSILON * (z.abs() + bias1.abs())
    of_gelu, _ = ERRORS.get(dtype, ERRORS_OF_OTHERS)
    h = F.gelu(z)
    off_h = STEEPEST_GELU * off_z + (of_gelu + 2 * EPSILON) * z.abs().clamp(min=1)
    more = growth(rows.shape[1], x) * EPSILON
    _, _, factor, off_factor = grn_factor(h, off_h, gamma, more)
    off_h = off_h + unit * (h.abs() + off_h)
    normed = factor * h
    off_normed = off_factor * (h.abs() + off_h) + factor.abs() * off_h
    if beta is not None:
        normed = normed + beta
        off_normed = off_normed + 2 * EPSILON * beta.abs()
    off_normed = off_normed + (unit + 2 * EPSILON) * (normed.abs() + off_normed)

    y, off_y = multiply(normed, off_normed, weight2, growth(len(gamma), tensors['weight2']))
    if output_scale is not None:
        y, off_y = y * output_scale, off_y * output_scale.abs()
    off_y = off_y + 2 * EPSILON * y.abs()
    for summand in (
        bias2,
        None if residual is None else residual.permute(0, 2, 3, 1).flatten(1, 2),
    ):
        if summand is not None:
            y = y + summand
            off_y = off_y + 2 * EPSILON * (y.abs() + summand.abs())
    of_map = (shape[0], *shape[2:], shape[1])
    value, margin = (rows.reshape(of_map).permute(0, 3, 1, 2) for rows in (y, off_y))
    return [Expected(value, margin, dtype, map_format(x))]


def multiply(rows: Tensor, off: Tensor, weight: Tensor, terms: float) -> tuple[Tensor, Tensor]:
    """The product with a weight's transpose, and how far off that of the kernel may be."""
    magnitude = (off + terms * EPSILON * rows.abs()) @ weight.abs().t()
    return rows @ weight.t(), magnitude
