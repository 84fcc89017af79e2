"""A config of each kind of model trains, validates and writes a checkpoint on demo data.

Everything is the config's but for sizes: of images and crops, of the backbone, of the heads' depths.
"""

import os
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, load_config
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from unireplknet_mm.configuration import find_dicts
from unireplknet_mm.datasets import use_demo_data

ROOT = Path(__file__).resolve().parents[2]
PIXELS = ('scale', 'scales', 'img_scale', 'crop_size', 'size', 'max_size', 'image_scale')

# config: what its images are divided by, and the score that its validation gives
TRAININGS = {
    'cls/unireplknet_s_in22k': (4, None),
    'det/rtmdet_unireplknet_t_100e': (5, 'coco/bbox_mAP'),
    'det/dino_unireplknet_t_12e': (8, 'coco/bbox_mAP'),
    'seg/mask2former_unireplknet_t_160k': (8, 'mIoU'),
    'studies/table_2b_9x9_reparam_cityscapes': (16, 'mIoU'),
    'audio/unireplknet_s_audioset': (1, 'multi-label/mAP'),
}
# `make test-configs`
MORE_TRAININGS = {
    'det/mask_rcnn_unireplknet_a_1x': (8, 'coco/segm_mAP'),
    'det/mask2former_unireplknet_t_50e': (8, 'coco/segm_mAP'),
    'studies/table_2b_9x9_reparam_in1k': (4, 'accuracy/top1'),
    'audio/unireplknet_s_speech_commands': (1, 'accuracy/top1'),
    'audio/unireplknet_s_speech_commands_12': (1, 'accuracy/top1'),
    'audio/unireplknet_s_in1k_esc50': (1, 'accuracy/top1'),
    'point_cloud/unireplknet_s_modelnet40': (1, 'accuracy/OA'),
    'studies/table_2d_7x7_ade20k': (8, 'mIoU'),
    'studies/table_3a_bottleneck_in1k': (4, 'accuracy/top1'),
    'studies/table_3c_3_15_15_15_last_stage_ade20k': (8, 'mIoU'),
}
if os.environ.get('UNIREPLKNET_TEST_ALL_CONFIGS') == '1':
    TRAININGS |= MORE_TRAININGS


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Shared by the tests, so that each layout is generated once."""
    return tmp_path_factory.mktemp('demo')


def divided(pixels, divisor: int):
    if isinstance(pixels, list | tuple):
        return type(pixels)(divided(value, divisor) for value in pixels)
    return max(1, int(pixels) // divisor)


def shrink_images(cfg: Config, divisor: int) -> None:
    loaders = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]
    pipelines = [loader.dataset.pipeline for loader in loaders if loader]
    parts = [*pipelines, cfg.get('custom_hooks'), cfg.model.get('data_preprocessor')]
    done = set()
    for part in parts:
        for config in find_dicts(part):
            if id(config) in done:  # pipelines that two loaders share
                continue
            done.add(id(config))
            for key in PIXELS:
                if key in config and not isinstance(config[key], str):
                    config[key] = divided(config[key], divisor)


def shrink_model(model: dict) -> None:
    backbone = model['backbone']
    channels = list(SMALL_ARCH['channels'])
    if backbone['type'] == 'UniRepLKNet':
        backbone['arch'] = SMALL_ARCH
    elif backbone['type'] == 'FoldableRepLKNet':
        backbone.update(channels=channels, depths=(1, 1, 1, 1))
    else:
        channels = None
    if channels:
        outputs = (
            [channels[i] for i in backbone['out_indices']]
            if 'out_indices' in backbone
            else channels
        )
        for part in ('neck', 'decode_head', 'auxiliary_head', 'panoptic_head', 'head'):
            head = model.get(part) or {}
            if isinstance(head.get('in_channels'), list):
                head['in_channels'] = [
                    outputs[i] for i in head.get('in_index', range(len(outputs)))
                ]
            elif 'in_channels' in head:
                head['in_channels'] = outputs[head.get('in_index', -1)]
    for config in find_dicts(model):
        for key, most in dict(
            num_layers=1, num_queries=20, num_dn_queries=4, num_points=64
        ).items():
            # of deformable attention, four points a level
            if isinstance(config.get(key), int) and config[key] > most:
                config[key] = most


@pytest.mark.parametrize('name', TRAININGS)
def test_trains_on_demo_data(name, root, tmp_path):
    divisor, score = TRAININGS[name]
    cfg = load_config(ROOT / 'configs' / f'{name}.py')
    import_modules_from_strings(**cfg.custom_imports)
    use_demo_data(cfg, root)
    shrink_images(cfg, divisor)
    shrink_model(cfg.model)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        if loader:
            loader.update(num_workers=0, persistent_workers=False)
    cfg.work_dir, cfg.experiment_name = str(tmp_path), tmp_path.name
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = {key: value.clone() for key, value in runner.model.backbone.named_parameters()}
    runner.train()
    losses = torch.tensor(runner.message_hub.get_scalar('train/loss').data[0])
    assert runner.iter == len(losses) == 2 and losses.isfinite().all()
    after = dict(runner.model.backbone.named_parameters())
    # The warm-up's first step is tiny; what moves at all has a gradient.
    moved = [key for key, value in before.items() if not torch.equal(after[key], value)]
    assert len(moved) > 0.5 * len(before)
    assert list(tmp_path.glob('*_[12].pth'))
    if score:
        assert f'val/{score}' in runner.message_hub.log_scalars
