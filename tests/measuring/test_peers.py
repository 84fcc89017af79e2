"""The large-kernel peers: size by their papers, folding."""

import pytest
import torch
from helpers import randomise, relative_error
from torch import nn

from unireplknet_mm.measuring.peers import PEERS, RepLKNetClassifier, SLaK
from unireplknet_mm.models.whole_model import switch_to_deploy

SMALL = dict(depths=(1, 1, 1, 1), channels=(4, 6, 8, 10), num_classes=5)


def millions(model: nn.Module, density: float = 1.0) -> float:
    """Parameters that are not zero where the weights of convolutions and products have a density."""
    sizes = [p.numel() * (density if p.dim() > 1 else 1) for p in model.parameters()]
    return sum(sizes) / 1e6


@pytest.mark.parametrize(
    ('name', 'density', 'printed'),
    [
        ('replknet_31b', 1, 79),  # arXiv 2203.06717, Table 5
        ('replknet_31l', 1, 172),
        ('slak_t', 0.6, 30),  # arXiv 2207.03620, Table 2: sparsity 40 %
    ],
)
def test_parameters(name, density, printed):
    with torch.device('meta'):
        assert millions(PEERS[name](), density) == pytest.approx(printed, rel=0.02)


def kernel_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """Of the first large kernels."""
    if isinstance(model, SLaK):
        folded = next(m for m in model.modules() if hasattr(m, 'switch_to_deploy'))
        return [conv.kernel_size for conv in folded.convs]
    dwconv = model.backbone.stages[0][0].dwconv
    return [m.kernel_size for m in dwconv.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(
    ('model', 'folding', 'convs'),
    [
        (RepLKNetClassifier(kernel_sizes=(31, 9, 7, 7), **SMALL), 1, [(31, 31)]),
        (SLaK(kernel_sizes=(51, 9, 7, 7), **SMALL), 4, [(51, 5), (5, 51)]),
    ],
)
def test_folding_keeps_the_outputs_and_leaves_the_large_kernels(model, folding, convs):
    randomise(model.eval())
    x = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        before = model(x)
        assert before.shape == (2, 5)
        assert switch_to_deploy(model) == folding
        assert kernel_sizes(model) == convs
        assert relative_error(model(x), before) < 1e-5
        state = {name: value.clone() for name, value in model.state_dict().items()}
        switch_to_deploy(model)
    assert state.keys() == model.state_dict().keys(), 'a second call does nothing'
