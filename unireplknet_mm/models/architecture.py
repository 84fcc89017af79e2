"""Architectures: Table 4 of the paper (arXiv 2410.08049), what may stand in `arch` and `branches`, and the
architecture that weights have.

Kernel sizes follow §3.2.3 and §3.2.4, branches §3.2.2 and appendix A.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unireplknet_mm.errors import ArgumentError

KernelSizes = Sequence[int | Sequence[int]]
Branches = tuple[tuple[int, int], ...]

NUM_STAGES = 4
LARGE_KERNEL_SIZE = 13
LARGE_KERNELS_IN_STAGE_3 = 9

ARCHITECTURES: dict[str, dict[str, tuple[int, ...]]] = {
    'a': dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320)),
    'f': dict(depths=(2, 2, 6, 2), channels=(48, 96, 192, 384)),
    'p': dict(depths=(2, 2, 6, 2), channels=(64, 128, 256, 512)),
    'n': dict(depths=(2, 2, 8, 2), channels=(80, 160, 320, 640)),
    't': dict(depths=(3, 3, 18, 3), channels=(80, 160, 320, 640)),
    's': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
    'b': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
    'l': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536)),
    'xl': dict(depths=(3, 3, 27, 3), channels=(256, 512, 1024, 2048)),
    'h': dict(depths=(3, 3, 27, 3), channels=(480, 960, 1920, 3840)),
}

# (kernel size, dilation) of the branches beside a K×K kernel, as published.
PUBLISHED_BRANCHES: dict[int, Branches] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


def default_kernel_sizes(depths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Kernel sizes of every block by §3.2.3 and §3.2.4: 3×3 in stage 1, 13×13 in stages 2 and 4.

    In stage 3 up to nine blocks are large; where it is deeper, every second (third, ...) block starting
    with the first, so that the large ones stay at nine.
    """
    interval = max(1, math.ceil(depths[2] / LARGE_KERNELS_IN_STAGE_3))
    large = LARGE_KERNEL_SIZE
    return (
        (3,) * depths[0],
        (large,) * depths[1],
        tuple(3 if i % interval else large for i in range(depths[2])),
        (large,) * depths[3],
    )


def resolve_architecture(arch: str | dict) -> dict[str, Any]:
    """Depths, channels and the kernel size of every block, validated, of a name or a dict."""
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            known = ', '.join(ARCHITECTURES)
            raise ArgumentError(
                f'unknown arch {arch!r}: choose from {known}, or pass '
                'dict(depths=..., channels=..., kernel_sizes=...)'
            )
        arch = ARCHITECTURES[arch]
    if not isinstance(arch, dict) or not {'depths', 'channels'} <= arch.keys():
        raise ArgumentError(f'arch must be a name or a dict with depths and channels, got {arch!r}')
    unknown = arch.keys() - {'depths', 'channels', 'kernel_sizes'}
    if unknown:
        raise ArgumentError(f'unknown keys in arch: {", ".join(sorted(unknown))}')
    for name, minimum in (('depths', 1), ('channels', 2)):
        numbers = arch[name]
        if (
            not isinstance(numbers, Sequence)
            or len(numbers) != NUM_STAGES
            or not all(isinstance(n, int) and n >= minimum for n in numbers)
        ):
            raise ArgumentError(
                f'arch {name} must be {NUM_STAGES} whole numbers of at least {minimum}, got {numbers}'
            )
    depths, channels = tuple(arch['depths']), tuple(arch['channels'])
    kernel_sizes = arch.get('kernel_sizes')
    if kernel_sizes is None:
        kernel_sizes = default_kernel_sizes(depths)
    return dict(
        depths=depths, channels=channels, kernel_sizes=resolve_kernel_sizes(kernel_sizes, depths)
    )


