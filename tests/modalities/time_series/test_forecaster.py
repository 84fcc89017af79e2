"""The forecaster: shapes, what reaches a forecast and what does not, folding, errors."""

import copy

import pytest
import torch
from helpers import SMALL_ARCH, randomise, relative_error
from mmengine.registry import MODELS
from torch.nn import functional as F

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.launch.channels import check_channels
from unireplknet_mm.modalities.time_series import Forecaster, WindowSample
from unireplknet_mm.modalities.time_series.forecaster import last_map_shape
from unireplknet_mm.modalities.time_series.statistics import moving_average

BACKBONE = dict(type='UniRepLKNet', arch=SMALL_ARCH, in_channels=1, out_indices=(3,))


def build(look_back=48, horizon=10, variables=6, channels=12, nodes=6, **kwargs) -> Forecaster:
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='Forecaster',
            look_back=look_back,
            horizon=horizon,
            variables=variables,
            backbone=kwargs.pop('backbone', BACKBONE),
            embedding=dict(type='SeriesMap', channels=channels, nodes=nodes),
            **kwargs,
        )
    )
    return randomise(model).eval()


def batch(model, size=3):
    """As the collate function of a data loader leaves it."""
    torch.manual_seed(1)
    return dict(
        inputs=[2 + 3 * torch.randn(model.look_back, model.variables) for _ in range(size)],
        calendar=[torch.rand(model.look_back + model.horizon, 5) - 0.5 for _ in range(size)],
        data_samples=[
            WindowSample(future=torch.randn(model.horizon, model.variables)) for _ in range(size)
        ],
    )


@pytest.mark.parametrize('nodes', [6, 2, 1])
@pytest.mark.parametrize(
    ('look_back', 'horizon', 'channels'), [(48, 10, 12), (30, 1, 15), (7, 33, 28)]
)
def test_sizes(nodes, look_back, horizon, channels):
    model = build(look_back, horizon, channels=channels, nodes=nodes)
    data = model.data_preprocessor(batch(model))
    forecast = model(**data)
    assert forecast.shape == (3, horizon, 6) and forecast.isfinite().all()
    samples = model(**data, mode='predict')
    assert torch.equal(torch.stack([sample.forecast for sample in samples]), forecast)


@pytest.mark.parametrize(
    ('loss', 'function'), [('mse', F.mse_loss), ('mae', F.l1_loss), ('huber', F.huber_loss)]
)
def test_losses(loss, function):
    model = build(loss=loss)
    data = model.data_preprocessor(batch(model))
    future = torch.stack([sample.future for sample in data['data_samples']])
    expected = function(model(**data), future)
    assert torch.equal(model(**data, mode='loss')['loss'], expected)


def test_every_parameter_learns():
    model = build(normalization='mean_std', skip='linear').train()
    data = model.data_preprocessor(batch(model))
    model(**data, mode='loss')['loss'].backward()
    for name, parameter in model.named_parameters():
        # In training the bias in front of a BatchNorm is taken off with the mean.
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    moved = [name for name, p in model.named_parameters() if p.grad.abs().max() > 0]
    assert len(moved) > 0.9 * len(list(model.parameters()))
    assert {
        'embedding.value.weight',
        'embedding.calendar.weight',
        'head.linear.weight',
        'skip.weight',
    } <= {*moved}


def test_variables_alone_are_forecast_alone_and_alike():
    model = build(nodes=6)
    data = model.data_preprocessor(batch(model))
    inputs, calendar = data['inputs'], data['calendar']
    expected = model(inputs, calendar)
    order = torch.tensor([5, 3, 0, 1, 4, 2])
    assert torch.allclose(model(inputs[..., order], calendar), expected[..., order], atol=1e-4)
    changed = inputs.clone()
    changed[..., 2] = torch.randn(3, 48)
    difference = (model(changed, calendar) - expected).abs().amax(dim=(0, 1))
    assert difference[2] > 1e-3 and difference[[0, 1, 3, 4, 5]].max() < 1e-4


def test_mixed_variables_see_each_other():
    model = build(nodes=1)
    inputs = model.data_preprocessor(batch(model))['inputs']
    changed = inputs.clone()
    changed[..., 2] = torch.randn(3, 48)
    assert ((model(changed) - model(inputs)).abs().amax(dim=(0, 1)) > 1e-4).all()


def test_level_and_scale_of_a_window_are_those_of_its_forecast():
    model = build()
    data = model.data_preprocessor(batch(model))
    forecast = model(data['inputs'], data['calendar'])
    moved = model(7 * data['inputs'] - 5, data['calendar'])
    assert relative_error(moved, 7 * forecast - 5) < 1e-4
    plain = build(normalization=None)
    assert relative_error(plain(7 * data['inputs'] - 5), 7 * plain(data['inputs']) - 5) > 0.1


