"""tools/publish.py: what it writes, and that timm and the suite build the same model from it."""

import hashlib
import json

import pytest
import torch
from helpers import fill_hub_cache, published_weights, randomise, relative_error, save
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tool_runs import CONFIGS, ROOT

from unireplknet_mm.configuration import drop_pretrained
from unireplknet_mm.models.whole_model import switch_to_deploy
from unireplknet_mm.weights.reading import load_checkpoint

pytest.importorskip('safetensors', reason='safetensors is not installed')

CLS, DET = CONFIGS / 'cls_small.py', CONFIGS / 'det_small.py'
OPTIONS = ('--cfg-options', 'model.head.num_classes=7')


@pytest.fixture(scope='module')
def classifier():
    """A classifier of `cls_small.py` with seven classes and random weights."""
    cfg = Config.fromfile(CLS)
    cfg.model.head.num_classes = 7
    init_default_scope(cfg.default_scope)
    return randomise(MODELS.build(cfg.model)).eval()


@pytest.fixture
def checkpoint(classifier, tmp_path):
    """As a training leaves it."""
    meta = dict(epoch=3, iter=9, dataset_meta=dict(classes=tuple('abcdefg')))
    content = dict(
        meta=meta,
        state_dict=classifier.state_dict(),
        optimizer=dict(state={}),
        message_hub=dict(log_scalars={}),
    )
    return save(tmp_path / 'epoch_3.pth', content)


def logits(classifier, x):
    with torch.no_grad():
        return (
            classifier(x, mode='tensor') if hasattr(classifier, 'extract_feat') else classifier(x)
        )


@pytest.mark.parametrize('deploy', [False, True])
def test_timm_builds_the_model_from_the_folder(call, classifier, checkpoint, tmp_path, deploy):
    timm = pytest.importorskip('timm', reason='timm is not installed')
    import unireplknet_mm.integrations.timm  # noqa: F401

    folder = tmp_path / 'published'
    output = call('publish', CLS, checkpoint, folder, *OPTIONS, *['--deploy'] * deploy)
    stem = 'cls_small-deploy' if deploy else 'cls_small'
    (weights,) = folder.glob('*.safetensors')
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert weights.name == f'{stem}-{digest[:8]}.safetensors' and weights.name in output
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ['README.md', 'config.json', weights.name]
    )
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    assert model.deploy == deploy
    x = torch.randn(2, 3, 64, 48)
    assert relative_error(model(x), logits(classifier, x)) < (2e-5 if deploy else 1e-6)
    names = {name.partition('.')[0] for name in load_checkpoint(weights)['state_dict']}
    assert names == {'stem', 'stages', 'head'}
    cfg = model.pretrained_cfg
    assert (cfg['num_classes'], cfg['label_names']) == (7, list('abcdefg'))
    assert cfg['mean'] == pytest.approx((0.485, 0.456, 0.406))
    assert cfg['std'] == pytest.approx((0.229, 0.224, 0.225))
    other = timm.create_model(f'local-dir:{folder}', pretrained=True, num_classes=3, in_chans=1)
    assert other.head.fc.weight.shape == (3, 32) and other.stem[0].weight.shape[1] == 1


