"""The backbone against numbers that the authors' implementation computed in float64.

`tests/golden/` holds them; weights and input are made by the rule below, so no weight file is needed.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.block_layers import LayerNorm2d

GOLDEN = Path(__file__).parents[1] / 'golden'
TOLERANCE = 1e-6  # relative; float64 agrees to about 1e-14, the deploy numbers are float32


def golden_array(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden value of the state-dict entry `key`: the first rule that matches."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith('running_var'):
        return 0.5 + rng.random(shape)
    z = rng.standard_normal(shape)
    if key.endswith(('running_mean', 'act.1.gamma', 'act.1.beta')):
        return 0.1 * z
    if key.endswith('.gamma'):
        return 0.5 + 0.1 * z
    if key.endswith('.bias'):
        return 0.1 * z
    if len(shape) == 1:
        return 1 + 0.1 * z
    return z / np.sqrt(np.prod(shape[1:]))


class Classifier(nn.Module):
    """The published ImageNet model: the backbone's names and a linear `head`."""

    def __init__(self, arch: str, deploy: bool = False):
        super().__init__()
        self.backbone = UniRepLKNet(
            arch, out_indices=(3,), gap_before_final_norm=True, deploy=deploy
        )
        self.head = nn.Linear(self.backbone.out_channels[0], 1000)

    def forward(self, x):
        return self.head(self.backbone(x)[0])

    def published_names(self) -> dict[str, torch.Tensor]:
        return {name.removeprefix('backbone.'): t for name, t in self.state_dict().items()}

    def fill(self) -> 'Classifier':
        for name, tensor in self.published_names().items():
            tensor.copy_(torch.as_tensor(golden_array(name, tuple(tensor.shape))))
        return self


def load_golden(arch: str):
    return np.load(GOLDEN / f'unireplknet_{arch}.npz'), json.loads(
        (GOLDEN / f'unireplknet_{arch}_keys.json').read_text()
    )


def golden_input() -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(0).standard_normal((2, 3, 97, 71)))


def golden_output_norm(stage: int, channels: int) -> nn.Module:
    """The LayerNorm behind a stage in dense tasks, `norm{stage}`."""
    norm = LayerNorm2d(channels, eps=1e-6).double()
    for name, tensor in norm.state_dict(prefix=f'norm{stage}.').items():
        tensor.copy_(torch.as_tensor(golden_array(name, tuple(tensor.shape))))
    return norm


def relative(actual, expected) -> float:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize('arch', ['a', 'n', 't', 's'])
def test_parameter_names_and_shapes_are_the_published_ones(arch):
    _, keys = load_golden(arch)
    with torch.device('meta'):
        for structure in ('train', 'deploy'):
            model = Classifier(arch, deploy=structure == 'deploy')
            names = {name: list(t.shape) for name, t in model.published_names().items()}
            assert names == keys[structure]


@pytest.mark.parametrize('arch', ['a', 'n', 't', 's'])
def test_feature_maps_and_logits_before_and_after_reparameterization(arch):
    golden, _ = load_golden(arch)
    model = Classifier(arch).double().fill().eval()
    maps = []
    for stage in model.backbone.stages:
        stage.register_forward_hook(lambda module, args, output: maps.append(output))
    x = golden_input()
    with torch.no_grad():
        assert relative(model(x), golden['logits_eval']) < TOLERANCE
        for i, feature in enumerate(maps):
            feature = golden_output_norm(i, feature.shape[1])(feature)
            assert feature.shape == tuple(golden[f'feat{i}_shape'])
            sampled = feature.flatten()[torch.as_tensor(golden[f'feat{i}_idx'])]
            assert relative(sampled, golden[f'feat{i}_val']) < TOLERANCE
            assert relative(feature.norm(), golden[f'feat{i}_l2']) < TOLERANCE
        model.backbone.switch_to_deploy()
        assert relative(model(x), golden['logits_eval']) < TOLERANCE
        model.float()
        assert relative(model(x.float()), golden['logits_deploy_fp32']) < TOLERANCE


def test_dense_output_norms():
    """What a detector sees: the same maps as above, through the backbone's own `norm{i}`."""
    golden, _ = load_golden('a')
    model = UniRepLKNet('a').double().eval()
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.as_tensor(golden_array(name, tuple(tensor.shape))))
    with torch.no_grad():
        maps = model(golden_input())
    assert len(maps) == 4
    for i, feature in enumerate(maps):
        assert relative(feature.norm(), golden[f'feat{i}_l2']) < TOLERANCE


@pytest.mark.parametrize('arch', ['a', 'n', 't', 's'])
def test_loss_and_every_gradient_in_training_mode(arch):
    golden, _ = load_golden(arch)
    model = Classifier(arch).double().fill().train()
    logits = model(golden_input())
    loss = logits.square().mean()
    loss.backward()
    assert relative(logits.detach(), golden['logits_train']) < TOLERANCE
    assert relative(loss.detach(), golden['loss_train']) < TOLERANCE

    norms = {
        name.removeprefix('backbone.'): parameter.grad.norm().item()
        for name, parameter in model.named_parameters()
    }
    expected = dict(zip(golden['grad_names'].tolist(), golden['grad_l2'].tolist(), strict=True))
    assert norms.keys() == expected.keys()
    # A bias in front of a BatchNorm has no gradient but rounding: both sides must say so.
    negligible = 1e-12 * max(expected.values())
    wrong = {
        name: (norm, expected[name])
        for name, norm in norms.items()
        if abs(norm - expected[name]) > TOLERANCE * expected[name] + negligible
    }
    assert not wrong
    assert sum(value > negligible for value in expected.values()) > 0.7 * len(expected)
