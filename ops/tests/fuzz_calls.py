"""A random call of an operator, and what must come out of it: what the kinds of `fuzz.py` share."""

import random
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EPSILON = torch.finfo(torch.float32).eps


@dataclass
class Call:
    operator: str
    tensors: dict  # by argument name, some of them lists
    arguments: dict = field(default_factory=dict)
    broken: str = ''

    def __str__(self) -> str:
        def describe(value) -> str:
            if isinstance(value, list) and value and isinstance(value[0], Tensor):
                return f'[{", ".join(map(describe, value))}]'
            if not isinstance(value, Tensor):
                return str(value)
            text = f'{str(value.dtype)[6:]}{list(value.shape)}'
            if value.layout == torch.strided and value.device.type == 'cpu':
                text += f' strides {list(value.stride())} offset {value.storage_offset()}'
            return text + (' negated' if value.is_neg() else '')

        both = self.tensors | self.arguments
        text = ', '.join(f'{name}={describe(value)}' for name, value in both.items())
        return f'{self.operator}({text})' + (f' with {self.broken}' if self.broken else '')


class Expected(NamedTuple):
    """A result in float64, and how far off one with the right rounding may be."""

    value: Tensor
    margin: Tensor
    dtype: torch.dtype
    memory_format: torch.memory_format = torch.contiguous_format

    def problem_of(self, result: Tensor) -> str | None:
        """What is wrong with a result, None if nothing is."""
        if result.shape != self.value.shape or result.dtype != self.dtype:
            return f'gives {result.dtype}{list(result.shape)}'
        if not result.is_contiguous(memory_format=self.memory_format):
            return f'gives strides {result.stride()}, not {self.memory_format}'
        limits = torch.finfo(self.dtype)
        rounding = limits.eps * self.value.abs() + limits.smallest_normal * limits.eps
        error, margin = (result.double() - self.value).abs(), self.margin + rounding
        if not bool((error <= margin).all()):
            worst = (error / margin).nan_to_num(torch.inf).max().item()
            return f'off by {worst:.3g} times the margin'
        return None


def growth(terms: int, *tensors: Tensor) -> float:
    """By how many rounding errors of a term a sum of so many may be off.

    Errors are independent, so they grow with the root of the length; those of equal terms are not.
    """
    repeated = any(0 in tensor.stride() for tensor in tensors)
    return 4 + (terms if repeated else terms**0.5)


def make_tensor(rng: random.Random, shape: list[int], dtype: torch.dtype) -> Tensor:
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


def map_format(x: Tensor) -> torch.memory_format:
    """The memory format of a result that takes after the map x: by the order of x's strides."""
    if x.is_contiguous():
        return torch.contiguous_format
    least = 1
    for dimension in (1, 3, 2, 0):
        if x.shape[dimension] > 1:
            if x.stride(dimension) < least:
                return torch.contiguous_format
            least = x.stride(dimension) * x.shape[dimension]
    return torch.channels_last
