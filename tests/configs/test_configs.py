"""Every config of the suite loads, builds, and agrees with itself."""

import copy
import re
from pathlib import Path

import pytest
import torch
from helpers import load_config
from mmengine.dataset import Compose
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS,
    VISUALIZERS,
    DefaultScope,
    Registry,
)
from mmengine.utils import import_modules_from_strings
from torch import nn

from unireplknet_mm.configuration import find_dicts
from unireplknet_mm.models.whole_model import on_meta

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED_TASKS = ('cls', 'det', 'seg', 'studies', 'audio', 'video', 'point_cloud')
SHAPES: dict[str, list[tuple[int, ...]]] = {}  # of the maps of each structure
HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head')
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
# Of those that forecast numbers, test_time_series_configs.py builds the models.
WITH_CLASSES = [path for path in CONFIGS if path.split('/')[1] != 'time_series']


@pytest.fixture(scope='module', params=CONFIGS)
def loaded(request):
    cfg = load_config(ROOT / request.param)
    import_modules_from_strings(**cfg.custom_imports)
    return cfg


@pytest.fixture(scope='module')
def model(loaded):
    scope = DefaultScope.overwrite_default_scope(loaded.default_scope)
    with scope, on_meta():
        return MODELS.build(copy.deepcopy(loaded.model))


@pytest.fixture
def cfg(loaded):
    with DefaultScope.overwrite_default_scope(loaded.default_scope):
        yield loaded


def build_dataset(dataloader: dict):
    """The data set with its pipeline, but without reading its annotations."""
    dataset = dataloader['dataset'].copy()
    dataset.setdefault('lazy_init', True)
    return DATASETS.build(dataset)


def heads_with_classes(model: nn.Module) -> list[nn.Module]:
    """The heads that predict classes of the data set; an RPN's one class is `object`."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'num_classes', None), int)
        and 'rpn_head' not in name
        and not name.endswith('data_preprocessor')
    ]


def test_there_are_configs():
    tasks = {path.split('/')[1] for path in CONFIGS}
    assert {*PUBLISHED_TASKS} <= tasks


def test_docstring_states_the_command_and_the_source():
    for path in CONFIGS:
        text = (ROOT / path).read_text()
        assert text.startswith('"""'), path
        docstring = text.split('"""')[1]
        assert path in docstring, f'{path}: the docstring lacks the command'
        if path.split('/')[1] in PUBLISHED_TASKS:
            said = 'eproduced here' if 'Paper:' in docstring else 'ot trained here'
            assert said in ' '.join(docstring.split()), f'{path}: was it trained here?'


@pytest.mark.parametrize('name', ['upernet_{}_160k', 'mask_rcnn_{}_1x', 'cascade_{}_3x'])
def test_leaves_that_differ_by_a_letter_share_a_base(name):
    """Those that the paper does not have state what differs from A's."""
    (base,) = (ROOT / 'configs').rglob(f'{name.format("unireplknet_a")}.py')
    for letter in 'fpn':
        leaf = base.with_name(base.name.replace('_a_', f'_{letter}_')).read_text()
        assert f"_base_ = './{base.name}'" in leaf
        stated = re.findall(r'^ *(\w+)=(?!dict\($)', leaf, re.MULTILINE)
        assert set(stated) <= {
            *('arch', 'drop_path_rate', 'init_cfg'),
            *('neck', 'decode_head', 'auxiliary_head'),
        }


def test_a_leaf_is_short():
    for path in CONFIGS:
        if path.split('/')[1] in PUBLISHED_TASKS:
            assert len((ROOT / path).read_text().splitlines()) < 40, path


