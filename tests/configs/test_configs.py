"""Every config of the suite loads, builds, and agrees with itself."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
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

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)


@pytest.fixture(params=CONFIGS)
def cfg(request):
    cfg = Config.fromfile(ROOT / request.param)
    import_modules_from_strings(**cfg.custom_imports)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        yield cfg


def build_model(cfg: Config) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


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
    assert {'cls', 'det', 'seg'} <= tasks


def test_docstring_states_the_command_and_the_source():
    for path in CONFIGS:
        text = (ROOT / path).read_text()
        assert text.startswith('"""'), path
        docstring = text.split('"""')[1]
        assert path in docstring, f'{path}: the docstring lacks the command'
        if path.split('/')[1] in ('cls', 'det', 'seg') and 'Paper:' in docstring:
            assert 'eproduced' in docstring, f'{path}: were the figures reproduced?'


def test_model_builds_and_channels_agree(cfg):
    model = build_model(cfg)
    channels = model.backbone.out_channels
    if getattr(model, 'with_neck', False):
        assert list(model.neck.in_channels) == channels
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        if head is None:
            continue
        picked = head.in_index if isinstance(head.in_index, (list, tuple)) else [head.in_index]
        wanted = [channels[i] for i in picked]
        assert (wanted if len(wanted) > 1 else wanted[0]) == head.in_channels, name
    if cfg.default_scope == 'mmpretrain':
        assert model.head.in_channels == channels[-1]


def test_classes_agree(cfg):
    train = build_dataset(cfg.train_dataloader)
    classes = train.metainfo['classes']
    for dataloader in (cfg.val_dataloader, cfg.test_dataloader):
        assert build_dataset(dataloader).metainfo['classes'] == classes
    heads = heads_with_classes(build_model(cfg))
    assert heads
    for head in heads:
        assert head.num_classes == len(classes), type(head).__name__


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
    wanted += [(METRICS, cfg.val_evaluator.type), (VISUALIZERS, cfg.visualizer.type)]
    constructor = cfg.optim_wrapper.get('constructor', 'DefaultOptimWrapperConstructor')
    wanted.append((OPTIM_WRAPPER_CONSTRUCTORS, constructor))
    assert [name for registry, name in wanted if not is_registered(registry, name)] == []


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
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) is by_epoch_training
    assert cfg.log_processor.by_epoch is by_epoch_training


def test_checkpoints_are_written_atomically(cfg):
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
