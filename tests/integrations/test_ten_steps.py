"""Ten training steps of a detector with the suite's operators and with PyTorch alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import load_config
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from unireplknet_mm.launch.folding import build_model
from unireplknet_mm.measuring.variants import PYTORCH_ALONE, forced
from unireplknet_ops import is_available

CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/cascade_unireplknet_demo.py'
SIZE = 64


def pictures(step: int) -> dict:
    """Two pictures of noise, each with two objects."""
    boxes = torch.tensor([[8.0, 8, 40, 48], [30, 20, 60, 50]], dtype=torch.float64)
    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    masks[0, 8:48, 8:40] = masks[1, 20:50, 30:60] = 1
    sample = DetDataSample(
        metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([step % 10, (step + 3) % 10]),
        masks=BitmapMasks(masks, SIZE, SIZE),
    )
    generator = torch.Generator().manual_seed(step)
    noise = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return dict(inputs=list(noise), data_samples=[sample, sample.clone()])


def losses_of_ten_steps() -> list[float]:
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG)).double().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    losses = []
    for step in range(10):
        torch.manual_seed(step)
        np.random.seed(step)  # mmdet's samplers draw from both
        data = model.data_preprocessor(pictures(step), True)
        data['inputs'] = data['inputs'].double()
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
def test_ten_steps_of_a_detector(monkeypatch):
    """In float64, where rounding does not change which proposals are sampled."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with forced('plain'):
            right = losses_of_ten_steps()
        for variable in PYTORCH_ALONE:
            monkeypatch.setenv(variable, 'op')
        losses = losses_of_ten_steps()
    finally:
        torch.set_default_dtype(default)
    assert len(set(right)) == 10
    np.testing.assert_allclose(losses, right, rtol=1e-10)
