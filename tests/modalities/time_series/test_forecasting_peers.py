"""The models to compare with, each against its definition."""

import pytest
import torch
from helpers import randomise
from mmengine.registry import MODELS

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series import (
    DLinear,
    ForecastError,
    NLinear,
    PatchTST,
    SeasonalNaive,
)
from unireplknet_mm.modalities.time_series.peers import EncoderLayer

SIZES = dict(look_back=32, horizon=9, variables=3)
PEERS = [DLinear, NLinear, PatchTST]


@pytest.fixture
def x():
    torch.manual_seed(0)
    return 4 + 2 * torch.randn(2, 32, 3, dtype=torch.float64)


@pytest.mark.parametrize('peer', PEERS)
def test_every_parameter_learns_and_variables_are_alone(peer, x):
    model = randomise(MODELS.build(dict(type=peer.__name__, **SIZES))).double()
    model.train()(x).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.ne(0).any() for p in model.parameters())
    model.eval()
    forecast = model(x)
    assert forecast.shape == (2, 9, 3)
    changed = x.clone()
    changed[..., 1] = 0.5 * torch.randn(2, 32)
    differs = (model(changed) - forecast).abs().amax(dim=(0, 1)) > 1e-6
    assert differs.tolist() == [False, True, False]


def test_seasonal_naive(x):
    forecast = SeasonalNaive(season=4, **SIZES)(x)
    expected = torch.cat([x[:, 28:], x[:, 28:], x[:, 28:29]], dim=1)
    assert torch.equal(forecast, expected)
    assert torch.equal(SeasonalNaive(season=1, **SIZES)(x), x[:, -1:].expand(-1, 9, -1))
    for season in (0, 33):
        with pytest.raises(ArgumentError, match=f'season={season}'):
            SeasonalNaive(season=season, **SIZES)


def test_nlinear_takes_off_the_last_value(x):
    model = NLinear(**SIZES).double()
    expected = torch.einsum('blv,hl->bhv', x - x[:, -1:], model.linear.weight)
    expected = expected + model.linear.bias[:, None] + x[:, -1:]
    assert torch.allclose(model(x), expected)
    assert torch.allclose(model(x + 100), model(x) + 100)


def test_dlinear_with_equal_layers_is_one_linear_layer(x):
    model = DLinear(decomposition=7, **SIZES).double()
    model.rest.load_state_dict(model.trend.state_dict())
    expected = torch.einsum('blv,hl->bhv', x, model.trend.weight) + 2 * model.trend.bias[:, None]
    assert torch.allclose(model(x), expected)
    model.rest.weight.data.zero_()  # now it sees the trend alone, which a constant is
    flat = x.mean(dim=1, keepdim=True).expand_as(x)
    constant = torch.einsum('blv,hl->bhv', flat, model.trend.weight) + 2 * model.trend.bias[:, None]
    assert torch.allclose(model(flat), constant)


def test_patches_of_patchtst(x):
    """(L + stride - patch) / stride + 1 of them, the last filled up with the last value."""
    model = PatchTST(patch=8, stride=4, **SIZES).double().eval()
    seen = []
    model.tokens.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    forecast = model(x)
    normal = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, correction=0) + 1e-5)
    patches = seen[0].unflatten(0, (2, 3))
    assert patches.shape == (2, 3, 8, 8)
    assert torch.allclose(patches[1, 2, 3], normal[1, 12:20, 2])
    assert torch.allclose(
        patches[0, 0, -1], torch.cat([normal[0, 28:, 0], normal[0, -1:, 0].expand(4)])
    )
    assert torch.allclose(model(3 * x + 1), 3 * forecast + 1, atol=1e-3)


def test_attention_against_torch():
    torch.manual_seed(0)
    layer = EncoderLayer(16, 4, 32, 0.0)
    reference = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    reference.in_proj_weight.data.copy_(layer.qkv.weight)
    reference.in_proj_bias.data.copy_(layer.qkv.bias)
    reference.out_proj.load_state_dict(layer.out.state_dict())
    x = torch.randn(5, 7, 16)
    assert torch.allclose(layer._attend(x), reference(x, x, x)[0], atol=1e-6)


@pytest.mark.parametrize(
    ('arguments', 'message'), [(dict(patch=41), 'patch=41'), (dict(heads=3), 'heads=3')]
)
def test_patchtst_arguments_out_of_range(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        PatchTST(**SIZES, **arguments)


def test_the_size_of_patchtst():
    """As in its paper for ETTh: 16 channels, 4 heads, 3 layers, feed-forward 128; 42 patches of 336."""
    model = PatchTST(look_back=336, horizon=96, variables=7)
    assert model.position.shape == (42, 16)
    layer = 4 * 16 * 16 + 4 * 16 + 2 * 16 * 128 + 128 + 16 + 2 * 2 * 16
    parts = 17 * 16 + 42 * 16 + 3 * layer + (42 * 16 + 1) * 96
    assert sum(p.numel() for p in model.parameters()) == parts


def test_error_over_all_windows_rows_and_variables():
    metric = ForecastError()
    torch.manual_seed(0)
    forecast, future = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    samples = [dict(forecast=a, future=b) for a, b in zip(forecast, future, strict=True)]
    metric.process(None, samples[:3])
    metric.process(None, samples[3:])
    scores = metric.evaluate(5)
    assert scores == {
        'forecast/mse': pytest.approx((forecast - future).square().mean().item()),
        'forecast/mae': pytest.approx((forecast - future).abs().mean().item()),
    }