def resolve_kernel_sizes(
    kernel_sizes: KernelSizes, depths: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """One tuple of kernel sizes a stage, one size a block.

    A depthwise 1×1 convolution does nothing that the BatchNorm behind it does not do: blocks of that size
    are built without one.
    """
    if not isinstance(kernel_sizes, Sequence) or len(kernel_sizes) != NUM_STAGES:
        raise ArgumentError(
            f'kernel_sizes must have {NUM_STAGES} entries, one a stage, got {kernel_sizes}'
        )
    resolved = []
    for stage, (sizes, depth) in enumerate(zip(kernel_sizes, depths, strict=True), start=1):
        if isinstance(sizes, int):
            sizes = (sizes,) * depth
        if not isinstance(sizes, Sequence) or isinstance(sizes, str):
            raise ArgumentError(
                f'kernel_sizes of stage {stage} must be a size or a list of sizes, got {sizes!r}'
            )
        if len(sizes) != depth:
            raise ArgumentError(
                f'kernel sizes do not match the depths: stage {stage} has {depth} blocks and '
                f'{len(sizes)} kernel sizes {tuple(sizes)}'
            )
        for size in sizes:
            if not isinstance(size, int) or size < 1 or size % 2 == 0:
                raise ArgumentError(
                    f'kernel size {size!r} in stage {stage}: must be odd and at least 3, or 1 for a block '
                    'without a depthwise convolution'
                )
        resolved.append(tuple(sizes))
    return tuple(resolved)


def default_branches(kernel_size: int) -> Branches:
    """The (kernel size, dilation) pairs of the dilated branches beside a K×K kernel.

    Published for K = 5 to 17. From 19 up they follow a rule that also yields the published ones of 13 and
    17: a 5×5; a dilation-2 kernel as wide as fits; 3×3 kernels that reach about 1/2, 7/10 and 9/10 of the
    way to the border, (k-1)r+1 ≤ K for each.

    Raises:
        ArgumentError: K is even or below 5.
    """
    if kernel_size in PUBLISHED_BRANCHES:
        return PUBLISHED_BRANCHES[kernel_size]
    if kernel_size < 5 or kernel_size % 2 == 0:
        raise ArgumentError(
            f'a Dilated Reparam Block needs an odd kernel size of at least 5, got {kernel_size}'
        )
    half_width = (kernel_size + 1) // 2
    wide = half_width if half_width % 2 else half_width - 1
    reach = (kernel_size - 1) // 2
    return ((5, 1), (wide, 2), *((3, reach * tenths // 10) for tenths in (5, 7, 9)))


def check_branches(kernel_size: int, branches: Sequence[Sequence[int]]) -> Branches:
    """Validate user-given branches of a K×K kernel: odd k, (k-1)r+1 ≤ K. A pair may repeat (Table 3b)."""
    try:
        pairs = tuple((int(size), int(dilation)) for size, dilation in branches)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f'branches of the {kernel_size}×{kernel_size} kernel must be (kernel size, dilation) '
            f'pairs, got {branches}'
        ) from error
    for size, dilation in pairs:
        extent = (size - 1) * dilation + 1
        if size < 1 or size % 2 == 0 or dilation < 1 or extent > kernel_size:
            raise ArgumentError(
                f'branch (kernel size {size}, dilation {dilation}) does not fit a {kernel_size}×'
                f'{kernel_size} kernel: the size must be odd and (size-1)·dilation+1 = {extent} at most '
                f'{kernel_size}'
            )
    return pairs


def branch_names(branches: Branches) -> list[str]:
    """What the modules of each branch are named after: 'k3_1', and 'k3_1_2' where the pair comes again."""
    counts: Counter[tuple[int, int]] = Counter()
    names = []
    for size, dilation in branches:
        counts[size, dilation] += 1
        number = counts[size, dilation]
        names.append(f'k{size}_{dilation}' + (f'_{number}' if number > 1 else ''))
    return names


def read_architecture(weights: Mapping[str, Tensor]) -> dict[str, tuple]:
    """Depths, channels and kernel sizes from backbone-named weights, as in `arch_settings`."""
    depthwise = re.compile(r'stages\.(\d)\.(\d+)\.dwconv\.(?:lk_origin\.)?weight')
    linear = re.compile(r'stages\.(\d)\.(\d+)\.pwconv1\.1\.weight')
    # Of each block channels and kernel size, which is 1 where there is no depthwise convolution.
    blocks: list[dict[int, tuple[int, int]]] = [{} for _ in range(NUM_STAGES)]
    for name, weight in weights.items():
        match = depthwise.fullmatch(name) or linear.fullmatch(name)
        if not match or int(match[1]) >= NUM_STAGES:
            continue
        stage, block = blocks[int(match[1])], int(match[2])
        if match.re is depthwise:
            stage[block] = (weight.shape[0], weight.shape[-1])
        else:
            stage.setdefault(block, (weight.shape[1], 1))
    return dict(
        depths=tuple(len(stage) for stage in blocks),
        channels=tuple(next(iter(stage.values()), (0, 0))[0] for stage in blocks),
        kernel_sizes=tuple(
            tuple(size for _, (_, size) in sorted(stage.items())) for stage in blocks
        ),
    )


def describe_architecture(settings: Mapping[str, tuple]) -> str:
    """In words: `UniRepLKNet-T (depths 3 3 18 3, channels 80 160 320 640)`."""
    numbers = ', '.join(
        f'{key} {" ".join(map(str, settings[key]))}' for key in ('depths', 'channels')
    )
    for arch, known in ARCHITECTURES.items():
        if all(known[key] == settings[key] for key in known):
            return f'UniRepLKNet-{arch.upper()} ({numbers})'
    return f'a UniRepLKNet of {numbers}'
