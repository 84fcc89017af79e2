"""Call the three operators with random arguments: right results, clean errors, no crash.

    python ops/tests/fuzz.py [--calls 10000] [--seed 0] [--isa avx2] [--sanitize] [--case 17]

Every call follows from the seed and its number. Two of three are valid; their results are compared
with `F.conv2d` in float64, within what rounding in the accumulation type and in the output type can
explain. The others have one argument broken and must raise an error. Each instruction set that this
processor has is forced in a process of its own. With --sanitize the library is built with
AddressSanitizer first, and Python runs under it (`make fuzz-ops`): it ends the process at the first
access outside a tensor.
"""

import argparse
import importlib.util
import math
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'unireplknet_ops'
INSTRUCTION_SETS = ('portable', 'avx2', 'avx512', 'avx512_bf16')
LIBRARY = 'libunireplknet_ops.so'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--calls', type=int, default=10000, help='calls of each instruction set')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--isa', choices=INSTRUCTION_SETS, help='only this instruction set')
    parser.add_argument('--sanitize', action='store_true', help='build and run under ASan')
    parser.add_argument('--library', type=Path, metavar='DIR', help='use the library in DIR')
    parser.add_argument('--case', type=int, metavar='NUMBER', help='only this call')
    parser.add_argument('--progress', type=Path, help=argparse.SUPPRESS)  # set in a child process
    options = parser.parse_args()
    if options.progress:
        return run_calls(options)

    environment = dict(os.environ)
    environment.setdefault('OMP_NUM_THREADS', '2')
    environment.setdefault('OMP_WAIT_POLICY', 'passive')
    library = options.library or Path(os.environ.get('UNIREPLKNET_OPS_LIB_DIR') or PACKAGE / 'lib')
    if options.sanitize:
        build = load_build_module()
        try:
            library = build.build(options.library, sanitize=True)[0].parent
            environment |= sanitizer_environment(build)
        except build.BuildError as error:
            sys.exit(f'fuzz.py: {error}')
    if not (library / LIBRARY).exists():
        sys.exit(f'fuzz.py: there is no {library / LIBRARY}: build it with make ops')
    failed = False
    for isa in [options.isa] if options.isa else INSTRUCTION_SETS:
        failed |= not fuzz_instruction_set(isa, library, options, environment)
    return int(failed)


