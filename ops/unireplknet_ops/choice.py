"""When the operators for parts of a block take the place of PyTorch's: what all of them rest on."""

import torch
from torch import Tensor

from unireplknet_ops import library
from unireplknet_ops.dispatch import PLAIN_TYPES
from unireplknet_ops.torch_internals import (
    constant_in_graphs,
    is_exporting,
    is_fake,
    is_transformed,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INSTRUCTION_SETS = ('avx2', 'avx512', 'avx512_bf16')  # in which they were measured to be faster


def obstacle(x: Tensor, tensors: tuple[Tensor | None, ...], dtype: torch.dtype) -> str | None:
    """Why no operator can compute with these in `dtype`, None if one can."""
    if not isinstance(x, Tensor):
        return 'torch.fx traces it'
    if x.device.type not in ('cpu', 'meta'):
        return f'there is no kernel for {x.device.type} tensors, only for cpu'
    if (missing := missing_library()) is not None:
        return missing
    if dtype not in DTYPES:
        return f'it does not compute in {dtype}'
    if any(tensor is not None and tensor.layout is not torch.strided for tensor in (x, *tensors)):
        return 'a tensor is not strided'
    if is_transformed():
        return 'torch.func and forward-mode differentiation do not know it'
    return None


def is_left_to_native(x: Tensor, tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether 'auto' leaves this machine, graphs or tensors of this kind to PyTorch."""
    if (
        not isinstance(x, Tensor)  # but a torch.fx proxy
        or x.device.type != 'cpu'
        or is_exporting()
        or torch.jit.is_tracing()
        or torch.onnx.is_in_onnx_export()
    ):
        return True
    if any(
        tensor is not None and type(tensor) not in PLAIN_TYPES and not is_fake(tensor)
        for tensor in (x, *tensors)
    ):
        return True
    return missing_library() is not None or instruction_set() not in INSTRUCTION_SETS


@constant_in_graphs
def missing_library() -> str | None:
    return library.missing('cpu')


@constant_in_graphs
def instruction_set() -> str:
    return torch.ops.unireplknet.cpu_isa()
