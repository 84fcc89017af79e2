"""Whole swaps: the written file is read, its model is built and has gradients everywhere in the backbone.

`scripts/swap_table.py` does the same with all `published_configs.py`; here is a sample with a small backbone.
"""

import pytest
import torch
from helpers import SMALL_ARCH
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn

from unireplknet_mm.errors import ExistingFileError
from unireplknet_mm.mmcv_ops import MissingOpError
from unireplknet_mm.swapping import SwapError, locate_config, swap_backbone, trial

RETINANET = 'mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py'


@pytest.fixture
def swap(tmp_path):
    """Swap by path: MMEngine reads every metafile of a package for `mmdet::`."""

    def swap(name: str, arch=SMALL_ARCH, **options):
        out = tmp_path / 'swapped.py'
        return swap_backbone(locate_config(name), arch, out=out, **options), out

    return swap


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        (RETINANET, {}),
        ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', dict(layer_decay=True)),
        (
            'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            dict(output_stride=8),
        ),
        ('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', {}),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', dict(keep_optimizer=True)),
    ],
    ids=lambda value: value.rpartition('/')[2] if isinstance(value, str) else '',
)
def test_swapped_model_trains(swap, name, options):
    swapped, out = swap(name, **options)
    assert swapped.trial.obstacle is None and swapped.trial.loss > 0
    text = out.read_text()
    assert text == swapped.text and len(text.splitlines()) < 200
    assert 'What differs from the original, and why' in text and 'Tried on random images' in text
    read = Config.fromfile(out)
    assert read.model.backbone.type == 'UniRepLKNet'
    assert read.custom_imports.imports[-1] == 'unireplknet_mm'
    original = Config.fromfile(locate_config(name))
    assert read.train_dataloader.batch_size == original.train_dataloader.batch_size  # inherited
    for change in swapped.changes:
        assert change.place.split('.')[-1] in text.replace('\n  ', ' ')


def test_changed_pipeline_is_written_once(swap):
    swapped, out = swap('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py')
    assert out.read_text().count("type='Expand'") == 1
    assert 'pipeline=train_pipeline' in out.read_text()
    assert swapped.config.train_dataloader.dataset.pipeline == swapped.config.train_pipeline


def test_installed_config_is_inherited_by_its_name_or_its_path(tmp_path):
    out = tmp_path / 'swapped.py'
    swapped = swap_backbone('mmpretrain::resnet/resnet50_8xb32_in1k.py', SMALL_ARCH, out=out)
    path = locate_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    base = out.read_text().partition('_base_ = ')[2].partition('\n')[0]
    assert base in ("'mmpretrain::resnet/resnet50_8xb32_in1k.py'", repr(str(path.resolve())))
    assert swapped.config.model.head.num_classes == 1000


def test_existing_file_is_left_alone(swap, tmp_path):
    (tmp_path / 'swapped.py').write_text('mine = 1')
    with pytest.raises(ExistingFileError, match='name another file with --out'):
        swap(RETINANET)
    assert (tmp_path / 'swapped.py').read_text() == 'mine = 1'


@pytest.mark.parametrize('name', ['swapped', 'swapped.txt', 'swapped.yaml'])
def test_file_that_is_no_config_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(SwapError, match=r'does not end in \.py'):
        swap_backbone('mmdet::no/such.py', SMALL_ARCH, out=tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('no/such.py', 'config no/such.py does not exist. One of an installed toolbox'),
        ('mmdet::no/such.py', r'does not exist. To see those that do: ls .*configs'),
        ('mmnothing::a/b.py', 'the package mmnothing is not installed'),
    ],
)
def test_missing_configs_are_named(tmp_path, name, message):
    with pytest.raises(SwapError, match=message):
        swap_backbone(name, SMALL_ARCH, out=tmp_path / 'swapped.py')
    assert not list(tmp_path.iterdir())


def test_config_without_a_model_is_named(tmp_path):
    config = tmp_path / 'data.py'
    config.write_text('a = 1')
    with pytest.raises(SwapError, match='has no model'):
        swap_backbone(config, SMALL_ARCH, out=tmp_path / 'swapped.py')


def test_pure_python_config_is_refused(tmp_path):
    config = tmp_path / 'new.py'
    config.write_text(
        'from mmengine.config import read_base\nwith read_base():\n    from .a import *\n'
    )
    with pytest.raises(SwapError, match='pure Python style'):
        swap_backbone(config, SMALL_ARCH, out=tmp_path / 'swapped.py')


def test_model_that_fails_leaves_no_file(swap, tmp_path, monkeypatch):
    def fail(config):
        if config['model']['backbone']['type'] == 'UniRepLKNet':
            raise trial.TrialError('3 parameters of the backbone get no gradient: norm0.weight')
        return trial.Trial(1.0)

    monkeypatch.setattr('unireplknet_mm.swapping.try_model', fail)
    monkeypatch.setattr(trial, 'try_model', fail)
    with pytest.raises(SwapError, match='does not work, TrialError: 3 parameters'):
        swap(RETINANET)
    assert not list(tmp_path.iterdir())


