"""The suite's models in timm: what timm's own tests check of every model, weights both ways, no mmcv.

After `tests/test_models.py` of huggingface/pytorch-image-models. The ten architectures are built on the
meta device, where shapes, names and gradients are those of the real ones; numbers are compared on a small
network of the same kind.
"""

import argparse
import builtins
import functools
import importlib
import inspect
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import (
    SMALL_ARCH,
    detector_weights,
    fill_hub_cache,
    published_weights,
    randomise,
    relative_error,
    save,
)
from torch import nn

timm = pytest.importorskip('timm', reason='timm is not installed')
from timm.models import FeatureInfo, get_notrace_functions, get_notrace_modules  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from torchvision.models.feature_extraction import (  # noqa: E402
    create_feature_extractor,
    get_graph_node_names,
)

import unireplknet_mm.integrations.timm as integration  # noqa: E402
from unireplknet_mm.errors import ArgumentError, MissingPackageError  # noqa: E402
from unireplknet_mm.measuring.catalogue import UniRepLKNetClassifier  # noqa: E402
from unireplknet_mm.models import UniRepLKNet, UniRepLKNetBlock  # noqa: E402
from unireplknet_mm.models.architecture import ARCHITECTURES  # noqa: E402
from unireplknet_mm.models.timm_names import from_timm_names, to_timm_names  # noqa: E402
from unireplknet_mm.models.whole_model import adapt_state_dict  # noqa: E402
from unireplknet_mm.weights import PUBLISHED, CheckpointError  # noqa: E402
from unireplknet_mm.weights.published import REPOSITORY  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f'unireplknet_{arch}' for arch in ARCHITECTURES]
every_model = pytest.mark.parametrize('name', NAMES)


# Of different depths; the others differ from S in their widths alone.
every_depth = pytest.mark.parametrize('name', [f'unireplknet_{arch}' for arch in 'ants'])


def on_meta(name: str, **kwargs) -> nn.Module:
    return timm.create_model(name, device='meta', **kwargs)


@functools.cache
def shared(name: str) -> nn.Module:
    """On the meta device, for tests that leave it as it was: building one takes most of their time."""
    return on_meta(name)


def small(**kwargs) -> nn.Module:
    return timm.create_model('unireplknet_a', arch=SMALL_ARCH, **kwargs)


def test_every_architecture_is_registered_with_its_weights():
    assert set(timm.list_models('unireplknet_*')) == set(NAMES)
    tags = timm.list_models('unireplknet_*', include_tags=True)
    classifiers = {name for name in PUBLISHED if name.startswith('unireplknet_')}
    assert len(tags) == len(classifiers) + 1 and 'unireplknet_h.untrained' in tags
    assert {timm.get_pretrained_cfg(tag).hf_hub_filename for tag in tags} - {None} == {
        PUBLISHED[name].file_name for name in classifiers
    }
    defaults = {name: timm.get_pretrained_cfg(name) for name in NAMES}
    assert {cfg.num_classes for cfg in defaults.values()} == {1000}
    assert [defaults[f'unireplknet_{arch}'].input_size[-1] for arch in ('t', 's', 'b')] == [
        224,
        224,
        384,
    ]
    pretrained = timm.get_pretrained_cfg('unireplknet_l.in22k')
    assert (pretrained.num_classes, pretrained.input_size) == (21841, (3, 192, 192))
    squashed = {tag for tag in tags if timm.get_pretrained_cfg(tag).crop_mode == 'squash'}
    assert squashed == {tag for tag in tags if tag.endswith('_384')}


@every_model
def test_default_cfg(name):
    model = shared(name).eval()
    cfg = model.default_cfg
    names = model.state_dict().keys()
    assert cfg['classifier'] + '.weight' in names and cfg['first_conv'] + '.weight' in names
    assert model.num_classes == cfg['num_classes'] == 1000
    channels = ARCHITECTURES[name.removeprefix('unireplknet_')]['channels'][-1]
    assert model.num_features == model.head_hidden_size == channels
    x = torch.randn(1, *cfg['input_size'], device='meta')
    features = model.forward_features(x)
    assert features.shape == (1, channels, *cfg['pool_size'])
    assert model.forward_head(features, pre_logits=True).shape == (1, channels)
    assert model(x).shape == (1, 1000)
    model.reset_classifier(0)
    assert model.num_classes == 0 and model.forward_head(features).shape == (1, channels)
    assert isinstance(model.get_classifier(), nn.Identity)
    model.reset_classifier(0, '')
    assert model.forward_head(features).shape == features.shape
    model.reset_classifier(7, 'max')
    assert model.forward_head(features).shape == (1, 7) and model.num_classes == 7
    model.reset_classifier(1000, 'avg')


