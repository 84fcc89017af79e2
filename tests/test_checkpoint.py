"""Reading checkpoints safely, the forms in which weights are published, and what is refused.

The published files cannot be downloaded here. Files of the same form stand in for them, with the
names and shapes of `golden/*_keys.json`, every tensor filled with a number of its own.
"""

import argparse
import collections
import functools
import json
import os
import re
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, randomise
from mmengine.config import ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, FlexibleRunner, Runner, get_priority
from mmengine.runner import load_checkpoint as mmengine_load_checkpoint
from torch import nn

from unireplknet_mm import checkpoint as checkpoints
from unireplknet_mm.checkpoint import (
    PUBLISHED,
    CheckpointError,
    adapt_state_dict,
    extract_backbone_state_dict,
    load_checkpoint_file,
)
from unireplknet_mm.models import UniRepLKNet

GOLDEN = Path(__file__).parent / 'golden'


def published_weights(arch: str, structure: str = 'train') -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the reference; tensor number i is filled with i.

    Each tensor is one stored number, expanded, so that a file is small whatever the arch.
    """
    keys = json.loads((GOLDEN / f'unireplknet_{arch}_keys.json').read_text())[structure]
    return {
        name: torch.tensor(i if name.endswith('num_batches_tracked') else float(i)).expand(shape)
        for i, (name, shape) in enumerate(keys.items())
    }


def without(weights: dict, *prefixes: str) -> dict:
    return {name: value for name, value in weights.items() if not name.startswith(prefixes)}


def detector_weights(arch: str, structure: str = 'train', prefix: str = 'backbone.') -> dict:
    """As in a published detector: four output norms, no final norm, other parts."""
    body = without(published_weights(arch, structure), 'norm.', 'head.')
    for i in range(4):
        channels = len(
            body[f'downsample_layers.{i}.0.weight' if i else 'downsample_layers.0.3.weight']
        )
        body |= {f'norm{i}.{name}': torch.full((channels,), 7.0 + i) for name in ('weight', 'bias')}
    weights = {prefix + name: value for name, value in body.items()}
    return weights | {
        'neck.conv.weight': torch.zeros(2, 2),
        'bbox_head.fc.weight': torch.ones(3, 2),
    }


def assert_body_loaded(backbone: UniRepLKNet, weights: dict[str, torch.Tensor]) -> None:
    loaded = backbone.state_dict()
    body = {name for name in loaded if name.startswith(('stages.', 'downsample_layers.'))}
    assert body
    for name in body:
        assert torch.equal(loaded[name], weights[name].to(loaded[name].dtype)), name


class Model(BaseModel):
    """A backbone, a neck and a head, for what does not depend on the toolbox."""

    def __init__(self, backbone: UniRepLKNet, num_classes: int = 3):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Sequential(collections.OrderedDict(conv=nn.Linear(2, 2, bias=False)))
        self.bbox_head = nn.Sequential(collections.OrderedDict(fc=nn.Linear(2, num_classes)))

    def forward(self, inputs=None, mode='tensor', **kwargs):
        x = self.bbox_head(self.neck(torch.ones(1, 2)))
        return dict(loss=x.square().sum()) if mode == 'loss' else [x]


class Samples(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'), palette=np.zeros((2, 3)))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


def build_runner(tmp_path, model, hooks=(), **options) -> Runner:
    loader = dict(batch_size=1, dataset=Samples(), sampler=dict(type='DefaultSampler'))
    return Runner(
        model,
        str(tmp_path / 'work_dir'),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=options.pop('max_epochs', 1)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[dict(type='MultiStepLR', milestones=[1])],
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=Evaluator([]),
        custom_hooks=[dict(type='CheckpointCheckHook'), *hooks],
        default_scope='mmengine',
        experiment_name=f'{tmp_path.name}{len(os.listdir(tmp_path))}',
        **options,
    )


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What is logged to MMEngine's current logger."""
    lines = []
    handle = MMLogger.get_current_instance().handle
    monkeypatch.setattr(
        MMLogger.get_current_instance(),
        'handle',
        lambda record: (lines.append(record.getMessage()), handle(record)),
    )
    return lines


# Reading a file.


