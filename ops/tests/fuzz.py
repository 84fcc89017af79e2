"""Call the operators with random arguments: right results, clean errors, no crash.

    python ops/tests/fuzz.py [--calls 10000] [--seed 0] [--kind gelu_grn] [--isa avx2] [--sanitize]
        [--case 17]

Every call follows from the seed and its number. Two of three are valid; their results are compared
with formulas in float64, within what rounding in the accumulation type and in the output type can
explain. The others have one argument broken and must raise an error. `fuzz_KIND.py` has the calls of
each kind of operator and their formulas. Each instruction set that this processor has is forced in a
process of its own. With --sanitize the library is built with AddressSanitizer first, and Python runs
under it (`make fuzz-ops`): it ends the process at the first access outside a tensor.
"""

import argparse
import importlib
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'unireplknet_ops'
INSTRUCTION_SETS = ('portable', 'avx2', 'avx512', 'avx512_bf16')
LIBRARY = 'libunireplknet_ops.so'
KINDS = ('depthwise', 'feed_forward', 'squeeze_excitation', 'gelu_grn', 'dilated_reparam')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--calls', type=int, default=10000, help='calls of each instruction set')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kind', choices=KINDS, help='only this kind of operator')
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
        if options.kind:
            command += ['--kind', options.kind]
        if options.case is not None:
            command += ['--case', str(options.case)]
        code = subprocess.run(command, env=environment | {'UNIREPLKNET_CPU_ISA': isa}).returncode
        if code < 0 or code > 1:
            print(f'{isa}: the process died ({code}) in call {progress.read()}')
    return code == 0


def run_calls(options) -> int:
    global torch
    import torch  # after the command line was read: --help is quick

    kinds = {name: importlib.import_module(f'fuzz_{name}') for name in KINDS}
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
            rng = random.Random(f'{options.seed} {number}')
            torch.manual_seed(rng.getrandbits(60))
            kind = kinds[options.kind or rng.choice(KINDS)]
            call = kind.make_call(rng)
            progress.seek(0)
            progress.truncate()
            progress.write(f'{number}: {call}')
            progress.flush()
            problem = check(call, kind, repeat=number % 16 == 0)
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


def check(call, kind, repeat: bool) -> str | None:
    """Do the call; return what is wrong with its outcome."""
    operator = getattr(torch.ops.unireplknet, call.operator)
    try:
        results = flat(operator(**call.tensors, **call.arguments))
    except (RuntimeError, ValueError, TypeError) as error:
        if not call.broken:
            return f'refused: {error}'
        return None if str(error).strip() else 'an error without a message'
    if call.broken:
        return 'accepted'
    for number, (expected, result) in enumerate(zip(kind.reference(call), results, strict=True)):
        if problem := expected.problem_of(result):
            return f'result {number} {problem}'
    again = flat(operator(**call.tensors, **call.arguments)) if repeat else results
    if not all(map(torch.equal, results, again)):
        return 'differs from run to run'
    return None


def flat(results) -> list:
    """The tensors of an operator's result, which may be one, or several and lists of them."""
    if isinstance(results, (tuple, list)):
        return [tensor for result in results for tensor in flat(result)]
    return [results]


if __name__ == '__main__':
    sys.exit(main())