def test_nothing_but_level_and_scale_passes_the_backbone_by():
    """With a backbone that is blind, all windows of one level and scale have the same forecast."""
    model = build()
    for parameter in model.backbone.parameters():
        parameter.data.zero_()
    inputs = torch.randn(2, 48, 6)
    inputs, _, _ = model.statistics(inputs)
    first, second = model(inputs)
    assert torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize('skip', ['linear', 'trend'])
def test_a_skip_is_a_linear_layer_beside_the_backbone(skip):
    model = build(skip=skip, normalization=None)
    x = torch.randn(2, 48, 6)
    with_skip = model(x)
    seen = moving_average(x, 25) if skip == 'trend' else x
    model.skip_name, weights = None, model.skip
    model.skip = None
    expected = model(x) + torch.einsum('blv,hl->bhv', seen, weights.weight) + weights.bias[:, None]
    assert relative_error(with_skip, expected) < 1e-5


@pytest.mark.parametrize('nodes', [6, 1])
def test_the_deploy_form_forecasts_the_same(nodes):
    model = build(nodes=nodes)
    data = model.data_preprocessor(batch(model))
    with torch.no_grad():
        expected = model(data['inputs'], data['calendar'])
        folded = copy.deepcopy(model)
        folded.backbone.switch_to_deploy()
        assert relative_error(folded(data['inputs'], data['calendar']), expected) < 1e-5
    deploy = build(nodes=nodes, backbone=dict(BACKBONE, deploy=True))
    deploy.load_state_dict(folded.state_dict())


def test_mixed_precision():
    model = build().train()
    data = model.data_preprocessor(batch(model))
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(**data, mode='loss')['loss']
    assert loss.dtype == torch.float32
    exact = model(**data, mode='loss')['loss']
    assert loss.item() == pytest.approx(exact.item(), rel=0.1)


@pytest.mark.parametrize('map_size', [(48, 48), (84, 96), (7, 5), (33, 64)])
def test_the_last_map_is_measured_without_computing(map_size):
    backbone = MODELS.build(BACKBONE)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    shape = last_map_shape(backbone, map_size)
    assert backbone.training
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert tuple(backbone.eval()(torch.zeros(1, 1, *map_size))[-1].shape[1:]) == shape


def test_another_backbone():
    """Any of MMEngine's registries, with maps of whatever size."""
    import mmpretrain.models  # noqa: F401

    config = dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16]),
        in_channels=1,
        gap_before_final_norm=False,
    )
    model = build(look_back=64, channels=64, backbone=config)
    assert model(torch.randn(2, 64, 6)).shape == (2, 10, 6)
    assert model.head.map_shape == (16, 2, 2)


def test_the_check_of_channels_leaves_it_alone():
    """Its head wants the size of its map, not that of the image which the check tries."""
    check_channels(build(), 1)


def test_a_backbone_for_images():
    with pytest.raises(
        ArgumentError, match=r'UniRepLKNet does not take a map of 1 × 24 × 24(.|\n)*in_channels=1'
    ):
        build(backbone=dict(BACKBONE, in_channels=3))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(skip='seasonal'), "not 'seasonal'"),
        (dict(normalization='median'), "not 'median'"),
        (dict(loss='mape'), "not 'mape'"),
        (dict(horizon=0), 'horizon of Forecaster must be at least 1, not 0'),
        (dict(nodes=5), 'nodes=5'),
        (dict(look_back=47), 'look_back·channels = 47·12'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        build(**arguments)


@pytest.mark.parametrize(('look_back', 'variables'), [(47, 6), (48, 5)])
def test_windows_of_another_size(look_back, variables):
    with pytest.raises(ArgumentError, match=f'48 × 6, but gets {look_back} × {variables}'):
        build()(torch.zeros(1, look_back, variables))


def test_futures_of_another_length():
    model = build()
    data = batch(model)
    for sample in data['data_samples']:
        sample.future = sample.future[:9]
    with pytest.raises(ArgumentError, match='forecasts 10 rows, but the windows have 9'):
        model(**model.data_preprocessor(data), mode='loss')


def test_a_window_left_alone_for_the_last_batch():
    """Of a series of one variable: its last map may be one point, of which BatchNorm has no deviation."""
    backbone = dict(BACKBONE, norm_cfg=dict(type='BN'))
    model = build(look_back=16, variables=1, nodes=1, channels=1, backbone=backbone).train()
    data = model.data_preprocessor(batch(model, size=1))
    with pytest.raises(ArgumentError, match=r'one window of one node .*\nSet another batch_size'):
        model(**data, mode='loss')
    assert model(**model.data_preprocessor(batch(model, size=2)), mode='loss')['loss'] > 0
    assert model.eval()(**data).isfinite().all()