def save(path: Path, content, **options) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_reads_what_trainers_store_beside_tensors(tmp_path, zipped):
    counts = collections.defaultdict(list)
    counts['a'].append(1)
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    content = dict(
        model={'weight': torch.ones(2)},
        args=argparse.Namespace(lr=1e-3, input_size=(3, 224), score=np.float64(0.5)),
        ordered=collections.OrderedDict(a=1),
        counts=counts,
        milestones=collections.Counter([1, 1]),
        meta=ConfigDict(classes=('a',), nested=dict(x=1)),
        message_hub=dict(log_scalars=dict(loss=history), best=np.float32(2), flag=np.bool_(True)),
        palette=np.arange(6, dtype=np.uint8).reshape(2, 3),
        names=np.array(['a', 'bc']),
        dtype=torch.bfloat16,
        size=torch.Size([2]),
    )
    loaded = load_checkpoint_file(
        save(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped)
    )
    assert torch.equal(loaded['model']['weight'], torch.ones(2))
    assert loaded['args'] == content['args']
    assert loaded['counts'] == {'a': [1]}
    assert loaded['meta'].nested.x == 1
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 2
    assert loaded['message_hub']['log_scalars']['loss'].statistics('max') == 3
    assert loaded['message_hub']['best'] == 2
    assert loaded['palette'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded['names'].tolist() == ['a', 'bc']
    assert loaded['milestones'] == {1: 2}
    assert loaded['dtype'] is torch.bfloat16


def test_reads_numpy_values_that_another_numpy_release_wrote(tmp_path):
    path = save(tmp_path / 'x.pth', dict(a=np.float32(2), b=np.arange(3)))
    rewritten = tmp_path / 'y.pth'
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(rewritten, 'w') as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith('data.pkl'):
                here, there = b'numpy._core.multiarray', b'numpy.core.multiarray'
                if here not in content:
                    here, there = there, here
                assert here in content
                content = content.replace(here, there)
            new.writestr(name, content)
    loaded = load_checkpoint_file(rewritten)
    assert loaded['a'] == 2
    assert loaded['b'].tolist() == [0, 1, 2]


class RunsCode:
    def __reduce__(self):
        return (os.mkdir, (os.environ['UNIREPLKNET_TEST_DIRECTORY'],))


class LooksUpAnything:
    def __reduce__(self):
        return (getattr, (HistoryBuffer, '__init__'))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_a_file_that_runs_code_is_refused_and_the_message_says_how_to_allow_it(
    tmp_path, monkeypatch, zipped
):
    made_by_file = tmp_path / 'made'
    monkeypatch.setenv('UNIREPLKNET_TEST_DIRECTORY', str(made_by_file))
    path = save(tmp_path / 'x.pth', dict(a=RunsCode()), _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as info:
        load_checkpoint_file(path)
    assert not made_by_file.exists()
    assert str(path) in str(info.value)
    assert '.mkdir' in str(info.value)
    assert 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1' in str(info.value)
    with pytest.raises(CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(str(path))
    assert not made_by_file.exists()

    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    assert load_checkpoint_file(path) == dict(a=None)
    assert made_by_file.is_dir()


def test_getattr_is_allowed_for_the_statistics_of_a_history_buffer_only(tmp_path):
    with pytest.raises(CheckpointError, match=r'refused.*getattr'):
        load_checkpoint_file(save(tmp_path / 'x.pth', dict(a=LooksUpAnything())))
    with pytest.raises(CheckpointError, match=r'refused.*linear\.Linear'):
        load_checkpoint_file(save(tmp_path / 'x.pth', nn.Linear(2, 2)))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_a_truncated_file_is_named_as_such_wherever_it_ends(tmp_path, zipped):
    content = {f'a{i}': torch.rand(3, 3) for i in range(3)} | dict(epoch=1)
    path = save(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in [*range(16, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as info:
            load_checkpoint_file(path)
        # The old format may end within the name of a class, which then is an unknown one.
        expected = ' is truncated or corrupt' if zipped else ' is (truncated or corrupt|refused)'
        assert re.match(re.escape(f'checkpoint {path}') + expected, str(info.value)), length


def test_a_truncated_file_of_many_tensors(tmp_path):
    """Cut to some lengths, torch seeks to a place before the beginning of the archive."""
    path = save(tmp_path / 'x.pth', UniRepLKNet('a').state_dict())
    whole = path.read_bytes()
    for length in [*range(1000, 100_000, 3001), *range(100_000, len(whole), 1_500_017)]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match='is truncated or corrupt'):
            load_checkpoint_file(path)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_a_corrupt_byte_never_gives_another_error(tmp_path, zipped):
    """What is changed within a tensor's numbers cannot be noticed."""
    content = {f'a{i}': torch.rand(3, 3) for i in range(3)} | dict(epoch=1)
    path = save(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    noticed = 0
    for _ in range(150):
        corrupt = bytearray(whole)
        corrupt[generator.integers(4, len(whole))] ^= int(generator.integers(1, 256))
        path.write_bytes(corrupt)
        try:
            load_checkpoint_file(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 20


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html><html>', "begins with b'<!DOCTYPE html><'.*download went wrong"),
        (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
        (b'\x80\x02' + bytes(range(256)), 'truncated or corrupt'),
    ],
)
def test_what_is_no_checkpoint_is_named_as_such(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as info:
        load_checkpoint_file(path)
    assert str(path) in str(info.value)


def test_other_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'b')
    with pytest.raises(CheckpointError, match=r'not one that torch.save wrote'):
        load_checkpoint_file(path)
    with pytest.raises(CheckpointError, match='holds a Tensor, not a checkpoint'):
        load_checkpoint_file(save(path, torch.ones(2)))
    with pytest.raises(CheckpointError, match='no weights in the checkpoint: it holds epoch, lr'):
        extract_backbone_state_dict(load_checkpoint_file(save(path, dict(epoch=1, lr=2))))


def test_a_missing_file_or_a_directory_is_named_with_a_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing.pth does not exist'):
        load_checkpoint_file(tmp_path / 'nothing.pth')
    with pytest.raises(IsADirectoryError, match='holds no'):
        load_checkpoint_file(tmp_path)
    save(tmp_path / 'epoch_1.pth', {})
    with pytest.raises(IsADirectoryError, match=r'such as epoch_1.pth'):
        load_checkpoint_file(tmp_path)
    weights = PUBLISHED['unireplknet_t_in1k']
    with pytest.raises(FileNotFoundError, match=f'download it from {weights.url}'):
        load_checkpoint_file(tmp_path / weights.file_name)


def test_a_reason_outside_the_file_is_passed_on(tmp_path):
    path = save(tmp_path / 'x.pth', dict(a=torch.ones(2)))
    with pytest.raises(RuntimeError, match='no such place'):
        load_checkpoint_file(path, map_location=raise_no_such_place)


def raise_no_such_place(storage, location):
    raise RuntimeError('no such place')


@pytest.fixture
def web_server(tmp_path):
    """Serves a folder of this machine, and counts what was asked for."""
    folder = tmp_path / 'served'
    folder.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    server = ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f'http://127.0.0.1:{server.server_port}', asked
    server.shutdown()
    server.server_close()


def test_downloads_are_read_safely_and_once(tmp_path, monkeypatch, web_server):
    folder, address, asked = web_server
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('UNIREPLKNET_TEST_DIRECTORY', str(tmp_path / 'made'))
    save(folder / 'good.pth', dict(a=torch.ones(2)))
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(f'{address}/good.pth?download=true')
        assert torch.equal(loaded['a'], torch.ones(2))
    assert len(asked) == 1

    save(folder / 'bad.pth', dict(a=RunsCode()))
    with pytest.raises(CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(f'{address}/bad.pth')
    assert not (tmp_path / 'made').exists()

    (folder / 'page.pth').write_text('<html>')
    cached = tmp_path / 'cache' / 'hub' / 'checkpoints' / 'page.pth'
    with pytest.raises(CheckpointError, match=f'not a checkpoint[\\s\\S]*delete {cached}'):
        CheckpointLoader.load_checkpoint(f'{address}/page.pth')

    with pytest.raises(OSError, match=r'cannot download .*nothing.pth .*404'):
        CheckpointLoader.load_checkpoint(f'{address}/nothing.pth')
    with pytest.raises(OSError, match='cannot download'):
        CheckpointLoader.load_checkpoint('http://127.0.0.1:1/x.pth')


# Published forms.


def test_the_table_of_published_weights():
    assert len({weights.file_name for weights in PUBLISHED.values()}) == len(PUBLISHED)
    for name, weights in PUBLISHED.items():
        assert weights.arch in UniRepLKNet.ARCHITECTURES
        assert f'unireplknet_{weights.arch}_' in name
        assert f'unireplknet_{weights.arch}_' in weights.file_name
        assert weights.url.endswith(f'/resolve/main/{weights.file_name}')
        assert weights.file_name.endswith('.pth')
        if 'in1k' in name and name.startswith('unireplknet') and weights.figure:
            measured = float(weights.file_name.removesuffix('.pth').rpartition('acc')[2])
            assert abs(measured - float(weights.figure.removeprefix('top-1 '))) <= 0.051
            assert f'_{weights.resolution}_' in weights.file_name


def averaged_by_mmdet_2(weights: dict) -> dict:
    return weights | {
        'ema_' + name.replace('.', '_'): torch.zeros_like(value) for name, value in weights.items()
    }


FORMS = {
    'raw, the state dict itself': lambda raw, detector: raw,
    'raw, with arguments': lambda raw, detector: dict(model=raw, args=argparse.Namespace(lr=1)),
    'raw, average only': lambda raw, detector: dict(model_ema=raw, epoch=3),
    'detector': lambda raw, detector: dict(meta=dict(epoch=36), state_dict=detector, optimizer={}),
    'detector, saved by a wrapper': lambda raw, detector: dict(
        state_dict={'module.' + name: value for name, value in detector.items()}
    ),
    'detector, averaged by mmdet 2': lambda raw, detector: dict(
        state_dict=averaged_by_mmdet_2(detector)
    ),
    'detector, averaged by MMEngine': lambda raw, detector: dict(
        state_dict=detector,
        ema_state_dict={'module.' + name: value * 0 for name, value in detector.items()},
    ),
}


@pytest.mark.parametrize('form', FORMS)
def test_a_backbone_is_initialised_from_every_published_form(tmp_path, log, form):
    path = save(tmp_path / 'x.pth', FORMS[form](published_weights('a'), detector_weights('a')))
    backbone = UniRepLKNet('a', init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    backbone.init_weights()
    assert_body_loaded(backbone, published_weights('a'))
    summary = log[-1]
    assert 'UniRepLKNet-A' in summary
    assert str(path) in summary
    if form.startswith('raw'):
        assert torch.equal(backbone.norm3.weight, torch.ones(320))
        assert 'initialised anew: norm0, norm1, norm2, norm3' in summary
        assert 'Not used: head, norm' in summary
    else:
        assert torch.equal(backbone.norm3.weight, torch.full((320,), 10.0))
        assert 'anew' not in summary


@pytest.mark.parametrize('arch', ['a', 'n', 't', 's'])
def test_published_names_fit_the_classifier_of_every_golden_arch(arch):
    with torch.device('meta'):
        backbone = UniRepLKNet(arch, out_indices=(3,), gap_before_final_norm=True)
    raw = without(published_weights(arch), 'head.')
    checkpoints.check_backbone_weights(backbone, raw)
    assert backbone.state_dict().keys() == raw.keys()


def test_a_raw_file_becomes_an_image_classifier(tmp_path):
    from mmpretrain.models import ImageClassifier

    weights = published_weights('a')
    model = ImageClassifier(
        backbone=dict(type='UniRepLKNet', arch='a', out_indices=(3,), gap_before_final_norm=True),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=320),
    )
    adapted = adapt_state_dict(weights, model)
    model.load_state_dict(adapted, strict=True)
    assert_body_loaded(model.backbone, weights)
    assert torch.equal(model.backbone.norm.bias, weights['norm.bias'])
    assert torch.equal(model.head.fc.weight, weights['head.weight'])
    assert adapt_state_dict(adapted, model) is adapted


def test_a_raw_file_gives_a_detector_its_backbone_only():
    model = Model(UniRepLKNet('a'))
    adapted = adapt_state_dict(published_weights('a'), model)
    assert adapted.keys() < model.state_dict().keys()
    assert all(name.startswith(('backbone.stages.', 'backbone.downsample_')) for name in adapted)
    model.load_state_dict(adapted, strict=False)
    assert_body_loaded(model.backbone, published_weights('a'))


def test_a_detector_is_left_as_it_is():
    weights = detector_weights('a')
    assert adapt_state_dict(weights, Model(UniRepLKNet('a'))) is weights
    assert adapt_state_dict(weights, nn.Linear(2, 2)) is weights


# What does not fit.


def expect_refusal(weights: dict, backbone: UniRepLKNet, message: str, tmp_path: Path) -> None:
    """By each way in: a model's state dict, and a backbone's init_cfg, which also names the file."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message) as info:
        adapt_state_dict(weights, Model(backbone))
    assert len(str(info.value).splitlines()) <= 2
    path = save(tmp_path / 'x.pth', weights)
    with pytest.raises(CheckpointError, match=message) as info:
        checkpoints.load_backbone_weights(backbone, str(path))
    assert str(path) in str(info.value)
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize('weights', [published_weights, detector_weights])
def test_another_structure_is_refused(tmp_path, weights):
    expect_refusal(weights('a', 'deploy'), UniRepLKNet('a'), 'deploy=True', tmp_path)
    expect_refusal(weights('a'), UniRepLKNet('a', deploy=True), 'switch_to_deploy', tmp_path)
    deployed = UniRepLKNet('a', deploy=True)
    adapt_state_dict(weights('a', 'deploy'), Model(deployed))


@pytest.mark.parametrize('weights', [published_weights, detector_weights])
def test_another_arch_is_refused_by_name(tmp_path, weights):
    expect_refusal(
        weights('n'),
        UniRepLKNet('a'),
        r'weights are of UniRepLKNet-N \(depths 2 2 8 2, channels 80 160 320 640\), the model is '
        r'UniRepLKNet-A \(depths 2 2 6 2, channels 40 80 160 320\)',
        tmp_path,
    )
    expect_refusal(
        weights('a'),
        UniRepLKNet(SMALL_ARCH),
        'the model is a UniRepLKNet of depths 1 1 3 1',
        tmp_path,
    )
    # n and t have the same channels: without the check, eight blocks of stage 3 would be filled.
    with torch.device('meta'):
        backbone = UniRepLKNet('t')
    with pytest.raises(CheckpointError, match=r'UniRepLKNet-N .* the model is UniRepLKNet-T '):
        adapt_state_dict(weights('n'), Model(backbone))


def test_other_kernels_branches_or_parameters_are_refused(tmp_path):
    kernel_sizes = ((3, 3), (13, 13), (13,) * 5 + (11,), (13, 13))
    arch = dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320), kernel_sizes=kernel_sizes)
    expect_refusal(published_weights('a'), UniRepLKNet(arch), 'kernel sizes .*13, 11', tmp_path)
    expect_refusal(
        published_weights('a'),
        UniRepLKNet('a', branches={13: ((5, 1), (3, 2))}),
        r'missing \(stages.1.0.dwconv.dil_conv_k3_2.weight, .*surplus .*dil_conv_k7_2',
        tmp_path,
    )
    expect_refusal(
        published_weights('a'),
        UniRepLKNet('a', in_channels=4),
        r'1 of another shape \(downsample_layers.0.0.weight \(20, 3, 3, 3\) instead of \(20, 4, 3, 3\)\)',
        tmp_path,
    )
    expect_refusal(
        without(published_weights('a'), 'stages.3.1.se'),
        UniRepLKNet('a'),
        r'do not match the backbone: 4 missing \(stages.3.1.se.down.weight',
        tmp_path,
    )


@pytest.mark.parametrize(
    ('names', 'network'),
    [
        (['conv1.weight', 'layer1.0.conv1.weight'], "a ResNet's"),
        (['downsample_layers.0.0.weight', 'stages.0.0.pwconv1.weight'], "a ConvNeXt's"),
        (['backbone.stages.0.0.pointwise_conv1.weight'], "a ConvNeXt's"),
        (['layers.0.blocks.0.attn.relative_position_bias_table'], "a Swin Transformer's"),
        (['cls_token', 'blocks.0.attn.qkv.weight'], "a vision transformer's"),
        (['stages.0.blocks.0.large_kernel.lkb_origin.conv.weight'], "a RepLKNet's"),
        (['fc.weight', 'fc.bias', 'x', 'y'], 'are named fc.weight, fc.bias, x, ...'),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, names, network):
    weights = {name: torch.ones(1) for name in names}
    message = f'not of a UniRepLKNet: they.* {network}'
    expect_refusal(weights, UniRepLKNet(SMALL_ARCH), message, tmp_path)


def test_weights_under_another_name_in_the_model_are_refused():
    weights = detector_weights('a', prefix='student.backbone.')
    with pytest.raises(CheckpointError, match=r"under 'student.backbone.', the model under 'backb"):
        adapt_state_dict(weights, Model(UniRepLKNet('a')))


# In MMEngine's runner.


def test_a_runner_resumes_its_own_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = Model(randomise(UniRepLKNet(SMALL_ARCH)))
    runner = build_runner(tmp_path, model, [dict(type='EMAHook')], load_from=None)
    runner.train()
    path = tmp_path / 'work_dir' / 'epoch_1.pth'
    assert path.is_file()

    again = Model(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(
        tmp_path, again, [dict(type='EMAHook')], load_from=str(path), resume=True, max_epochs=2
    )
    runner.train()
    assert runner.epoch == 2
    assert_body_loaded(again.backbone, model.backbone.state_dict())
    losses = runner.message_hub.get_scalar('train/loss')
    assert len(losses.data[0]) == 4  # of both runs, so that the log history was read


def test_training_starts_from_a_raw_file_and_from_a_detector_of_other_classes(tmp_path):
    """Heads of another shape are left alone, as fine-tuning needs it."""
    for name, weights in (('raw', published_weights('a')), ('det', detector_weights('a'))):
        path = save(tmp_path / f'{name}.pth', weights)
        model = Model(UniRepLKNet('a', frozen_stages=4, norm_eval=True), num_classes=5)
        head = model.bbox_head.fc.weight.shape
        runner = build_runner(tmp_path, model, [dict(type='EMAHook')], load_from=str(path))
        runner.train()
        assert_body_loaded(model.backbone, published_weights('a'))
        assert model.bbox_head.fc.weight.shape == head


def test_testing_refuses_weights_without_a_head_and_of_another_arch(tmp_path):
    path = save(tmp_path / 'raw.pth', published_weights('a'))
    runner = build_runner(tmp_path, Model(UniRepLKNet('a')), load_from=str(path))
    with pytest.raises(CheckpointError, match='for the backbone only, none for neck, bbox_head of'):
        runner.test()
    path = save(tmp_path / 'det.pth', dict(state_dict=detector_weights('n')))
    runner = build_runner(tmp_path, Model(UniRepLKNet('a')), load_from=str(path))
    with pytest.raises(CheckpointError, match=r'UniRepLKNet-N .* the model is UniRepLKNet-A'):
        runner.test()
    path = save(tmp_path / 'det.pth', dict(state_dict=detector_weights('a')))
    model = Model(UniRepLKNet('a'))
    build_runner(tmp_path, model, load_from=str(path)).test()
    assert torch.equal(model.bbox_head.fc.weight, torch.ones(3, 2))


def test_the_hook_runs_before_those_that_read_the_state_dict():
    check, average = (HOOKS.build(dict(type=name)) for name in ('CheckpointCheckHook', 'EMAHook'))
    assert get_priority(check.priority) < get_priority(average.priority)


def test_the_hook_leaves_the_shards_of_a_flexible_runner_alone(tmp_path):
    runner = FlexibleRunner(
        Model(UniRepLKNet(SMALL_ARCH)),
        work_dir=str(tmp_path),
        experiment_name=tmp_path.name,
        custom_hooks=[dict(type='CheckpointCheckHook')],
    )
    checkpoint = dict(meta=dict(epoch=1))
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    assert checkpoint == dict(meta=dict(epoch=1))


def test_mmengine_load_checkpoint_also_reads_safely(tmp_path):
    model = UniRepLKNet(SMALL_ARCH)
    randomise(model)
    path = save(tmp_path / 'x.pth', dict(state_dict=model.state_dict()))
    again = UniRepLKNet(SMALL_ARCH)
    mmengine_load_checkpoint(again, str(path), strict=True)
    assert_body_loaded(again, model.state_dict())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match='truncated'):
        mmengine_load_checkpoint(again, str(path))