def test_what_the_config_changes_of_the_backbone_comes_along(call, tmp_path):
    timm = pytest.importorskip('timm', reason='timm is not installed')
    import unireplknet_mm.integrations.timm  # noqa: F401

    config = tmp_path / 'own.py'
    backbone = 'branches={7: ((3, 1), (3, 3))}, layer_scale_init_value=0.0, in_channels=2'
    config.write_text(
        f"_base_ = '{CLS}'\n"
        f'model = dict(backbone=dict({backbone}), head=dict(num_classes=7))\n'
        'data_preprocessor = dict(mean=[51.0, 102.0], std=[255.0, 127.5])\n'
        'input_shape = (2, 32, 40)\n'
    )
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    classifier = randomise(MODELS.build(cfg.model)).eval()
    path = save(tmp_path / 'x.pth', dict(state_dict=classifier.state_dict()))
    call('publish', config, path, tmp_path / 'out')
    model = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    x = torch.randn(1, 2, 64, 64)
    assert relative_error(model(x), logits(classifier, x)) < 1e-6
    names = {name for name, _ in model.named_modules()}
    assert any(name.endswith('dil_conv_k3_3') for name in names)
    assert not any(name.endswith('dil_conv_k5_1') for name in names)
    assert model.pretrained_cfg['mean'] == pytest.approx((0.2, 0.4))
    assert model.pretrained_cfg['std'] == pytest.approx((1.0, 0.5))
    bgr = ('--cfg-options', 'data_preprocessor.to_rgb=False')
    assert 'No config.json' in call('publish', config, path, tmp_path / 'bgr', *bgr)
    assert not (tmp_path / 'bgr' / 'config.json').exists()


