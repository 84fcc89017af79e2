"""What users of large-kernel networks reported, where no other test is about it: docs/complaints.md."""

import pytest
import torch
from helpers import randomise

from unireplknet_mm.measuring.memory import peak_of_call
from unireplknet_mm.models import UniRepLKNet


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_tall_image_stays_finite(training, dtype):
    """384×128: the last stage sees 12×4 pixels, fewer than its kernels."""
    arch = dict(depths=(1, 1, 2, 2), channels=(16, 32, 64, 128), kernel_sizes=(3, 13, 13, 13))
    model = randomise(UniRepLKNet(arch)).train(training)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        maps = model(torch.randn(2, 3, 384, 128))
        loss = sum(feature.float().square().mean() for feature in maps)
    assert [tuple(feature.shape[2:]) for feature in maps] == [(96, 32), (48, 16), (24, 8), (12, 4)]
    assert all(feature.isfinite().all() for feature in maps)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) > 100 and all(gradient.isfinite().all() for gradient in gradients)


def test_checkpointing_takes_less_memory():
    arch = dict(depths=(6, 1, 1, 1), channels=(16, 8, 8, 8), kernel_sizes=(13, 3, 3, 3))
    x = torch.randn(2, 3, 64, 64)

    def peak(with_cp: bool) -> int:
        model = UniRepLKNet(arch, with_cp=with_cp).train()
        return peak_of_call(lambda: sum(y.sum() for y in model(x)).backward(), 'cpu')

    assert peak(with_cp=True) < 0.6 * peak(with_cp=False)