def test_arguments():
    x = torch.randn(2, 5, 64, 64)
    assert small(in_chans=5)(x).shape == (2, 1000)
    assert small(in_chans=5, num_classes=0)(x).shape == (2, 32)
    assert small(in_chans=5, num_classes=0, global_pool='')(x).shape == (2, 32, 2, 2)
    assert small(in_chans=5, num_classes=3, global_pool='')(x).shape == (2, 3, 2, 2)
    assert small(in_chans=5, global_pool='avgmax', drop_rate=0.5)(x).shape == (2, 1000)


def test_dropping_paths_leaves_no_parameter_without_a_gradient():
    model = small(num_classes=42, drop_path_rate=0.1, drop_rate=0.1).train()
    model(torch.randn(2, 3, 64, 64)).mean().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []


@every_depth
def test_every_parameter_gets_a_gradient(name):
    model = shared(name).train()
    model(torch.randn(2, 3, 64, 64, device='meta')).mean().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad()


@every_model
def test_parameters_are_those_of_the_suites_network(name):
    model = shared(name)
    with torch.device('meta'):
        own = UniRepLKNetClassifier(name.removeprefix('unireplknet_'))
    count = sum(parameter.numel() for parameter in own.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@every_model
def test_features_only(name):
    model = on_meta(name, features_only=True).eval()
    info = model.feature_info
    assert info.reduction() == [4, 8, 16, 32]
    maps = model(torch.randn(1, 3, 96, 70, device='meta'))
    assert [feature.shape for feature in maps] == [
        (1, count, math.ceil(96 / stride), math.ceil(70 / stride))
        for count, stride in zip(info.channels(), info.reduction(), strict=True)
    ]


@pytest.mark.parametrize('feature_cls', ['list', 'dict', 'getter', 'hook', 'fx'])
def test_features_of_some_stages(feature_cls):
    model = small(features_only=True, feature_cls=feature_cls, out_indices=(1, 2)).eval()
    assert model.feature_info.channels() == list(SMALL_ARCH['channels'][1:3])
    assert model.feature_info.reduction() == [8, 16]
    maps = model(torch.randn(1, 3, 64, 64))
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    assert [feature.shape[1:] for feature in maps] == [(16, 8, 8), (24, 4, 4)]


@every_model
def test_forward_intermediates(name):
    model = shared(name).eval()
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    output, maps = model.forward_intermediates(torch.randn(1, 3, 96, 96, device='meta'))
    assert [feature.shape[1] for feature in maps] == info.channels()
    assert [96 // feature.shape[2] for feature in maps] == info.reduction() == [4, 8, 16, 32]
    assert output.shape == maps[-1].shape


def test_intermediates_are_the_features():
    model = randomise(small()).eval()
    x = torch.randn(2, 3, 64, 50)
    output, maps = model.forward_intermediates(x)
    assert torch.equal(output, model.forward_features(x)) and len(maps) == 4
    last_two = model.forward_intermediates(x, indices=2, intermediates_only=True)
    first = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    for actual, expected in zip([*first, *last_two], [maps[0], *maps[2:]], strict=True):
        assert torch.equal(actual, expected)
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', got 'NLC'"):
        model.forward_intermediates(x, output_fmt='NLC')
    assert model.prune_intermediate_layers([0, 1]) == [0, 1]
    pruned = model(x)
    assert torch.equal(pruned, maps[1]) and model.num_features == SMALL_ARCH['channels'][1]
    model.reset_classifier(3, 'avg')
    assert model(x).shape == (2, 3)


def test_forward_and_checkpointing_in_numbers():
    model = timm.create_model('unireplknet_a').eval()
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    assert expected.isfinite().all()
    model.set_grad_checkpointing()
    assert all(m.with_cp for m in model.modules() if isinstance(m, UniRepLKNetBlock))
    assert torch.allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    model.set_grad_checkpointing(False)
    assert not any(m.with_cp for m in model.modules() if isinstance(m, UniRepLKNetBlock))


def test_the_network_is_the_suites():
    own = randomise(UniRepLKNetClassifier(SMALL_ARCH, num_classes=9)).eval()
    model = small(num_classes=9).eval()
    state_dict = {name.removeprefix('backbone.'): v for name, v in own.state_dict().items()}
    model.load_state_dict(to_timm_names(state_dict))
    x = torch.randn(2, 3, 57, 64)
    assert relative_error(model(x), own(x)) < 1e-6


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize('deploy', [False, True])
def test_torchscript(deploy):
    model = randomise(small(scriptable=True)).eval()
    if deploy:
        model = timm.utils.reparameterize_model(model)
    x = torch.randn(1, 3, 64, 64)
    scripted = torch.jit.script(model)
    assert relative_error(scripted(x), model(x)) < 1e-5
    features = torch.jit.script(small(features_only=True, scriptable=True).eval())
    assert [feature.shape[1] for feature in features(x)] == list(SMALL_ARCH['channels'])


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize(
    'name', ['unireplknet_a', 'unireplknet_t']
)  # with and without small kernels
def test_architectures_become_torchscript(name):
    scripted = torch.jit.script(on_meta(name, scriptable=True).eval())
    assert scripted(torch.randn(1, 3, 32, 32, device='meta')).shape == (1, 1000)


def trace(model: nn.Module) -> nn.Module:
    options = dict(
        leaf_modules=get_notrace_modules(),
        autowrap_functions=get_notrace_functions(),
        param_shapes_constant=True,
    )
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=options)
    return create_feature_extractor(
        model,
        train_return_nodes=train_nodes[-1:],
        eval_return_nodes=eval_nodes[-1:],
        tracer_kwargs=options,
    )


def test_fx_forward_and_backward():
    model = randomise(small(num_classes=42))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model.eval()(x)
        (output,) = trace(model)(x).values()
    assert relative_error(output, expected) < 1e-5  # in the layout of x, which eager mode changes
    (output,) = trace(model.train())(x).values()
    output.mean().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []


def test_reparameterize_model(tmp_path):
    model = randomise(small()).eval()
    folded = timm.utils.reparameterize_model(model)
    x = torch.randn(2, 3, 64, 64)
    assert relative_error(folded(x), model(x)) < 2e-5
    assert folded.deploy and not model.deploy
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    again = small(deploy=True).eval()
    again.load_state_dict(folded.state_dict())
    assert torch.equal(again(x), folded(x))
    with pytest.raises(CheckpointError, match='deploy form'):
        model.load_state_dict(folded.state_dict())
    for deployed in (folded, again):
        with pytest.raises(CheckpointError, match='built with deploy=True'):
            deployed.load_state_dict(model.state_dict())


def test_device_dtype_and_drop_path():
    model = on_meta('unireplknet_a', dtype=torch.bfloat16, drop_path_rate=0.3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {parameter.device.type for parameter in model.parameters()} == {'meta'}
    model.reset_classifier(3)
    assert (model.head.fc.weight.device.type, model.head.fc.weight.dtype) == (
        'meta',
        torch.bfloat16,
    )
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == 'DropPath']
    assert rates == pytest.approx([0.3 * i / 11 for i in range(1, 12)])


def test_layer_decay_and_weight_decay():
    model = on_meta('unireplknet_t')
    optimizer = create_optimizer_v2(model, 'adamw', lr=1.0, weight_decay=0.05, layer_decay=0.5)
    names = {parameter: name for name, parameter in model.named_parameters()}
    # The stem, downsamplings with the block behind them, the other blocks, the head.
    scales = sorted({group['lr_scale'] for group in optimizer.param_groups})
    assert scales == [0.5**i for i in range(1 + sum(ARCHITECTURES['t']['depths']), -1, -1)]
    undecayed = {
        names[parameter]
        for group in optimizer.param_groups
        if group['weight_decay'] == 0
        for parameter in group['params']
    }
    matrices = {name for parameter, name in names.items() if parameter.dim() > 1}
    assert undecayed & matrices == model.no_weight_decay() != set()
    assert undecayed == (set(names.values()) - matrices) | model.no_weight_decay()


@pytest.mark.parametrize('arch', ['a', 's'])
def test_names_round_trip(arch):
    weights = published_weights(arch)
    renamed = to_timm_names(weights)
    assert from_timm_names(renamed) == weights
    assert renamed.keys() == on_meta(f'unireplknet_{arch}').state_dict().keys()
    assert {'stem.0.weight', 'head.norm.weight', 'head.fc.weight'} <= renamed.keys()


def with_classes(weights: dict, count: int) -> dict:
    head = {
        n: torch.tensor(7.0).expand(count, *weights[n].shape[1:]) for n in weights if 'head' in n
    }
    return weights | head


@pytest.mark.parametrize(
    ('model', 'published', 'num_classes'),
    [
        ('unireplknet_a', 'unireplknet_a_in1k', 1000),
        ('unireplknet_s.in22k', 'unireplknet_s_in22k', 21841),
        ('unireplknet_s.in22k_ft_in1k_384', 'unireplknet_s_in22k_to_in1k', 1000),
    ],
)
def test_published_files_load(hub_cache, tmp_path, model, published, num_classes):
    weights = with_classes(published_weights(PUBLISHED[published].arch), num_classes)
    content = dict(model=weights, args=argparse.Namespace(lr=4e-3))
    path = save(tmp_path / PUBLISHED[published].file_name, content)
    fill_hub_cache(hub_cache, REPOSITORY, path)
    loaded = timm.create_model(model, pretrained=True).state_dict()
    assert loaded.keys() == to_timm_names(weights).keys()
    for name, value in to_timm_names(weights).items():
        assert torch.equal(loaded[name], value.to(loaded[name].dtype)), name
    if model != 'unireplknet_a':  # what follows does not depend on the file
        return
    other = timm.create_model(model, pretrained=True, in_chans=1, num_classes=5)
    assert other.head.fc.weight.abs().max() < 1 < other.head.norm.bias.max()
    expected = weights['downsample_layers.0.0.weight'].sum(1, keepdim=True)
    assert torch.equal(other.stem[0].weight, expected)
    features = timm.create_model(model, pretrained=True, features_only=True)
    assert torch.equal(features['stem_0'].bias, loaded['stem.0.bias'])


def test_other_files_load_and_foreign_ones_do_not(tmp_path):
    raw = published_weights('a')
    classifier = {f'backbone.{n}': v for n, v in raw.items() if not n.startswith('head.')}
    classifier |= {f'head.fc.{n}': raw[f'head.{n}'] for n in ('weight', 'bias')}
    forms = dict(
        classifier=dict(state_dict=classifier),
        distributed={'module.' + n: v for n, v in to_timm_names(raw).items()},
        detector=dict(state_dict=detector_weights('a')),
    )
    expected = to_timm_names(raw)
    for form, content in forms.items():
        path = save(tmp_path / f'{form}.pth', content)
        is_detector = form == 'detector'
        model = timm.create_model(
            'unireplknet_a',
            pretrained=True,
            pretrained_cfg_overlay=dict(file=str(path)),
            num_classes=0 if is_detector else 1000,
        )
        loaded = model.state_dict()
        for name, value in expected.items():
            if not (is_detector and name.startswith('head.')):
                assert torch.equal(loaded[name], value.to(loaded[name].dtype)), (form, name)
    for arch, content, message in (
        ('f', raw, 'the weights are of UniRepLKNet-A .* the model is UniRepLKNet-F'),
        ('a', published_weights('a', 'deploy'), 'deploy form'),
        ('a', {'layer1.0.conv1.weight': torch.ones(1)}, "look like a ResNet's"),
    ):
        path = save(tmp_path / 'foreign.pth', content)
        with pytest.raises(CheckpointError, match=message):
            timm.create_model(
                f'unireplknet_{arch}',
                pretrained=True,
                pretrained_cfg_overlay=dict(file=str(path)),
            )


def test_checkpoint_path_of_another_architecture_is_answered_by_name(tmp_path):
    path = save(tmp_path / 'a.pth', to_timm_names(published_weights('a')))
    timm.create_model('unireplknet_a', checkpoint_path=str(path))
    with pytest.raises(CheckpointError, match=r'UniRepLKNet-A .* the model is UniRepLKNet-F'):
        timm.create_model('unireplknet_f', checkpoint_path=str(path))


@pytest.mark.parametrize('out_indices', [(1, 4), (-5,)])
def test_stages_that_are_not_there_are_named(out_indices):
    with pytest.raises(ArgumentError, match='the stages are 0 to 3, or -4 to -1'):
        timm.create_model('unireplknet_a', features_only=True, out_indices=out_indices)


class Classifier(nn.Module):
    """Its parameters are named as those of mmpretrain's."""

    def __init__(self):
        super().__init__()
        self.backbone = UniRepLKNet(SMALL_ARCH, out_indices=(3,), gap_before_final_norm=True)
        self.head = nn.ModuleDict(dict(fc=nn.Linear(SMALL_ARCH['channels'][-1], 9)))

    def forward(self, x):
        return self.head['fc'](self.backbone(x)[0])


def test_what_timm_trained_loads_into_the_suite(tmp_path):
    model = randomise(small(num_classes=9)).eval()
    checkpoint = dict(
        epoch=3,
        arch='unireplknet_a',
        state_dict=model.state_dict(),
        args=argparse.Namespace(model='unireplknet_a'),
        version=2,
    )
    path = save(tmp_path / 'model_best.pth.tar', checkpoint)
    backbone = UniRepLKNet(SMALL_ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    backbone.init_weights()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        downsampled = backbone.eval().downsample_layers[0](x)
        assert torch.equal(backbone.stages[0](downsampled), model.stages[0](model.stem(x)))
    classifier = Classifier()
    classifier.load_state_dict(adapt_state_dict(checkpoint['state_dict'], classifier))
    assert relative_error(classifier.eval()(x), model(x)) < 1e-6


def exercise_in_timm():
    import timm
    import torch
    from helpers import SMALL_ARCH, randomise

    import unireplknet_mm.integrations.timm  # noqa: F401

    model = randomise(timm.create_model('unireplknet_a', arch=SMALL_ARCH)).eval()
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    folded = timm.utils.reparameterize_model(model)
    with torch.no_grad():
        return dict(plain=model(x), folded=folded(x), maps=model.forward_intermediates(x)[1][0])


def test_timm_and_mmengine_suffice(tmp_path):
    hidden = ('mmcv', 'mmdet', 'mmseg', 'mmpretrain')
    result = tmp_path / 'result.pth'
    code = (
        'import sys\n'
        'from hidden_packages import hide\n'
        f'hide(*{hidden!r})\n'
        'import torch\n'
        'import unireplknet_mm\n'
        "assert 'timm' not in sys.modules\n"
        f'{inspect.getsource(exercise_in_timm)}'
        f'torch.save(exercise_in_timm(), {str(result)!r})\n'
        f'assert not set({hidden!r}) & set(sys.modules)\n'
    )
    paths = [str(ROOT), str(ROOT / 'ops'), str(ROOT / 'tests')]
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    actual, expected = torch.load(result), exercise_in_timm()
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key


def test_without_timm(monkeypatch):
    def refuse(name, *args, **kwargs):
        if name.partition('.')[0] == 'timm':
            raise ModuleNotFoundError("No module named 'timm'", name='timm')
        return real_import(name, *args, **kwargs)

    real_import = builtins.__import__
    monkeypatch.setattr(builtins, '__import__', refuse)
    with pytest.raises(MissingPackageError, match=r'extra, unireplknet-mm\[timm\]'):
        importlib.reload(integration)


@pytest.mark.parametrize(('output_stride', 'reductions'), [(8, [4, 8, 8, 8]), (16, [4, 8, 16, 16])])
def test_output_stride(output_stride, reductions):
    features = small(features_only=True, output_stride=output_stride).eval()
    assert features.feature_info.reduction() == reductions
    with torch.no_grad():
        maps = features(torch.randn(1, 3, 96, 96))
    assert [96 // feature.shape[2] for feature in maps] == reductions
    model = small(output_stride=output_stride)
    assert model.state_dict().keys() == small().state_dict().keys()
