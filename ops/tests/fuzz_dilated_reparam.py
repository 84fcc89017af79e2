"""Random calls of `dilated_reparam` and its gradients, compared with their formulas in float64."""

import math
import random

import torch
import torch.nn.functional as F
from fuzz_calls import DTYPES, EPSILON, Call, Expected, growth, make_tensor, map_format
from torch import Tensor


def make_call(rng: random.Random) -> Call:
    dtype = rng.choice([dtype for dtype in DTYPES if dtype != torch.float64])
    branches = []
    for _ in range(rng.choice([1, 2, 3, 6])):
        dilation = rng.choice([1, 1, 2, 3, rng.randint(1, 15)])
        largest = rng.choice([3, 5, 7, 9, 13, 31]) if dilation == 1 else rng.choice([3, 5, 9])
        branches.append((rng.randrange(1, largest + 1, 2), dilation))
    channels = rng.choice([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 20, 31, 33])
    sizes = [rng.choice([rng.randint(1, 9), rng.randint(1, 20), rng.randint(1, 44)]) for _ in '12']
    taps = sum(size * size for size, _ in branches)
    batch = rng.choice([1, 1, 2, 3, 5])
    channels = max(1, min(channels, 10_000_000 // (taps * math.prod(sizes) * batch)))
    shape = [batch, channels, *sizes]
    call = Call(
        'dilated_reparam',
        dict(
            x=make_tensor(rng, shape, dtype),
            weights=[make_tensor(rng, [channels, 1, k, k], torch.float32) for k, _ in branches],
            scales=[make_tensor(rng, [channels], torch.float32) for _ in branches],
            shifts=[make_tensor(rng, [channels], torch.float32) for _ in branches],
        ),
        dict(
            dilations=[dilation for _, dilation in branches],
            eps=[rng.choice([1e-5, 1e-3, 1.0]) for _ in branches],
        ),
    )
    is_single = math.prod(shape) <= channels  # one value a channel has no variance
    if rng.random() < 0.5 and not is_single:
        found = [forward(call, branch) for branch in range(len(branches))]
        del call.tensors['shifts']
        call.tensors |= {
            name: torch.stack([values[name] for values in found]).float()
            for name in ('mean', 'var')
        }
        grad_output = make_tensor(rng, shape, dtype)
        call.tensors = dict(grad_output=grad_output, **call.tensors)
        call.operator += '_backward'
    if is_single:
        call.broken = 'one value a channel'
    elif rng.random() < 1 / 3:
        call.broken = break_call(rng, call)
    return call


def break_call(rng: random.Random, call: Call) -> str:
    """Make one argument invalid; return which."""
    tensors, arguments = call.tensors, call.arguments
    name = rng.choice([*tensors, *arguments])
    value = (tensors | arguments)[name]
    if name == 'eps':
        arguments[name] = value[1:]
        return 'eps: fewer'
    if name == 'dilations':
        value[rng.randrange(len(value))] = rng.choice([0, -1, -(2**63)])
        return 'dilations: below 1'
    kinds = ['rank', 'dtype', 'device', 'sparse', 'none', 'channels']
    kind = rng.choice(kinds + ['fewer', 'more'] * isinstance(value, list))
    if kind == 'none':
        tensors[name] = None
        return f'{name}: {kind}'
    if kind in ('fewer', 'more'):
        tensors[name] = value[1:] if kind == 'fewer' else [*value, value[0]]
        return f'{name}: {kind}'
    tensor = rng.choice(value) if isinstance(value, list) else value
    if kind == 'rank':
        rank = rng.choice([rank for rank in range(6) if rank != tensor.dim()])
        new = torch.randn([2] * rank).to(tensor.dtype)
    elif kind == 'dtype':
        others = [torch.float64] if name == 'x' else [t for t in DTYPES if t != tensor.dtype]
        new = tensor.to(rng.choice(others))
    elif kind == 'device':
        new = tensor.to('meta')
    elif kind == 'sparse':
        new = tensor.to_sparse()
    else:
        shape = list(tensor.shape)
        shape[0 if len(shape) == 1 or name == 'weights' else 1] += rng.randint(1, 3)
        new = torch.randn(shape).to(tensor.dtype)
    is_list = isinstance(value, list)
    tensors[name] = [new if each is tensor else each for each in value] if is_list else new
    return f'{name}: {kind}'


def convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, 1, padding, dilation, x.shape[1])


def of_channels(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def forward(call: Call, branch: int) -> dict[str, Tensor]:
    """One branch's numbers, and `off_*`: how far off those of the kernel may be."""
    x, weight = call.tensors['x'].double(), call.tensors['weights'][branch].double()
    dilation = call.arguments['dilations'][branch]
    over = (0, 2, 3)
    z = convolve(x, weight, dilation)
    terms = growth(weight[0].numel(), call.tensors['x'], call.tensors['weights'][branch])
    off_z = terms * EPSILON * convolve(x.abs(), weight.abs(), dilation)
    var, mean = torch.var_mean(z, over, correction=0)
    off_mean = off_z.mean(over) + 4 * EPSILON * z.abs().mean(over)
    centred, off_centred = z - of_channels(mean), off_z + of_channels(off_mean)
    off_var = (2 * centred.abs() * off_centred + off_centred.square()).mean(
        over
    ) + 8 * EPSILON * var
    factor = (var + call.arguments['eps'][branch]).rsqrt()
    off_factor = factor**3 * off_var + 4 * EPSILON * factor
    normed = centred * of_channels(factor)
    off_normed = off_centred * of_channels(factor + off_factor)
    off_normed += centred.abs() * of_channels(off_factor) + 4 * EPSILON * normed.abs()
    return dict(
        mean=mean,
        off_mean=off_mean,
        var=var,
        off_var=off_var,
        factor=factor,
        off_factor=off_factor,
        normed=normed,
        off_normed=off_normed,
    )


def reference(call: Call) -> list[Expected]:
    branches = range(len(call.tensors['weights']))
    found = [forward(call, branch) for branch in branches]
    x = call.tensors['x']
    form = map_format(x)
    if call.operator == 'dilated_reparam_backward':
        return backward(call, found, form)
    y, off_y = torch.zeros(x.shape).double(), torch.zeros(x.shape).double()
    for branch, values in enumerate(found):
        scale, shift = (call.tensors[n][branch].double() for n in ('scales', 'shifts'))
        y += of_channels(scale) * values['normed'] + of_channels(shift)
        off_y += of_channels(scale.abs()) * values['off_normed']
        # The filters merge, and so do the means and shifts.
        size = scale.abs() * values['factor'] * values['mean'].abs() + shift.abs()
        off_y += 8 * EPSILON * of_channels(size)
    statistics = [
        Expected(*(torch.stack([values[f'{off}{name}'] for values in found]) for off in ('', 'off_')),
                 torch.float32)
        for name in ('mean', 'var')
    ]  # fmt: skip
    return [Expected(y, off_y, x.dtype, form), *statistics]


def backward(call: Call, found: list[dict[str, Tensor]], form) -> list[Expected]:
    """The gradients of x, and of each branch's weight, scale and shift."""
    x, grad_output = call.tensors['x'], call.tensors['grad_output']
    precise, g = x.double(), grad_output.double()
    over, values = (0, 2, 3), x.numel() // x.shape[1]
    more = growth(values, x, grad_output) * EPSILON
    grad_x, off_grad_x = torch.zeros(x.shape).double(), torch.zeros(x.shape).double()
    grad_weights, grad_scales, grad_shifts = [], [], []
    for branch, numbers in enumerate(found):
        weight = call.tensors['weights'][branch].double()
        scale = call.tensors['scales'][branch].double()
        dilation = call.arguments['dilations'][branch]
        normed, off_normed = numbers['normed'], numbers['off_normed']
        grad_shift, off_grad_shift = g.sum(over), more * g.abs().sum(over)
        grad_scale = (g * normed).sum(over)
        off_grad_scale = (g.abs() * (off_normed + more * normed.abs())).sum(over)
        grad_z = g - of_channels(grad_shift / values) - normed * of_channels(grad_scale / values)
        size = g.abs() + of_channels(grad_shift.abs() / values)
        size += normed.abs() * of_channels(grad_scale.abs() / values)
        off_grad_z = of_channels(off_grad_shift / values) + 8 * EPSILON * size
        off_grad_z += off_normed * of_channels((grad_scale.abs() + off_grad_scale) / values)
        off_grad_z += normed.abs() * of_channels(off_grad_scale / values)
        factor = of_channels(scale * numbers['factor'])
        off_factor = of_channels(scale.abs() * numbers['off_factor'])
        off_grad_z = off_grad_z * (factor.abs() + off_factor) + size * off_factor
        grad_z, size = grad_z * factor, size * factor.abs()

        turned = weight.flip(2, 3)
        grad_x += convolve(grad_z, turned, dilation)
        terms = growth(weight[0].numel() * len(found), grad_output, call.tensors['weights'][branch])
        off_grad_x += convolve(off_grad_z + terms * EPSILON * size, turned.abs(), dilation)
        off_grad_weight = gradient_of_weight(
            off_grad_z + more * size, precise.abs(), weight, dilation
        )
        grad_weight = gradient_of_weight(grad_z, precise, weight, dilation)
        grad_weights.append(Expected(grad_weight, off_grad_weight, torch.float32))
        grad_scales.append(Expected(grad_scale, off_grad_scale, torch.float32))
        grad_shifts.append(Expected(grad_shift, off_grad_shift, torch.float32))
    of_x = Expected(grad_x, off_grad_x, x.dtype, form)
    return [of_x, *grad_weights, *grad_scales, *grad_shifts]


def gradient_of_weight(grad_z: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = [dilation * (weight.shape[-1] // 2)] * 2
    return torch.ops.aten.convolution_backward(
        *(grad_z, x, weight, None, [1, 1], padding, [dilation] * 2, False, [0, 0], x.shape[1]),
        [False, True, False],
    )[1]
