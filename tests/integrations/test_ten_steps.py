"""Ten training steps of a detector with the suite's operators and with PyTorch alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import load_config
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import nn
from torch.autograd.profiler import profile

from unireplknet_mm.launch.folding import build_model
from unireplknet_mm.measuring.variants import PYTORCH_ALONE, forced
from unireplknet_ops import is_available

CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/cascade_unireplknet_demo.py'
SIZE = 64


needs_op = pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
STEPS = 10
OPERATORS = {
    f'unireplknet::{name}{suffix}'
    for name in ('dilated_reparam', 'gelu_grn')
    for suffix in ('', '_backward')
} | {'unireplknet::depthwise_conv2d', '_ScaledLinear'}


def pictures(step: int) -> dict:
    """Two pictures of noise, each with two objects."""
    boxes = torch.tensor([[8.0, 8, 40, 48], [30, 20, 60, 50]])  # of the default dtype
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


# A dense head, which samples nothing: its losses and gradients are smooth.
RETINA_HEAD = dict(
    type='RetinaHead',
    num_classes=10,
    in_channels=64,
    stacked_convs=1,
    feat_channels=32,
    anchor_generator=dict(
        type='AnchorGenerator', scales=[6], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
    ),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    loss_cls=dict(type='FocalLoss'),
    loss_bbox=dict(type='SmoothL1Loss'),
)
ASSIGNER = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)


def make_detector(is_dense: bool) -> nn.Module:
    """The demo's Cascade Mask R-CNN, or a RetinaNet with the same backbone and neck.

    Its layer scale and GRN of a fresh backbone would hide what the blocks compute.
    """
    config = load_config(CONFIG)
    if is_dense:
        config.model = dict(
            type='RetinaNet',
            data_preprocessor=config.model.data_preprocessor,
            backbone=config.model.backbone,
            neck=config.model.neck,
            bbox_head=RETINA_HEAD,
            train_cfg=dict(assigner=ASSIGNER, allowed_border=-1, pos_weight=-1),
        )
    model = build_model(config)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            nn.init.ones_(parameter)
    return model


def ten_steps(dtype: torch.dtype, is_dense: bool, seed: int = 0) -> tuple[np.ndarray, set[str]]:
    """The losses, and the names of what the last step ran.

    Args:
        dtype: of weights, pictures and boxes.
        is_dense: which detector, as in `make_detector`.
        seed: of rounding errors that are added to the weights; none for 0.
    """
    torch.manual_seed(0)
    model = make_detector(is_dense).to(dtype).train()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters() if seed else ():
        noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
        parameter.data.mul_(1 + torch.finfo(dtype).eps * noise)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        np.random.seed(step)  # mmdet's samplers draw from both
        data = model.data_preprocessor(pictures(step), True)
        data['inputs'] = data['inputs'].to(dtype)
        with profile(enabled=step == STEPS - 1) as profiler:
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(set(losses)) == STEPS
    return np.array(losses), {event.name for event in profiler.function_events}


@pytest.fixture
def default_dtype():
    default = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(default)


@needs_op
def test_ten_steps_of_a_detector(default_dtype, monkeypatch):
    """In float64, where rounding does not change which proposals are sampled, but few operators compute."""
    default_dtype(torch.float64)
    with forced('plain'):
        right, _ = ten_steps(torch.float64, is_dense=False)
    for variable in PYTORCH_ALONE:
        monkeypatch.setenv(variable, 'op')
    losses, names = ten_steps(torch.float64, is_dense=False)
    assert 'unireplknet::depthwise_conv2d' in names
    np.testing.assert_allclose(losses, right, rtol=1e-10)


@needs_op
def test_ten_steps_of_a_dense_detector_in_float32(monkeypatch):
    """With every operator that trains: as near to PyTorch alone as that is to itself after rounding."""
    with forced('plain'):
        right, names = ten_steps(torch.float32, is_dense=True)
        rounded = [ten_steps(torch.float32, is_dense=True, seed=seed)[0] for seed in (1, 2)]
    assert not any(name.startswith('unireplknet::') for name in names)
    for variable in PYTORCH_ALONE:
        monkeypatch.setenv(variable, 'op')
    losses, names = ten_steps(torch.float32, is_dense=True)
    assert names >= OPERATORS
    *allowed, distance = np.maximum.accumulate(np.abs([*rounded, losses] - right) / right, axis=1)
    assert (distance <= np.maximum(1e-6, 5 * np.max(allowed, axis=0))).all()
    assert np.max(allowed) < 2e-5, 'a derivative that is wrong by 1e-3 would not show'