def load_build_module():
    spec = importlib.util.spec_from_file_location('unireplknet_ops_build', PACKAGE / 'build.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def sanitizer_environment(build) -> dict[str, str]:
    compiler = build.find_compiler()
    # libstdc++ as well: AddressSanitizer looks for the function that throws exceptions on start.
    paths = [
        build.run_tool([*compiler, f'-print-file-name={name}']).strip()
        for name in ('libasan.so', 'libstdc++.so')
    ]
    if not all(map(os.path.isabs, paths)):
        raise build.MissingTool(f'{compiler[0]} has no shared libasan.so: install libasan')
    # Python never frees some of its memory, so leaks say nothing.
    return {'LD_PRELOAD': ' '.join(paths), 'ASAN_OPTIONS': 'detect_leaks=0:abort_on_error=1'}


def fuzz_instruction_set(isa: str, library: Path, options, environment: dict[str, str]) -> bool:
    with tempfile.NamedTemporaryFile('r') as progress:
        command = [sys.executable, __file__, '--progress', progress.name, '--library', str(library)]
        command += ['--isa', isa, '--seed', str(options.seed), '--calls', str(options.calls)]
        if options.case is not None:
            command += ['--case', str(options.case)]
        code = subprocess.run(command, env=environment | {'UNIREPLKNET_CPU_ISA': isa}).returncode
        if code < 0 or code > 1:
            print(f'{isa}: the process died ({code}) in call {progress.read()}')
    return code == 0


def run_calls(options) -> int:
    global torch
    import torch  # after the command line was read: --help is quick

    torch.ops.load_library(str(options.library / LIBRARY))
    try:
        active = torch.ops.unireplknet.cpu_isa()
    except RuntimeError as error:
        print(f'{options.isa}: left out: {error}')
        return 0
    assert active == options.isa, f'{active} runs, not {options.isa}'
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.empty then gives NaN
    torch.utils.deterministic.fill_uninitialized_memory = True
    counts = {'valid': 0, 'refused': 0, 'wrong': 0}
    with options.progress.open('w') as progress:
        numbers = range(options.calls) if options.case is None else [options.case]
        for number in numbers:
            call = make_call(random.Random(f'{options.seed} {number}'))
            progress.seek(0)
            progress.truncate()
            progress.write(f'{number}: {call}')
            progress.flush()
            problem = check(call, repeat=number % 16 == 0)
            if problem:
                counts['wrong'] += 1
                print(f'{options.isa}: seed {options.seed}, call {number}: {problem}: {call}')
                if counts['wrong'] == 10:
                    break
            else:
                counts['refused' if call.broken else 'valid'] += 1
    print(
        f'{options.isa}: {counts["valid"]} right results, {counts["refused"]} clean errors, '
        f'{counts["wrong"]} wrong',
        flush=True,
    )
    return int(counts['wrong'] > 0)


@dataclass
class Call:
    operator: str
    tensors: dict  # by argument name
    arguments: dict = field(default_factory=dict)
    broken: str = ''

    def __str__(self) -> str:
        def describe(value) -> str:
            if not isinstance(value, torch.Tensor):
                return str(value)
            text = f'{str(value.dtype)[6:]}{list(value.shape)}'
            if value.layout == torch.strided and value.device.type == 'cpu':
                text += f' strides {list(value.stride())} offset {value.storage_offset()}'
            return text + (' negated' if value.is_neg() else '')

        both = self.tensors | self.arguments
        text = ', '.join(f'{name}={describe(value)}' for name, value in both.items())
        return f'{self.operator}({text})' + (f' with {self.broken}' if self.broken else '')


def make_call(rng: random.Random) -> Call:
    torch.manual_seed(rng.getrandbits(60))
    operator = rng.choice(['', '_backward_input', '_backward_weight'])
    dtype = rng.choice([torch.float32, torch.float64, torch.float16, torch.bfloat16])
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


def make_tensor(rng: random.Random, shape: list[int], dtype):
    """Random values in one of many layouts."""

    def values(*sizes: int):
        return torch.randn(sizes).to(dtype)

    kind = rng.randrange(12)
    if kind < 4:
        return values(*shape)
    if len(shape) == 4 and kind < 7:
        return values(*shape).contiguous(memory_format=torch.channels_last)
    if kind == 7:  # a window of something larger
        starts = [rng.randint(0, 2) for _ in shape]
        whole = values(
            *(start + size + rng.randint(0, 2) for start, size in zip(starts, shape, strict=True))
        )
        return whole[
            tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
        ]
    if kind == 8:  # every second or third element along each axis
        steps = [rng.randint(1, 3) for _ in shape]
        whole = values(*(size * step for step, size in zip(steps, shape, strict=True)))
        return whole[tuple(slice(None, None, step) for step in steps)]
    if kind == 9:  # axes in another order
        order = rng.sample(range(len(shape)), len(shape))
        return values(*(shape[axis] for axis in order)).permute(
            [order.index(axis) for axis in range(len(shape))]
        )
    if kind == 10:  # stride 0
        axis = rng.randrange(len(shape))
        return values(*shape[:axis], 1, *shape[axis + 1 :]).expand(shape)
    if rng.random() < 0.5 or dtype in (torch.float16, torch.bfloat16):  # off every alignment
        return values(1 + torch.Size(shape).numel())[1:].view(shape)
    # A lazily negated view, whose memory holds the opposite sign.
    return torch.view_as_complex(values(*shape, 2)).conj().imag


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
        others = {torch.float32, torch.float64, torch.float16, torch.bfloat16} - {dtype}
        tensors[name] = tensor.to(rng.choice(sorted(others, key=str)))
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


def check(call: Call, repeat: bool) -> str | None:
    """Do the call; return what is wrong with its outcome."""
    operator = getattr(torch.ops.unireplknet, call.operator)
    try:
        result = operator(**call.tensors, **call.arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        if not call.broken:
            return f'refused: {error}'
        return None if str(error).strip() else 'an error without a message'
    if call.broken:
        return 'accepted'
    first = next(iter(call.tensors.values()))
    expected, margin = reference(call)
    if result.shape != expected.shape or result.dtype != first.dtype:
        return f'gives {result.dtype}{list(result.shape)}'
    channels_last = 'weight' in call.tensors and first.is_contiguous(
        memory_format=torch.channels_last
    )
    channels_last = channels_last and not first.is_contiguous()
    form = torch.channels_last if channels_last else torch.contiguous_format
    if not result.is_contiguous(memory_format=form):
        return f'gives strides {result.stride()}, not {form}'
    error = (result.double() - expected).abs()
    if not bool((error <= margin).all()):
        worst = (error / margin).nan_to_num(torch.inf).max().item()
        return f'off by {worst:.3g} times the margin'
    if repeat and not torch.equal(result, operator(**call.tensors, **call.arguments)):
        return 'differs from run to run'
    return None


def reference(call: Call):
    """The result in float64, and how far off a result with the right rounding may be."""
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
    terms = math.prod(shape)
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    # Rounding errors of a sum are independent, so they grow with the root of its length; those of equal
    # terms are not.
    repeated = any(0 in tensor.stride() for tensor in call.tensors.values())
    growth = 4 + (terms if repeated else terms**0.5)
    margin = growth * torch.finfo(accumulation).eps * magnitude
    limits = torch.finfo(dtype)
    return expected, margin + limits.eps * expected.abs() + limits.smallest_normal * limits.eps


if __name__ == '__main__':
    sys.exit(main())
