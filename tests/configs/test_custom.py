"""The two examples of training on one's own data, on tiny data of their layouts that a test writes.

`test_configs.py` checks them as it does every config.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from mmengine.structures import PixelData
from mmengine.utils import import_modules_from_strings
from PIL import Image

from unireplknet_mm import launch

ROOT = Path(__file__).resolve().parents[2]
VOC = ROOT / 'configs/custom/cascade_rcnn_unireplknet_bccd_voc.py'
FOLDER = ROOT / 'configs/custom/upernet_unireplknet_camvid_folder.py'
GUIDE = (ROOT / 'docs/custom_data.md').read_text(encoding='utf-8')
EXAMPLES = re.findall(r'<!-- tested: [^>]+ -->\n```python\n(.*?)```', GUIDE, re.DOTALL)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
SIZE = (64, 48)  # width, height
OBJECT = '<object><name>{}</name><bndbox>{}</bndbox></object>'


def write_voc(root: Path, classes: tuple[str, ...], images: int = 4) -> Path:
    """Squares of a colour per class; the first image has one box without a width as well."""
    for folder in ('ImageSets/Main', 'JPEGImages', 'Annotations'):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(images):
        pixels = generator.integers(0, 60, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        boxes = [(name, 2 + 20 * i, 8, 18 + 20 * i, 30) for i, name in enumerate(classes)]
        for label, (_, left, top, right, bottom) in enumerate(boxes):
            pixels[top:bottom, left:right, label] = 220
        if number == 0:
            boxes.append((classes[0], 40, 40, 40, 45))
        Image.fromarray(pixels).save(root / f'JPEGImages/{number}.jpg')
        objects = ''.join(
            OBJECT.format(
                name,
                ''.join(
                    f'<{key}>{value}</{key}>'
                    for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True)
                ),
            )
            for name, *box in boxes
        )
        size = f'<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>'
        (root / f'Annotations/{number}.xml').write_text(f'<a>{size}{objects}</a>')
    for split in ('train', 'val'):
        names = '\n'.join(str(number) for number in range(images))
        (root / f'ImageSets/Main/{split}.txt').write_text(names)
    return root


def write_folders(root: Path, labels: int, images: int = 2) -> Path:
    """Vertical stripes, one per label, the last of them the ignored one."""
    mask = np.repeat(np.arange(labels, dtype=np.uint8), 6)[None].repeat(SIZE[1], axis=0)
    for split in ('train', 'val'):
        for folder in (split, f'{split}annot'):
            (root / folder).mkdir(parents=True)
        for number in range(images):
            Image.fromarray(np.stack([mask * 20] * 3, -1)).save(root / f'{split}/{number}.png')
            Image.fromarray(mask).save(root / f'{split}annot/{number}.png')
    return root


def load(path: Path) -> Config:
    cfg = launch.load_config(path)
    import_modules_from_strings(**cfg.custom_imports)
    return cfg


def read_from(cfg: Config, root: Path) -> None:
    """Point the config to other data, as its user does, and read them in the main process."""
    for name in LOADERS:
        cfg[name].dataset.data_root = str(root)
        cfg[name].update(num_workers=0, persistent_workers=False)


def run(cfg: Config, work_dir: Path) -> dict[str, float]:
    """As `tools/train.py` does; the metrics of the evaluation at the end."""
    launch.set_work_dir(cfg, str(work_dir))
    launch.prepare_device(cfg, 'none', 'cpu')
    launch.check_data(cfg, 'train', 'val')
    launch.make_resumable(cfg)
    runner = launch.build_runner(cfg)
    runner.train()
    assert all(torch.isfinite(weight).all() for weight in runner.model.parameters())
    scalars = runner.message_hub.log_scalars
    return {
        name.removeprefix('val/'): value.current()
        for name, value in scalars.items()
        if name.startswith('val/')
    }


@pytest.fixture
def mmdet_scope():
    pytest.importorskip('mmdet')
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def mmseg_scope():
    pytest.importorskip('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_voc_config_trains_and_evaluates(mmdet_scope, tmp_path):
    cfg = load(VOC)
    read_from(cfg, write_voc(tmp_path / 'own', cfg.classes))
    for pipeline in (loader.dataset.pipeline for loader in (cfg[name] for name in LOADERS)):
        for step in pipeline:
            if step.type == 'RandomChoiceResize':
                step.scales = [SIZE]
            elif step.type == 'Resize':
                step.scale = SIZE
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = []
    cfg.train_dataloader.batch_size = 2
    metrics = run(cfg, tmp_path / 'work')
    assert {'pascal_voc/AP50', 'pascal_voc/AP95', 'pascal_voc/mAP'} <= metrics.keys()
    assert 0 <= metrics['pascal_voc/mAP'] <= 1
    assert (tmp_path / 'work/epoch_1.pth').exists()
    assert list(tmp_path.glob('work/best_*.pth'))


def test_voc_boxes_without_a_size_are_ignored_in_training(mmdet_scope, tmp_path):
    cfg = load(VOC)
    read_from(cfg, write_voc(tmp_path, cfg.classes))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    instances = dataset.get_data_info(0)['instances']
    assert [instance['ignore_flag'] for instance in instances] == [0, 0, 0, 1]
    sample = dataset[0]['data_samples']
    assert sorted(sample.gt_instances.labels.tolist()) == [0, 1, 2]
    assert (
        sample.gt_instances.bboxes.tensor[:, 2:] > sample.gt_instances.bboxes.tensor[:, :2]
    ).all()


def test_voc_metric_counts_the_classes_of_the_data_set(mmdet_scope, tmp_path):
    """The boxes of the annotations as predictions: AP 1; with another class for one of three: 2/3."""
    cfg = load(VOC)
    read_from(cfg, write_voc(tmp_path, cfg.classes))
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    assert cfg.val_evaluator.iou_thrs == pytest.approx(np.linspace(0.5, 0.95, 10))
    cfg.val_evaluator.iou_thrs = [0.5]
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    samples = []
    for index in range(1, len(dataset)):  # the first has a box without a size
        sample = dataset[index]['data_samples'].to_dict()
        truth = sample['gt_instances']
        boxes, labels = truth['bboxes'].tensor, truth['labels']
        sample['gt_instances'] = dict(bboxes=boxes, labels=labels)
        ignored = sample['ignored_instances']
        sample['ignored_instances'] = dict(
            bboxes=ignored['bboxes'].tensor, labels=ignored['labels']
        )
        sample['pred_instances'] = dict(bboxes=boxes, labels=labels, scores=torch.ones(len(labels)))
        samples.append(sample)
    metric.process({}, samples)
    assert metric.evaluate(len(samples))['pascal_voc/mAP'] == pytest.approx(1)
    for sample in samples:
        sample['pred_instances']['labels'] = sample['gt_instances']['labels'].clamp(max=1)
    metric.process({}, samples)
    # Class 1 has two predictions an image, one of them right, at equal scores.
    assert metric.evaluate(len(samples))['pascal_voc/mAP'] < 0.7


def test_folder_config_trains_and_evaluates(mmseg_scope, tmp_path):
    cfg = load(FOLDER)
    read_from(cfg, write_folders(tmp_path / 'own', cfg.ignore_index + 1))
    cfg.model.data_preprocessor.size = (64, 64)
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'RandomResize':
            step.scale = SIZE
        elif step.type == 'RandomCrop':
            step.crop_size = (64, 64)
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_iters = 2
    cfg.default_hooks.checkpoint.interval = 2
    cfg.param_scheduler = []
    metrics = run(cfg, tmp_path / 'work')
    assert 0 <= metrics['mIoU'] <= 100
    assert (tmp_path / 'work/iter_2.pth').exists()
    assert list(tmp_path.glob('work/best_*.pth'))


def test_folder_classes_and_ignored_label_agree(mmseg_scope):
    cfg = load(FOLDER)
    classes, palette = cfg.metainfo['classes'], cfg.metainfo['palette']
    assert len(palette) == len(set(palette)) == len(classes)
    # The mask's labels are 0..10 and 11: the ignored one must be none of the classes.
    assert cfg.ignore_index == len(classes) == 11
    for name in LOADERS:
        dataset = DATASETS.build(dict(cfg[name].dataset, lazy_init=True))
        assert dataset.metainfo['classes'] == classes
        assert dataset.ignore_index == cfg.ignore_index
        assert not dataset.metainfo['reduce_zero_label']
    model = MODELS.build(cfg.model)
    for head in (model.decode_head, model.auxiliary_head):
        assert (head.num_classes, head.ignore_index) == (len(classes), cfg.ignore_index)
    assert model.data_preprocessor.seg_pad_val == cfg.ignore_index
    (crop,) = [step for step in cfg.train_pipeline if step.type == 'RandomCrop']
    assert crop.ignore_index == cfg.ignore_index


def test_ignored_pixels_count_neither_in_the_loss_nor_in_the_metric(mmseg_scope):
    from mmseg.structures import SegDataSample

    cfg = load(FOLDER)
    labels = torch.randint(0, 11, (1, 32, 32), generator=torch.Generator().manual_seed(0))
    ignored = torch.zeros(1, 32, 32, dtype=torch.bool)
    ignored[..., 16:] = True
    truth = labels.masked_fill(ignored, cfg.ignore_index)

    model = MODELS.build(cfg.model)
    logits = torch.randn(1, 11, 32, 32, requires_grad=True)
    sample = SegDataSample(gt_sem_seg=PixelData(data=truth))
    loss = model.decode_head.loss_by_feat(logits, [sample])['loss_ce']
    loss.backward()
    assert loss > 0
    assert logits.grad[..., 16:].abs().sum() == 0
    assert (logits.grad[..., :16].abs().sum(dim=1) > 0).all()

    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = cfg.metainfo
    predictions = torch.where(ignored, (labels + 1) % 11, labels)
    metric.process({}, [dict(pred_sem_seg=dict(data=predictions), gt_sem_seg=dict(data=truth))])
    assert metric.evaluate(1)['mIoU'] == 100


@pytest.mark.parametrize(('path', 'folder'), [(VOC, 'data/bccd'), (FOLDER, 'data/camvid')])
def test_missing_data_are_named(tmp_path, monkeypatch, path, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(launch.UserError, match='data_root') as error:
        launch.check_data(launch.load_config(path), 'train', 'val')
    assert str(tmp_path / folder) in str(error.value)


def build_example(path: Path) -> torch.nn.Module:
    cfg = launch.load_config(path)
    assert cfg.model.backbone.init_cfg.checkpoint == 'unireplknet_t_in1k'
    cfg.model.backbone.init_cfg = None  # a download
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def test_guide_on_a_larger_detector(mmdet_scope, tmp_path):
    """The example with another `_base_`, as the guide says."""
    small = "_base_ = '../demo/cascade_unireplknet_demo.py'\n"
    text = VOC.read_text(encoding='utf-8')
    assert small in text
    for folder in ('_base_', 'demo', 'det'):
        (tmp_path / folder).symlink_to(ROOT / 'configs' / folder)
    (tmp_path / 'custom').mkdir()
    path = tmp_path / 'custom' / VOC.name
    path.write_text(text.replace(small, EXAMPLES[0]), encoding='utf-8')
    model = build_example(path)
    assert model.backbone.out_channels == list(model.neck.in_channels) == [80, 160, 320, 640]
    assert [head.num_classes for head in model.roi_head.bbox_head] == [3, 3, 3]
    assert not model.roi_head.with_mask


def test_guide_on_a_larger_segmenter(mmseg_scope, tmp_path):
    (tmp_path / 'custom').mkdir()
    (tmp_path / '_base_').symlink_to(ROOT / 'configs/_base_')
    (tmp_path / 'custom' / FOLDER.name).symlink_to(FOLDER)
    path = tmp_path / 'custom/own.py'
    path.write_text(EXAMPLES[1], encoding='utf-8')
    model = build_example(path)
    assert model.backbone.out_channels == list(model.decode_head.in_channels)
    assert model.decode_head.channels == 512
    assert model.auxiliary_head.in_channels == 320
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 11


def test_examples_and_paths_of_the_guide():
    assert len(EXAMPLES) == GUIDE.count('```python') == 2
    paths = set(re.findall(r'\b((?:tests/)?(?:configs|tools)/[\w./]+\w)', GUIDE))
    assert paths and not [path for path in paths if not (ROOT / path).exists()]