def test_timm_builds_the_model_from_the_hub(call, classifier, checkpoint, tmp_path, hub_cache):
    timm = pytest.importorskip('timm', reason='timm is not installed')
    import unireplknet_mm.integrations.timm  # noqa: F401

    folder = tmp_path / 'published'
    call('publish', CLS, checkpoint, folder, *OPTIONS)
    for path in folder.iterdir():
        fill_hub_cache(hub_cache, 'me/net', path)
    model = timm.create_model('hf-hub:me/net', pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert relative_error(model(x), logits(classifier, x)) < 1e-6


@pytest.mark.parametrize('deploy', [False, True])
def test_the_suite_tests_and_publishes_what_was_published(
    call, classifier, checkpoint, tmp_path, deploy
):
    call('publish', CLS, checkpoint, tmp_path / 'a', *OPTIONS, *['--deploy'] * deploy)
    (weights,) = (tmp_path / 'a').glob('*.safetensors')
    call('publish', CLS, weights, tmp_path / 'b', *OPTIONS)
    (again,) = (tmp_path / 'b').glob('*.safetensors')
    assert again.name == weights.name and again.read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(
    ('arch', 'config', 'preparation'),
    [
        ('a', 'unireplknet_a_in1k', dict(crop_pct=224 / 256, interpolation='bicubic')),
        (
            's',
            'unireplknet_s_in22k_to_in1k_384',
            dict(crop_pct=1.0, crop_mode='squash', interpolation='bicubic'),
        ),
    ],
)
def test_the_config_of_a_published_file_is_that_of_the_registry(
    call, tmp_path, arch, config, preparation
):
    timm = pytest.importorskip('timm', reason='timm is not installed')
    import unireplknet_mm.integrations.timm  # noqa: F401

    path = save(tmp_path / 'x.pth', published_weights(arch))
    call('publish', ROOT / 'configs' / 'cls' / f'{config}.py', path, tmp_path / 'out')
    written = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert written['architecture'] == f'unireplknet_{arch}' and written['model_args'] == {}
    tag = dict(a='in1k', s='in22k_ft_in1k_384')[arch]
    expected = timm.get_pretrained_cfg(f'unireplknet_{arch}.{tag}').to_dict()
    cfg = written['pretrained_cfg']
    for key in (
        'input_size',
        'pool_size',
        'mean',
        'std',
        'num_classes',
        'first_conv',
        'classifier',
    ):
        value = list(expected[key]) if isinstance(expected[key], tuple) else expected[key]
        assert cfg[key] == (pytest.approx(value) if key in ('mean', 'std') else value), key
    assert {key: cfg[key] for key in preparation} == preparation
    assert {key: expected[key] for key in preparation} == preparation


def test_the_model_card(call, checkpoint, tmp_path):
    scores = tmp_path / '20260101_000000.json'
    scores.write_text(
        '{"lr": 0.1, "step": 1}\n{"accuracy/top1": 83.912, "data_time": 0.1, "time": 1, "step": 9}\n'
    )
    arguments = ('--repository', 'me/net', '--license', 'mit', '--scores', scores)
    figures = ('--figure', 'top-1 (paper)=83.9', 'epochs=300')
    call('publish', CLS, checkpoint, tmp_path / 'out', *OPTIONS, *arguments, *figures)
    card = (tmp_path / 'out' / 'README.md').read_text()
    (weights,) = (tmp_path / 'out').glob('*.safetensors')
    header = card.split('---')[1].split()
    for entry in ('library_name: timm', 'license: mit', 'pipeline_tag: image-classification'):
        assert ' '.join(entry.split()) in ' '.join(header)
    for line in (
        '| accuracy/top1 | 83.91 (measured) |',
        '| top-1 (paper) | 83.9 (stated) |',
        '| epochs | 300 (stated) |',
        '| form | the training structure |',
        "model = timm.create_model('hf-hub:me/net', pretrained=True)",
        f'python tools/test.py cls_small.py hf://me/net/{weights.name}',
    ):
        assert line in card.splitlines()
    assert 'time' not in card


def test_a_detector(call, tmp_path):
    cfg = Config.fromfile(DET)
    drop_pretrained(cfg.model, lambda name: True)
    init_default_scope(cfg.default_scope)
    detector = randomise(MODELS.build(cfg.model))
    path = save(tmp_path / 'det.pth', dict(state_dict=detector.state_dict()))
    output = call('publish', DET, path, tmp_path / 'out', '--deploy')
    assert 'No config.json' in output
    (weights,) = (tmp_path / 'out').glob('*.safetensors')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['README.md', weights.name]
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert 'library_name: unireplknet-mm' in card and 'pipeline_tag: object-detection' in card
    assert '| form | re-parameterized, for inference |' in card and 'import timm' not in card
    loaded = load_checkpoint(weights)['state_dict']
    switch_to_deploy(detector)
    assert loaded.keys() == detector.state_dict().keys()
    for name, value in detector.state_dict().items():
        assert torch.allclose(loaded[name], value), name


def test_what_is_refused(call, checkpoint, tmp_path):
    full = tmp_path / 'full'
    full.mkdir()
    (full / 'x').touch()
    assert 'is not empty' in call('publish', CLS, checkpoint, full, status=1)
    out = tmp_path / 'out'
    assert 'was not trained with' in call('publish', CLS, checkpoint, out, status=1)  # 1000 classes
    assert 'does not exist' in call('publish', CLS, tmp_path / 'no.pth', out, status=1)
    for text in ('', 'x', '{"step": 1}'):
        (tmp_path / 'scores.json').write_text(text)
        arguments = (CLS, checkpoint, out, '--scores', tmp_path / 'scores.json')
        assert 'figures of a test' in call('publish', *arguments, status=1)
    assert '--figure takes NAME=VALUE' in call(
        'publish', CLS, checkpoint, out, '--figure', 'x', status=2
    )
    assert '--repository takes OWNER/NAME' in call(
        'publish', CLS, checkpoint, out, '--repository', 'x', status=2
    )
    assert not out.exists()
    out.mkdir()
    call('publish', CLS, checkpoint, out, status=1)
    assert out.is_dir(), 'it was there before'


def test_nothing_is_left_of_files_that_do_not_fit(call, checkpoint, tmp_path, monkeypatch):
    from unireplknet_mm import files

    write = files.write_bytes

    def refuse(path, content):
        if path.name == 'README.md':
            raise files.NoSpaceError(f'{path} cannot be written')
        write(path, content)

    monkeypatch.setattr(files, 'write_bytes', refuse)
    out = tmp_path / 'out'
    error = call('publish', CLS, checkpoint, out, *OPTIONS, status=1)
    assert f'{out / "README.md"} cannot be written' in error
    assert not out.exists()
