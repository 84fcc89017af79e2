"""Configs on demo data: what is swapped, what stays, and that the result builds and trains."""

import copy
import logging
from pathlib import Path

import pytest
from helpers import SMALL_ARCH, load_config
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

import unireplknet_mm  # noqa: F401  (provides the mmcv ops that mmdet imports)
from unireplknet_mm.configuration import find_dicts
from unireplknet_mm.datasets import demo_config, use_demo_data
from unireplknet_mm.datasets.layouts.drawn import class_names
from unireplknet_mm.errors import ArgumentError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for task in ('cls', 'det', 'seg', 'studies', 'demo', 'custom')
    for path in (ROOT / 'configs' / task).glob('*.py')
)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Shared by the tests, so that each layout is generated once."""
    return tmp_path_factory.mktemp('demo')


@pytest.fixture
def notices():
    """What is logged meanwhile."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def coco_config() -> dict:
    def dataloader(split, **kwargs):
        dataset = dict(
            type='CocoDataset',
            data_root='data/coco/',
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
            pipeline=[],
        )
        return dict(batch_size=8, num_workers=8, dataset=dataset | kwargs)

    return dict(
        default_scope='mmdet',
        data_root='data/coco/',
        model=dict(
            rpn_head=dict(num_classes=1),
            roi_head=dict(bbox_head=[dict(num_classes=80)] * 3, mask_head=dict(num_classes=80)),
        ),
        train_dataloader=dataloader('train', filter_cfg=dict(filter_empty_gt=True)),
        val_dataloader=dataloader('val', test_mode=True),
        test_dataloader=dataloader('val', ann_file='annotations/image_info_test-dev2017.json'),
        val_evaluator=dict(
            type='CocoMetric', ann_file='data/coco/annotations/instances_val2017.json'
        ),
        test_evaluator=[dict(type='CocoMetric', ann_file='data/coco/annotations/test.json')],
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=4, val_begin=20),
        val_cfg=dict(),
        test_cfg=dict(),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=50),
            checkpoint=dict(type='CheckpointHook', interval=4, save_begin=20),
        ),
    )


def ade20k_config() -> dict:
    def dataloader(folder):
        dataset = dict(
            type='ADE20KDataset',
            data_root='data/ade/ADEChallengeData2016',
            data_prefix=dict(img_path=f'images/{folder}', seg_map_path=f'annotations/{folder}'),
            pipeline=[],
        )
        return dict(batch_size=2, num_workers=2, dataset=dataset)

    return dict(
        default_scope='mmseg',
        model=dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150)),
        train_dataloader=dataloader('training'),
        val_dataloader=dataloader('validation'),
        val_evaluator=dict(type='IoUMetric'),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000),
        val_cfg=dict(),
        default_hooks=dict(checkpoint=dict(by_epoch=False, interval=16000)),
    )


def imagenet_config() -> dict:
    def dataloader(split):
        dataset = dict(type='ImageNet', data_root='data/imagenet', split=split, pipeline=[])
        return dict(batch_size=128, num_workers=5, dataset=dataset)

    return dict(
        default_scope='mmpretrain',
        model=dict(type='ImageClassifier', head=dict(num_classes=1000)),
        train_dataloader=dataloader('train'),
        val_dataloader=dataloader('val'),
        val_evaluator=dict(type='Accuracy'),
        train_cfg=dict(by_epoch=True, max_epochs=300, val_interval=10),
        val_cfg=dict(),
    )


def test_coco(root):
    written = coco_config()
    cfg = use_demo_data(Config(copy.deepcopy(written)), root)
    out = root / 'coco-80classes-4train-2val'
    assert out.is_dir() and cfg.data_root == f'{out}/'
    assert cfg.model.to_dict() == written['model']
    init_default_scope('mmdet')
    counts = {}
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = DATASETS.build(cfg[key].dataset)
        counts[key] = len(dataset)
        assert dataset.metainfo['classes'] == class_names(80)
        assert all(
            Path(dataset.get_data_info(index)['img_path']).is_file()
            for index in range(len(dataset))
        )
    assert counts == dict(train_dataloader=4, val_dataloader=2, test_dataloader=2)
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=True)
    assert cfg.val_dataloader.dataset.test_mode
    for evaluator in (cfg.val_evaluator, *cfg.test_evaluator):
        assert Path(evaluator.ann_file) == out / 'annotations/instances_val2017.json'
        assert Path(evaluator.ann_file).is_file()
    assert cfg.train_dataloader.batch_size == 2  # two iterations on four images
    assert cfg.train_dataloader.num_workers == 4
    assert cfg.val_dataloader.batch_size == cfg.val_dataloader.num_workers == 2
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    assert cfg.default_hooks.checkpoint == dict(type='CheckpointHook', interval=1)
    assert cfg.default_hooks.logger.interval == 1


