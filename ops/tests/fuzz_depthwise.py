"""Random calls of the depthwise convolution and its two gradients, compared with `F.conv2d`."""

import math
import random

import torch
from fuzz_calls import DTYPES, Call, Expected, growth, make_tensor


def make_call(rng: random.Random) -> Call:
    operator = rng.choice(['', '_backward_input', '_backward_weight'])
    dtype = rng.choice(DTYPES)
    dilation = rng.choice([1, 1, 1, 2, 3, 5, rng.randint(1, 15)])
    largest = 9 if dilation > 1 else rng.choice([3, 5, 7, 9, 13, 13, 31, 63])
    kernel = [rng.randrange(1, largest + 1, 2) for _ in range(2)]
    if rng.random() < 0.5:
        kernel[1] = kernel[0]
    channels = rng.choice([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 48])
    if kernel[0] * kernel[1] > 400:  # spare the reference, which copies a map for every tap
        channels = min(channels, 17)
    sizes = [rng.choice([rng.randint(1, 9), rng.randint(1, 20), rng.randint(1, 44)]) for _ in '12']
    if rng.random() < 1 / 20:  # so long that the kernels take a row in several pieces
        long = rng.randint(45, 1200)
        sizes = rng.sample([long, rng.randint(1, 5)], 2)
        # Few elements and few products all the same.
        area = math.prod(sizes)
        most = min(100_000 // area, 20_000_000 // (area * math.prod(kernel)))
        channels = max(1, min(rng.choice([channels, 400]), most))
    shape = [rng.choice([1, 1, 2, 3]), channels, *sizes]
    if rng.random() < 0.03:
        shape[rng.randrange(4)] = 0
    weight_shape = [shape[1], 1, *kernel]
    call = Call(f'depthwise_conv2d{operator}', {})
    if operator == '_backward_weight':
        call.tensors['grad_output'] = make_tensor(rng, shape, dtype)
        call.tensors['x'] = make_tensor(rng, shape, dtype)
        call.arguments['kernel_size'] = kernel
    else:
        name = 'grad_output' if operator else 'x'
        call.tensors[name] = make_tensor(rng, shape, dtype)
        call.tensors['weight'] = make_tensor(rng, weight_shape, dtype)
        if not operator and rng.random() < 0.5:
            call.tensors['bias'] = make_tensor(rng, shape[1:2], dtype)
    call.arguments['dilation'] = dilation
    if rng.random() < 1 / 3:
        call.broken = break_call(rng, call, dtype)
    return call


def break_call(rng: random.Random, call: Call, dtype) -> str:
    """Make one argument invalid; return which."""
    tensors, arguments = call.tensors, call.arguments
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    even = 2 * rng.randint(0, 32)
    kinds = ['rank', 'dtype', 'unknown dtype', 'device', 'sparse', 'none', 'dilation']
    kinds += ['even size', 'large size', 'dilated large size', 'channels']
    kinds += ['length'] if 'kernel_size' in arguments else ['groups']
    kinds += ['bias'] if 'bias' in tensors else []
    kind = rng.choice(kinds)

    def resize(height: int | None, width: int | None = None) -> None:
        old = arguments.get('kernel_size') or list(tensors['weight'].shape[2:])
        new = [height or old[0] if height != 0 else 0, width or old[1]]
        new = new if rng.random() < 0.5 else new[::-1]
        if 'kernel_size' in arguments:
            arguments['kernel_size'] = new
        else:
            tensors['weight'] = torch.randn(tensors['weight'].shape[0], 1, *new).to(dtype)

    if kind == 'rank':
        rank = rng.choice([size for size in range(7) if size != tensor.dim()])
        tensors[name] = torch.randn([2] * rank).to(dtype)
    elif kind == 'dtype':
        tensors[name] = tensor.to(rng.choice([other for other in DTYPES if other != dtype]))
    elif kind == 'unknown dtype':
        new = rng.choice([torch.int8, torch.int64, torch.bool, torch.complex64])
        for each in tensors:
            tensors[each] = tensors[each].to(new)
    elif kind == 'device':
        tensors[name] = tensor.to('meta')
    elif kind == 'sparse':
        tensors[name] = tensor.to_sparse()
    elif kind == 'none':
        name = next(iter(tensors))
        tensors[name] = None
    elif kind == 'dilation':
        arguments['dilation'] = rng.choice([0, -1, 16, -(2**63), 2**62, 2**63 - 1])
    elif kind == 'even size':
        resize(even)
    elif kind == 'large size':
        resize(rng.choice([65, 67, 127]))
        if 'kernel_size' in arguments and rng.random() < 0.5:
            arguments['kernel_size'][rng.randrange(2)] = rng.choice([-1, -3, 2**63 - 1, -(2**63)])
    elif kind == 'dilated large size':
        arguments['dilation'] = rng.randint(2, 15)
        resize(rng.randrange(11, 64, 2))
    elif kind == 'channels':
        axis = 0 if tensor.dim() == 1 else rng.choice([0, 1] if name == 'weight' else [1])
        shape = list(tensor.shape)
        shape[axis] += rng.randint(1, 3)
        tensors[name] = torch.randn(shape).to(dtype)
    elif kind == 'length':
        arguments['kernel_size'] = [3] * rng.choice([0, 1, 3, 4])
    elif kind == 'groups':
        weight = tensors['weight']
        shape = [weight.shape[0], rng.choice([0, 2, 3]), *weight.shape[2:]]
        tensors['weight'] = torch.randn(shape).to(dtype)
    elif kind == 'bias':
        tensors['bias'] = torch.randn(tensors['bias'].shape[0] + rng.choice([1, 5])).to(dtype)
    return kind


def reference(call: Call) -> list[Expected]:
    first = next(iter(call.tensors.values()))
    dtype = first.dtype
    precise = {name: tensor.double() for name, tensor in call.tensors.items()}
    dilation = call.arguments['dilation']

    def compute(x=None, weight=None, bias=None, grad_output=None):
        kernel = call.arguments.get('kernel_size') or weight.shape[2:]
        padding = [dilation * (size - 1) // 2 for size in kernel]
        if first.numel() == 0:
            return torch.zeros(
                (first.shape[1], 1, *kernel) if weight is None else first.shape
            ).double()
        if weight is None:
            return torch.ops.aten.convolution_backward(
                *(grad_output, x, torch.empty(x.shape[1], 1, *kernel).double(), None),
                *([1, 1], padding, [dilation] * 2, False, [0, 0], x.shape[1], [False, True, False]),
            )[1]
        if grad_output is not None:
            x, weight = grad_output, weight.flip(2, 3)
        return torch.conv2d(x, weight, bias, 1, padding, dilation, x.shape[1])

    expected = compute(**precise)
    magnitude = compute(**{name: tensor.abs() for name, tensor in precise.items()})
    shape = (
        precise['weight'].shape[1:] if 'weight' in precise else [*first.shape[:1], *first.shape[2:]]
    )
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    errors = growth(math.prod(shape), *call.tensors.values()) * torch.finfo(accumulation).eps
    channels_last = 'weight' in call.tensors and first.is_contiguous(
        memory_format=torch.channels_last
    )
    channels_last = channels_last and not first.is_contiguous()
    form = torch.channels_last if channels_last else torch.contiguous_format
    return [Expected(expected, errors * magnitude, dtype, form)]
