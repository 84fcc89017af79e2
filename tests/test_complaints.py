"""What users of large-kernel networks reported, where no other test is about it: docs/complaints.md."""

import torch

from unireplknet_mm.measuring.memory import peak_of_call
from unireplknet_mm.models import UniRepLKNet


def test_checkpointing_takes_less_memory():
    arch = dict(depths=(6, 1, 1, 1), channels=(16, 8, 8, 8), kernel_sizes=(13, 3, 3, 3))
    x = torch.randn(2, 3, 64, 64)

    def peak(with_cp: bool) -> int:
        model = UniRepLKNet(arch, with_cp=with_cp).train()
        return peak_of_call(lambda: sum(y.sum() for y in model(x)).backward(), 'cpu')

    assert peak(with_cp=True) < 0.6 * peak(with_cp=False)