def test_ade20k(root):
    cfg = use_demo_data(Config(ade20k_config()), root, max_iters=3)
    init_default_scope('mmseg')
    for key, count in (('train_dataloader', 4), ('val_dataloader', 2)):
        dataset = DATASETS.build(cfg[key].dataset)
        assert len(dataset) == count
        assert Path(dataset.get_data_info(0)['seg_map_path']).is_file()
    assert cfg.train_dataloader.batch_size == cfg.train_dataloader.num_workers == 2
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)
    assert cfg.default_hooks.checkpoint.interval == 3


def test_imagenet(root):
    cfg = use_demo_data(Config(imagenet_config()), root, train_images=6, val_images=3)
    init_default_scope('mmpretrain')
    for key, count in (('train_dataloader', 6), ('val_dataloader', 3)):
        dataset = DATASETS.build(cfg[key].dataset)
        assert len(dataset) == count
        assert list(dataset.get_gt_labels()) == list(range(count))
        assert Path(dataset.get_data_info(0)['img_path']).is_file()
    assert cfg.train_dataloader.batch_size == 3 and cfg.val_dataloader.batch_size == 3
    assert cfg.train_cfg == dict(by_epoch=True, max_epochs=1, val_interval=1)


def test_twice_is_once(root):
    once = use_demo_data(Config(coco_config()), root)
    twice = use_demo_data(use_demo_data(Config(coco_config()), root), root)
    assert twice.to_dict() == once.to_dict()


def test_wrapped_datasets(root):
    config = coco_config()
    inner = config['train_dataloader']['dataset']
    config['train_dataloader']['dataset'] = dict(
        type='MultiImageMixDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                dict(
                    type='RepeatDataset', times=100, dataset=inner | dict(type='mmdet.CocoDataset')
                ),
                dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=dict(inner)),
            ],
        ),
    )
    cfg = use_demo_data(Config(config), root)
    repeated, balanced = cfg.train_dataloader.dataset.dataset.datasets
    assert repeated.times == 1 and balanced.oversample_thr == 1e-3
    for dataset in (repeated.dataset, balanced.dataset):
        assert dataset.data_root == f'{root / "coco-80classes-4train-2val"}/'
        assert 'times' not in dataset and 'data_root' not in repeated


def test_number_of_classes_comes_from_the_heads(root, monkeypatch):
    asked = []
    monkeypatch.setattr(
        demo_config,
        'make_demo_data',
        lambda layout, out, *_, **given: asked.append((out.name, given.get('num_classes'))) or out,
    )
    config = coco_config()
    config['model'] = dict(bbox_head=dict(type='RetinaHead', num_classes=3))
    cfg = use_demo_data(Config(config), root)
    assert asked.pop() == ('coco-3classes-4train-2val', 3)
    assert cfg.val_dataloader.dataset.metainfo.classes == ('zero', 'one', 'two')
    config = coco_config() | dict(model=dict(type='Custom'))
    use_demo_data(Config(config), root)
    assert asked.pop() == ('coco-80classes-4train-2val', 80)
    config['train_dataloader']['dataset']['metainfo'] = dict(classes=('cat', 'dog'))
    use_demo_data(Config(config), root)
    assert asked.pop() == ('coco-2classes-4train-2val', 2)
    use_demo_data(Config(imagenet_config()), root)
    assert asked.pop() == ('imagenet-4train-2val', 10)


def test_schedulers_begin_before_they_end(root):
    config = imagenet_config() | dict(
        param_scheduler=[
            dict(type='LinearLR', by_epoch=True, end=20, convert_to_iter_based=True),
            dict(type='CosineAnnealingLR', by_epoch=True, begin=20),
            dict(type='ConstantLR', by_epoch=False, begin=500),
        ]
    )
    cfg = use_demo_data(Config(config), root, train_images=6, val_images=3)
    ends = [scheduler['end'] for scheduler in cfg.param_scheduler]
    assert ends == [20, 300, 501]
    config = ade20k_config() | dict(param_scheduler=dict(type='PolyLR', by_epoch=False))
    cfg = use_demo_data(Config(config), root)
    assert cfg.param_scheduler.end == 160000


def test_short_detection_training_has_something_to_evaluate(root, notices):
    config = coco_config()
    config['model']['test_cfg'] = dict(rcnn=dict(score_thr=0.05, max_per_img=100))
    cfg = use_demo_data(Config(config), root)
    assert cfg.model.test_cfg.rcnn == dict(score_thr=0.0, max_per_img=100)
    assert 'Score thresholds are set to 0, so that there are detections' in notices[0]
    use_demo_data(Config(coco_config()), root)
    assert 'Score thresholds' not in notices[1]


