"""The blocks by themselves: which operators they run."""

import contextlib

import pytest
import torch
from torch.autograd.profiler import profile

from unireplknet_mm.models.blocks import UniRepLKNetBlock


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize(
    'mode', [contextlib.nullcontext, torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__
)
def test_linear_layers_run_as_one_product(mode, frozen, deploy, dtype, memory_format):
    block = UniRepLKNetBlock(8, 3, deploy=deploy).to(dtype).eval().requires_grad_(not frozen)
    x = torch.randn(2, 8, 5, 6).to(dtype, memory_format=memory_format)
    with mode(), profile() as profiler:
        block(x)
    names = [event.name for event in profiler.function_events]
    assert not {'aten::bmm', 'aten::baddbmm'} & set(names)
    assert sum(name in ('aten::mm', 'aten::addmm') for name in names) == 2