def test_what_only_the_original_lacks_excuses_no_failure(swap, tmp_path, monkeypatch):
    def fail(config):
        if config['model']['backbone']['type'] == 'UniRepLKNet':
            raise trial.TrialError('3 parameters of the backbone get no gradient: norm0.weight')
        return trial.Trial(None, "it needs mmcv's compiled op modulated_deform_conv_forward")

    monkeypatch.setattr('unireplknet_mm.swapping.try_model', fail)
    monkeypatch.setattr(trial, 'try_model', fail)
    with pytest.raises(SwapError, match='does not work, TrialError: 3 parameters'):
        swap(RETINANET)
    assert not list(tmp_path.iterdir())


def test_model_that_cannot_be_tried_here_is_written_and_says_so(swap, monkeypatch):
    def fail(config):
        raise OSError('we are offline: no tokenizer')

    monkeypatch.setattr('unireplknet_mm.swapping.try_model', fail)
    monkeypatch.setattr(trial, 'try_model', fail)
    swapped, out = swap(RETINANET)
    assert swapped.trial.loss is None
    assert (
        'the original does not work here either: OSError: we are offline'
        in out.read_text().replace('\n', ' ')
    )


# The trial itself


class Broken(nn.Module):
    """A model of one backbone, which goes wrong as asked for."""

    def __init__(self, problem: str):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.problem = problem

    def data_preprocessor(self, batch, training):
        return {}

    def parse_losses(self, losses):
        return losses, {}

    def forward(self, mode):
        weight, bias = self.backbone.weight.sum(), self.backbone.bias.sum()
        return dict(
            loss=weight * float('nan'),
            gradient=weight + bias.sub(bias.detach()).sqrt(),
            unused=weight,
            zero=0 * (weight + bias),
        )[self.problem]


@pytest.mark.parametrize(
    ('problem', 'message'),
    [
        ('loss', 'loss of random images is nan'),
        ('gradient', '1 parameters of the backbone get a gradient that is not finite: bias'),
        ('unused', '1 parameters of the backbone get no gradient: bias'),
        ('zero', 'all gradients of the backbone are 0'),
    ],
)
def test_what_a_trial_finds(problem, message):
    with pytest.raises(trial.TrialError, match=message):
        trial._train_once(Broken(problem), {})


def test_missing_compiled_op_is_an_obstacle(original, monkeypatch):
    def build(config):
        raise MissingOpError('mmcv op `deform_conv_forward` needs mmcv with its compiled ops')

    monkeypatch.setattr(trial.MODELS, 'build', build)
    result = trial.try_model(original(RETINANET)._cfg_dict)
    assert result.obstacle == "it needs mmcv's compiled op deform_conv_forward"


def test_losses_are_told_that_a_training_begins_for_the_time_of_the_trial():
    hub = MessageHub.get_current_instance()
    for key in ('epoch', 'iter'):  # of trainings that other tests have run
        hub.pop_info(key)
    with trial._first_epoch():
        assert hub.get_info('epoch') == hub.get_info('iter') == 0
    assert hub.get_info('epoch') is None
    assert hub.get_info('iter') is None


def test_trial_leaves_the_random_numbers_and_the_config_alone(original):
    config = original('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    before, state = config._cfg_dict.to_dict(), torch.get_rng_state()
    assert trial.try_model(config._cfg_dict).loss > 0
    assert config._cfg_dict.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)


FROM_WHERE_IT_IS = """
_base_ = {base!r}
work_dir = './work_dirs/{{{{ fileBasenameNoExtension }}}}'
model = dict(test_cfg=dict(note='{{{{fileBasename}}}} of {{{{ fileDirname }}}}'))
"""


@pytest.mark.parametrize('is_inherited', [False, True])
def test_work_dir_with_the_name_of_the_file_has_that_of_the_written_one(tmp_path, is_inherited):
    base = locate_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    path = tmp_path / 'mine.py'
    path.write_text(FROM_WHERE_IT_IS.format(base=str(base)))
    if is_inherited:
        path = tmp_path / 'child.py'
        path.write_text("_base_ = 'mine.py'\n")
    swapped = swap_backbone(path, SMALL_ARCH, out=tmp_path / 'swapped.py')
    assert "work_dir = './work_dirs/{{ fileBasenameNoExtension }}'" in swapped.text
    cfg = Config.fromfile(tmp_path / 'swapped.py')
    assert cfg.work_dir == './work_dirs/swapped' == swapped.config.work_dir
    assert cfg.model.test_cfg.note == f'mine.py of {tmp_path}', 'it is about the original'


def test_work_dir_of_another_name_stays(tmp_path):
    base = locate_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    (tmp_path / 'mine.py').write_text(f"_base_ = {str(base)!r}\nwork_dir = 'runs/a'\n")
    swapped = swap_backbone(tmp_path / 'mine.py', SMALL_ARCH, out=tmp_path / 'swapped.py')
    assert swapped.config.work_dir == 'runs/a' and 'work_dir' not in swapped.text