def test_missing_weights_are_dropped_with_a_notice(root, tmp_path, notices):
    present = tmp_path / 'present.pth'
    present.touch()
    config = ade20k_config()
    config['load_from'] = 'https://example.org/segmenter.pth'
    config['model'] |= dict(
        pretrained='open-mmlab://resnet50_v1c',
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='https://example.org/b.pth')),
        neck=dict(init_cfg=dict(type='Pretrained', checkpoint=str(present))),
        head=dict(init_cfg=dict(type='Pretrained', checkpoint=present.as_uri())),
        other=dict(
            init_cfg=[
                dict(type='TruncNormal', layer='Conv2d'),
                dict(type='Pretrained', checkpoint='missing.pth'),
            ]
        ),
    )
    cfg = use_demo_data(Config(config), root)
    assert cfg.load_from is None and cfg.model.pretrained is None
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.neck.init_cfg.checkpoint == str(present)
    assert cfg.model.head.init_cfg.checkpoint == present.as_uri()
    assert cfg.model.other.init_cfg == [dict(type='TruncNormal', layer='Conv2d')]
    swapped, dropped = notices
    assert 'replace ADE20KDataset data/ade/ADEChallengeData2016' in swapped
    assert '2 iterations' in swapped
    for name in ('resnet50_v1c', 'b.pth', 'missing.pth', 'segmenter.pth'):
        assert name in dropped
    assert 'present.pth' not in dropped


@pytest.mark.parametrize(
    'checkpoint', ['https://example.org/epoch_1.pth', 'upernet_unireplknet_t_in1k', 'folder']
)
def test_a_checkpoint_to_resume_from_stays(root, tmp_path, checkpoint, notices, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    config = dict(ade20k_config(), load_from=checkpoint, resume=True)
    cfg = use_demo_data(Config(config), root)
    assert (cfg.load_from, cfg.resume) == (checkpoint, True)
    assert len(notices) == 1


def test_errors(root):
    config = coco_config()
    config['val_dataloader']['dataset']['type'] = 'LVISV1Dataset'
    with pytest.raises(
        ArgumentError, match='LVISV1Dataset; supported are ADE20KDataset, AudioSet, Cityscapes'
    ):
        use_demo_data(Config(config), root)
    config['val_dataloader']['dataset']['type'] = 'ImageNet'
    with pytest.raises(ArgumentError, match='mixes the dataset types CocoDataset, ImageNet'):
        use_demo_data(Config(config), root)
    with pytest.raises(ArgumentError, match='no data loader'):
        use_demo_data(Config(dict(model=dict())), root)
    config = ade20k_config()
    config['model']['decode_head']['num_classes'] = 4
    with pytest.raises(ArgumentError, match=r'11 classes .* has only 4'):
        use_demo_data(Config(config), root)
    with pytest.raises(ArgumentError, match='max_iters must be at least 1, not 0'):
        use_demo_data(Config(coco_config()), root, max_iters=0)


def test_config_for_testing_only(root):
    config = {key: value for key, value in coco_config().items() if not key.startswith('train')}
    cfg = use_demo_data(Config(config), root)
    assert 'train_cfg' not in cfg
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/instances_val2017.json'


@pytest.mark.parametrize('path', CONFIGS)
def test_every_config_takes_demo_data(path, root):
    cfg = load_config(ROOT / path)
    written = copy.deepcopy(cfg)
    use_demo_data(cfg, root)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if written[key] is None:
            assert cfg[key] is None
            continue
        dataset = cfg[key].dataset
        assert Path(dataset.data_root).is_dir() and root in Path(dataset.data_root).parents
        assert dataset.pipeline == written[key].dataset.pipeline
    assert not cfg.model.backbone.get('init_cfg')
    cfg.model.backbone.pop('init_cfg', None)
    written.model.backbone.pop('init_cfg', None)
    for config in find_dicts(written.model):
        if 'score_thr' in config and written.train_dataloader.dataset.type == 'CocoDataset':
            config['score_thr'] = 0.0
    assert cfg.model == written.model and cfg.optim_wrapper == written.optim_wrapper
    assert cfg.train_cfg.get('max_epochs', 1) == 1 and cfg.train_cfg.get('max_iters', 2) == 2


def test_classification_config_trains_on_demo_data(root, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/cls/unireplknet_a_in1k.py')
    use_demo_data(cfg, root)
    cfg.model.backbone.arch = SMALL_ARCH
    cfg.model.head.in_channels = SMALL_ARCH['channels'][-1]
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].num_workers = 0
        cfg[key].persistent_workers = False
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = 'demo'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2 and runner.epoch == 1
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert list(tmp_path.glob('best_accuracy_top1_*.pth'))  # so there was an evaluation
