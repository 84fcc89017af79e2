"""The paper's model of global weather: its parts against short forms, its size against Table 12."""

import pytest
import torch
from helpers import SMALL_ARCH, randomise
from mmengine.registry import MODELS

from unireplknet_mm.modalities.time_series import correlation, weather  # noqa: F401
from unireplknet_mm.modalities.time_series.correlation import (
    AutoCorrelation,
    CausalBlock,
    CrossCorrelation,
    MultiCorrelation,
    advance,
    correlate,
    fit_length,
)


def build(backbone, **kwargs):
    backbone = dict(type='UniRepLKNet', in_channels=1, out_indices=(3,), **backbone)
    return MODELS.build(dict(type='WeatherForecaster', backbone=backbone, **kwargs))


def test_correlation_by_its_sum():
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    expected = torch.stack(
        [(queries.roll(-delay, -1) * keys).sum(-1).mean(-1) for delay in range(8)], dim=-1
    )
    assert torch.allclose(correlate(queries, keys), expected, atol=1e-4)


def test_advance_wraps():
    x = torch.arange(12.0).reshape(2, 1, 6)
    moved = advance(x, torch.tensor([1, -2]))
    assert moved[0, 0].tolist() == [1, 2, 3, 4, 5, 0]
    assert moved[1, 0].tolist() == [10, 11, 6, 7, 8, 9]


@pytest.mark.parametrize(('length', 'expected'), [(2, [1, 2]), (5, [1, 2, 3, 0, 0])])
def test_fit_length(length, expected):
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    assert fit_length(x, length).flatten().tolist() == expected


def test_a_shifted_copy_is_found():
    """With linear layers that pass everything, the source comes back moved onto the queries."""
    torch.manual_seed(0)
    auto = AutoCorrelation(4, 1, factor=0.5)
    for layer in (auto.query, auto.key, auto.value, auto.out):
        layer.weight.data.copy_(torch.eye(4))
        layer.bias.data.zero_()
    source = torch.randn(3, 16, 4)
    x = torch.stack([source[i].roll(shift, 0) for i, shift in enumerate((0, 3, 11))])
    moved = auto(x, source)
    # The values are read from the delay on, as in Autoformer.
    expected = torch.stack([source[i].roll(-shift, 0) for i, shift in enumerate((0, 3, 11))])
    assert torch.allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize(('kind', 'share'), [(AutoCorrelation, 1), (CrossCorrelation, 0.5)])
def test_a_shorter_source_is_padded_with_zeros_whatever_the_biases(kind, share):
    """Values that are 1 by their bias: 5 rows of them in the 8 of the queries.

    Keys of zeros correlate alike at every delay: the weights of the auto-correlation sum to 1, that of the
    cross-correlation is the sigmoid of 0.
    """
    torch.manual_seed(0)
    module = kind(4, 2, 8).eval() if kind is CrossCorrelation else kind(4, 2)
    for layer, weight, bias in (
        (module.key, 0, 0),
        (module.value, 0, 1),
        (module.out, torch.eye(4), 0),
    ):
        layer.weight.data.copy_(torch.as_tensor(weight))
        layer.bias.data.fill_(bias)
    if kind is CrossCorrelation:
        for convolution in module.causal.convolutions:  # only its residual is left
            convolution.parametrizations.weight.original0.data.zero_()
            convolution.bias.data.zero_()
    out = module(torch.randn(2, 3, 8, 4), torch.randn(2, 3, 5, 4))
    assert torch.allclose(out.sum(dim=-2), torch.tensor(5.0 * share))


def test_convolutions_over_nodes_are_causal():
    torch.manual_seed(0)
    block = CausalBlock(6).eval()
    x = torch.randn(2, 6, 9)
    changed = x.clone()
    changed[..., 5] += 1
    differs = (block(x) != block(changed)).any(dim=1).any(dim=0)
    assert not differs[:5].any() and differs[5:].any()


def test_nodes_see_each_other():
    torch.manual_seed(0)
    cross = randomise(CrossCorrelation(8, 2, 6)).eval()
    x = torch.randn(2, 5, 6, 8)
    out = cross(x, x)
    assert out.shape == (2, 5, 6, 8)
    changed = x.clone()
    changed[:, 0] += torch.randn(2, 6, 8)
    differs = (cross(changed, changed) - out).abs().amax(dim=(2, 3)) > 1e-6
    assert differs[:, 1:].any(dim=1).all()


def test_the_order_of_nodes_does_not_matter():
    """Nodes are passed on in the order of their delays, here all different, whatever theirs is."""
    torch.manual_seed(0)
    cross = randomise(CrossCorrelation(4, 1, 16)).eval()
    for layer in (cross.query, cross.key):
        layer.weight.data.copy_(torch.eye(4))
        layer.bias.data.zero_()
    series = torch.randn(16, 4)
    source = torch.stack([series.roll(-shift, 0) for shift in (0, 3, 7, 9, 14)])[None]
    queries = series.expand(1, 5, 16, 4)  # so that the pivot is the series itself
    order = torch.tensor([3, 0, 4, 1, 2])
    out = cross(queries, source)
    assert torch.allclose(cross(queries, source[:, order]), out[:, order], atol=1e-5)


def test_the_tree():
    """A leaf hears of others: of its siblings at the lowest level, of all at the highest."""
    torch.manual_seed(0)
    module = randomise(MultiCorrelation(8, 2, (2, 3), 6)).eval()
    x = torch.randn(2 * 6, 6, 8)
    out = module(x, x)
    assert out.shape == x.shape
    changed = x.clone()
    changed[0] += torch.randn(6, 8)
    differs = (module(changed, changed) - out).abs().amax(dim=(1, 2)) > 1e-6
    assert not differs[6:].any()  # of another sample
    assert differs[0] and differs[1:3].any() and differs[3:6].any()


def test_it_forecasts_and_every_parameter_learns():
    torch.manual_seed(0)
    model = randomise(
        build(
            dict(arch=SMALL_ARCH),
            look_back=18,
            horizon=6,
            variables=12,
            tree=(2, 3),
            channels=32,
            label=6,
            heads=4,
            feed_forward=16,
            decomposition=5,
        )
    ).train()
    x, calendar = torch.randn(2, 18, 12), torch.rand(2, 24, 5)
    model.set_places(torch.randn(12, 3).numpy())
    forecast = model(x, calendar)
    assert forecast.shape == (2, 6, 12) and forecast.isfinite().all()
    forecast.square().mean().backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not silent


def test_the_size_of_table_12():
    """132 M, as derived: 55.5 of the backbone, 63.8 of causal convolutions, 9.4 and 3.1 of linear layers."""
    with torch.device('meta'):
        model = build(dict(arch='s'), look_back=48, horizon=24, variables=3850, tree=(7, 50))
    model.backbone.switch_to_deploy()

    def count(kind):
        parts = [module for module in model.modules() if isinstance(module, kind)]
        return sum(p.numel() for part in parts for p in part.parameters(recurse=True))

    whole = sum(p.numel() for p in model.parameters())
    assert whole == pytest.approx(132e6, rel=0.02)
    # 54.9 M here: the paper's number has a classifier.
    assert count(type(model.backbone)) == pytest.approx(55.5e6, rel=0.02)
    assert count(CausalBlock) == pytest.approx(63.8e6, rel=0.01)
    assert count(AutoCorrelation) == pytest.approx(4 * 2 * (768**2 + 768))
    with torch.device('meta'):
        x = torch.zeros(1, 48, 3850)
    assert model.eval()(x).shape == (1, 24, 3850)