@pytest.mark.parametrize('loaded', WITH_CLASSES, indirect=True)
def test_channels_and_strides_agree(cfg, model):
    shapes = shapes_of_maps(cfg.model.backbone, model.backbone)
    channels = [shape[1] for shape in shapes]
    # Those of mmpretrain do not say how many their maps have.
    assert channels == getattr(model.backbone, 'out_channels', channels)
    strides = [64 // shape[2] for shape in shapes if len(shape) == 4]
    if hasattr(getattr(model, 'neck', None), 'in_channels'):
        assert list(model.neck.in_channels) == channels
        # A pyramid's maps have the strides that its heads assume; those beyond it follow.
        generator = find(cfg.model, 'anchor_generator')
        if generator:
            assert [_one(stride) for stride in generator[0].strides][: len(strides)] == strides
    heads = {name: cfg.model[name] for name in HEADS if name in cfg.model}
    for name, head in heads.items():
        picked = head.get('in_index', list(range(len(channels))))
        wanted = [channels[i] for i in (picked if isinstance(picked, list) else [picked])]
        assert (wanted if isinstance(picked, list) else wanted[0]) == head.in_channels, name
        if 'strides' in head:
            assert head.strides == strides
    if cfg.default_scope == 'mmpretrain':
        # Views of one sample, whose features a neck puts side by side.
        views = getattr(getattr(model, 'neck', None), 'num_views', 1)
        assert model.head.in_channels == views * channels[-1]


def shapes_of_maps(config: dict, backbone: nn.Module) -> list[tuple[int, ...]]:
    """Of what a backbone makes of a 64×96 image; those of the same structure are computed once."""
    without = ('init_cfg', 'norm_cfg', 'drop_path_rate', 'with_cp')
    key = str(sorted((name, value) for name, value in config.items() if name not in without))
    if key not in SHAPES:
        with torch.no_grad():
            shape = (1, config.get('in_channels', 3), 64, 96)
            backbone.eval()
            maps = backbone(torch.empty(shape, device='meta'))
        SHAPES[key] = [tuple(m.shape) for m in maps]
    return SHAPES[key]


def _one(pair):
    return pair[0] if isinstance(pair, tuple | list) else pair


def find(config, key: str) -> list:
    return [found[key] for found in find_dicts(config) if key in found]


@pytest.mark.parametrize('loaded', WITH_CLASSES, indirect=True)
def test_classes_agree(cfg, model):
    train = build_dataset(cfg.train_dataloader)
    classes = train.metainfo.get('classes')
    for dataloader in (cfg.val_dataloader, cfg.test_dataloader):
        if dataloader is not None:
            assert build_dataset(dataloader).metainfo.get('classes') == classes
    count = len(classes) if classes else cfg.data_preprocessor.num_classes
    if cfg.default_scope == 'mmpretrain':
        assert cfg.data_preprocessor.num_classes == count  # of mixed labels
    heads = heads_with_classes(model)
    assert heads
    for head in heads:
        assert head.num_classes == count, type(head).__name__


def is_registered(registry: Registry, name: str) -> bool:
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name) is not None


def test_every_name_in_the_config_is_registered(cfg):
    wanted = [(HOOKS, hook['type']) for hook in cfg.default_hooks.values()]
    for hook in cfg.get('custom_hooks', ()):
        wanted.append((HOOKS, hook['type']))
        if hook['type'] == 'EMAHook':
            wanted.append((MODELS, hook.get('ema_type', 'ExponentialMovingAverage')))
    wanted += [(PARAM_SCHEDULERS, scheduler['type']) for scheduler in cfg.param_scheduler]
    wanted.append((VISUALIZERS, cfg.visualizer.type))
    evaluators = cfg.val_evaluator or []
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        wanted.append((METRICS, evaluator['type']))
    constructor = cfg.optim_wrapper.get('constructor', 'DefaultOptimWrapperConstructor')
    wanted.append((OPTIM_WRAPPER_CONSTRUCTORS, constructor))
    assert [name for registry, name in wanted if not is_registered(registry, name)] == []


@pytest.mark.parametrize('loaded', WITH_CLASSES, indirect=True)
def test_custom_keys_are_in_names_of_parameters(cfg, model):
    paramwise = cfg.optim_wrapper.get('paramwise_cfg', {})
    names = [name for name, _ in model.named_parameters()]
    for key in paramwise.get('custom_keys', ()):
        assert any(key in name for name in names), key


def test_test_time_augmentation_builds(cfg):
    if 'tta_pipeline' not in cfg:
        assert 'tta_model' not in cfg
        return
    assert is_registered(MODELS, cfg.tta_model.type)
    assert len(Compose(cfg.tta_pipeline).transforms) == len(cfg.tta_pipeline)


def test_schedule_ends_with_the_training(cfg):
    length = {True: cfg.train_cfg.get('max_epochs'), False: cfg.train_cfg.get('max_iters')}
    by_epoch_training = length[True] is not None
    for scheduler in cfg.param_scheduler:
        by_epoch = scheduler.get('by_epoch', True)
        # Without an end, MMEngine lets a scheduler last as long as the training.
        limit = length[by_epoch]
        if limit is None:
            continue
        assert scheduler.get('end', limit) <= limit, scheduler['type']
        assert scheduler.get('begin', 0) < limit, scheduler['type']
        assert all(step < limit for step in scheduler.get('milestones', ())), scheduler['type']
    main = [s for s in cfg.param_scheduler if s['type'] != 'LinearLR']
    for scheduler in main:
        assert scheduler.get('by_epoch', True) is by_epoch_training, scheduler['type']
        limit = length[by_epoch_training]
        assert scheduler.get('end', limit) == limit, scheduler['type']
    for hook in cfg.get('custom_hooks', ()):
        assert hook.get('switch_epoch', 0) < (length[True] or 1)
    for begin, _ in cfg.train_cfg.get('dynamic_intervals', ()):
        assert begin < length[by_epoch_training]
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) is by_epoch_training
    assert cfg.log_processor.by_epoch is by_epoch_training


def test_what_is_validated_can_be_the_best(cfg):
    validated = [cfg.get(f'val_{part}') is not None for part in ('dataloader', 'evaluator', 'cfg')]
    assert len(set(validated)) == 1
    assert validated[0] or not cfg.default_hooks.checkpoint.get('save_best')


def test_checkpoints_are_written_atomically(cfg):
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
