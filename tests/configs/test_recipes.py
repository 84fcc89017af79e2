"""The recipes of the three tasks, against tables typed from the paper and its published configs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from unireplknet_mm.weights import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
GPUS = 8

# config: drop path, layer decay, average of the weights, pretrained weights (Table 6); a to n are ours
DETECTION = {
    't': (0.3, 0.8, False, 'unireplknet_t_in1k_224_acc83.21.pth'),
    's': (0.5, 0.8, False, 'unireplknet_s_in1k_224_acc83.91.pth'),
    's_in22k': (0.5, 0.8, True, 'unireplknet_s_in22k_to_in1k_384_acc86.44.pth'),
    'b': (0.6, 0.8, True, 'unireplknet_b_in22k_to_in1k_384_acc87.40.pth'),
    'l': (0.7, 0.7, True, 'unireplknet_l_in22k_to_in1k_384_acc87.88.pth'),
    'xl': (0.7, 0.7, True, 'unireplknet_xl_in22k_to_in1k_384_acc87.96.pth'),
    'a': (0.1, 0.9, False, 'unireplknet_a_in1k_224_acc77.03.pth'),
    'f': (0.1, 0.9, False, 'unireplknet_f_in1k_224_acc78.58.pth'),
    'p': (0.2, 0.9, False, 'unireplknet_p_in1k_224_acc80.23.pth'),
    'n': (0.2, 0.9, False, 'unireplknet_n_in1k_224_acc81.64.pth'),
}
SMALL = ('a', 'f', 'p', 'n')
# config: drop path, layer decay, crop, with_cp, pretrained weights (Table 7); of xl and a to n ours
SEGMENTATION = {
    't': (0.2, 1.0, 512, False, 'in1k'),
    's': (0.3, 0.9, 512, True, 'in1k'),
    's_in22k': (0.3, 0.9, 640, True, 'in22k_to_in1k'),
    's_in22k_512': (0.3, 0.9, 512, True, 'in22k_to_in1k'),
    'b': (0.3, 0.9, 640, True, 'in22k_to_in1k'),
    'l': (0.4, 0.85, 640, True, 'in22k_to_in1k'),
    'xl': (0.4, 0.85, 640, True, 'in22k_to_in1k'),
    'a': (0.0, 1.0, 512, False, 'in1k'),
    'f': (0.0, 1.0, 512, False, 'in1k'),
    'p': (0.1, 1.0, 512, False, 'in1k'),
    'n': (0.1, 1.0, 512, False, 'in1k'),
}
# arch: mixup, cutmix, drop path (Table 16)
CLASSIFICATION = {
    'a': (0.3, 0.3, 0.0),
    'f': (0.3, 0.3, 0.0),
    'p': (0.3, 0.3, 0.1),
    'n': (0.5, 0.5, 0.1),
    't': (0.8, 1.0, 0.2),
    's': (0.8, 1.0, 0.4),
}
# arch: size, drop path (Table 17); h as xl
PRETRAINING = {
    's': (224, 0.1),
    'b': (224, 0.1),
    'l': (192, 0.1),
    'xl': (192, 0.2),
    'h': (192, 0.2),
}
# arch: epochs, label smoothing, drop path (Table 17)
FINE_TUNING = {
    's': (30, 0.1, 0.2),
    'b': (30, 0.1, 0.2),
    'l': (20, 0.3, 0.3),
    'xl': (20, 0.3, 0.3),
}


def load(path: str) -> Config:
    return load_config(ROOT / 'configs' / path)


def detection(arch: str) -> Config:
    return load(f'det/cascade_unireplknet_{arch}_3x.py')


def segmentation(arch: str) -> Config:
    return load(f'seg/upernet_unireplknet_{arch}_160k.py')


def classification(arch: str) -> Config:
    return load(f'cls/unireplknet_{arch}_in1k.py')


def pretraining(arch: str) -> Config:
    return load(f'cls/unireplknet_{arch}_in22k.py')


def mask_rcnn(arch: str) -> Config:
    return load(f'det/mask_rcnn_unireplknet_{arch}_1x.py')


def fine_tuning(arch: str) -> Config:
    return load(f'cls/unireplknet_{arch}_in22k_to_in1k_384.py')


ALL = [
    *((detection, arch, 16) for arch in DETECTION),
    *((segmentation, arch, 16) for arch in SEGMENTATION),
    *((mask_rcnn, arch, 16) for arch in SMALL),
    *((classification, arch, 4096) for arch in CLASSIFICATION),
    *((pretraining, arch, 4096) for arch in PRETRAINING),
    *((fine_tuning, arch, 512) for arch in FINE_TUNING),
]


@pytest.mark.parametrize(('recipe', 'arch', 'batch'), ALL)
def test_batch(recipe, arch, batch):
    cfg = recipe(arch)
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    images_per_step = cfg.train_dataloader.batch_size * GPUS
    assert images_per_step * accumulated == batch
    # MMEngine scales the learning rate by images of one step over this, whatever is accumulated.
    assert cfg.auto_scale_lr.base_batch_size == images_per_step
    assert cfg.auto_scale_lr.enable is False


@pytest.mark.parametrize(('recipe', 'arch', 'batch'), ALL)
def test_architecture_and_optimizer(recipe, arch, batch):
    cfg = recipe(arch)
    assert cfg.model.backbone.arch == arch.split('_')[0]
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.paramwise_cfg.num_layers == 12
    assert cfg.optim_wrapper.get('clip_grad') is None


@pytest.mark.parametrize('arch', DETECTION)
def test_detection(arch):
    cfg = detection(arch)
    drop_path, decay_rate, averaged, weights = DETECTION[arch]
    backbone = cfg.model.backbone
    assert backbone.drop_path_rate == drop_path
    assert backbone.norm_cfg.type == 'SyncBN'
    assert backbone.with_cp is (arch not in SMALL)
    assert PUBLISHED[backbone.init_cfg.checkpoint].file_name == weights
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == decay_rate
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.train_cfg.max_epochs == 36
    hooks = [hook for hook in cfg.get('custom_hooks', ()) if hook.type == 'EMAHook']
    assert bool(hooks) is averaged
    for hook in hooks:
        assert (hook.ema_type, hook.momentum) == ('ExpMomentumEMA', 1e-4)


def test_detection_heads():
    cfg = detection('s')
    heads = cfg.model.roi_head.bbox_head
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]
    for head in heads:
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.norm_cfg.type == 'SyncBN'
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('GIoULoss', 10.0)
        assert head.reg_decoded_bbox and not head.reg_class_agnostic
    thresholds = [stage.assigner.pos_iou_thr for stage in cfg.model.train_cfg.rcnn]
    assert thresholds == [0.5, 0.6, 0.7]


def test_detection_augmentation():
    cfg = detection('t')
    (choice,) = [step for step in cfg.train_pipeline if step.type == 'RandomChoice']
    resized, cropped = choice.transforms
    scales = [(shorter, 1333) for shorter in range(480, 801, 32)]
    assert [tuple(scale) for scale in resized[0].scales] == scales
    assert [tuple(scale) for scale in cropped[2].scales] == scales
    assert [scale[0] for scale in cropped[0].scales] == [400, 500, 600]
    assert cropped[1].crop_size == (384, 600)
    assert cfg.test_pipeline[1].scale == (1333, 800)


@pytest.mark.parametrize('arch', SEGMENTATION)
def test_segmentation(arch):
    cfg = segmentation(arch)
    drop_path, decay_rate, crop, with_cp, weights = SEGMENTATION[arch]
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.model.backbone.norm_cfg.type == 'SyncBN'
    assert cfg.model.backbone.with_cp is with_cp
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == decay_rate
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.train_cfg.max_iters == 160000
    assert tuple(cfg.crop_size) == tuple(cfg.model.data_preprocessor.size) == (crop, crop)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomCrop'].crop_size == (crop, crop)
    assert steps['RandomResize'].scale == (4 * crop, crop)
    for dataloader in (cfg.val_dataloader, cfg.test_dataloader):
        steps = {step.type: step for step in dataloader.dataset.pipeline}
        assert steps['Resize'].scale == (4 * crop, crop)
        assert steps['ResizeToMultiple'].size_divisor == 32
    assert cfg.model.test_cfg.mode == 'whole'
    auxiliary = cfg.model.auxiliary_head
    assert (auxiliary.in_index, auxiliary.loss_decode.loss_weight) == (2, 0.4)
    assert cfg.model.backbone.init_cfg.checkpoint == f'unireplknet_{arch.split("_")[0]}_{weights}'


@pytest.mark.parametrize('arch', CLASSIFICATION)
def test_classification(arch):
    cfg = classification(arch)
    mixup, cutmix, drop_path = CLASSIFICATION[arch]
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [
        ('Mixup', mixup),
        ('CutMix', cutmix),
    ]
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.optim_wrapper.optimizer.lr == 4e-3
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 1
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 5
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == 224
    assert steps['RandomErasing'].erase_prob == 0.25
    assert 'custom_hooks' not in cfg


@pytest.mark.parametrize('arch', SMALL)
def test_mask_rcnn_is_cascade_but_for_the_heads_and_the_schedule(arch):
    cfg, cascade = mask_rcnn(arch), detection(arch)
    for key in ('backbone', 'neck', 'data_preprocessor', 'test_cfg'):
        assert cfg.model[key] == cascade.model[key]
    assert cfg.optim_wrapper == cascade.optim_wrapper
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]
    assert 'custom_hooks' not in cfg
    (resize,) = [step for step in cfg.train_dataloader.dataset.pipeline if 'Resize' in step.type]
    assert resize.scale == (1333, 800)


# config: drop path, layer decay, learning rate, images a step, length, gradients' norm; all of them with T
OTHERS = {
    'det/rtmdet_unireplknet_t_100e': (0.3, 0.8, 1e-3, 128, 100, None),
    'det/dino_unireplknet_t_12e': (0.2, 0.8, 1e-4, 16, 12, 0.1),
    'det/mask2former_unireplknet_t_50e': (0.3, 0.8, 1e-4, 16, 50, 0.01),
    'seg/mask2former_unireplknet_t_160k': (0.2, 0.9, 1e-4, 16, 160000, 0.01),
}


@pytest.mark.parametrize('name', OTHERS)
def test_todays_detectors_and_segmenters(name):
    cfg = load(f'{name}.py')
    drop_path, decay_rate, rate, batch, length, norm = OTHERS[name]
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.init_cfg.checkpoint) == ('t', 'unireplknet_t_in1k')
    assert (backbone.drop_path_rate, backbone.with_cp) == (drop_path, True)
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == decay_rate
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    assert cfg.optim_wrapper.optimizer.lr == rate
    clipping = cfg.optim_wrapper.get('clip_grad')
    assert (clipping.max_norm if clipping else None) == norm
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=batch)
    gpus = 4 if 'rtmdet' in name else GPUS
    assert cfg.train_dataloader.batch_size * gpus == batch
    assert cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters')) == length
    docstring = (ROOT / 'configs' / f'{name}.py').read_text().split('"""')[1]
    assert f'configs/{name}.py {gpus}\n' in docstring


@pytest.mark.parametrize('arch', PRETRAINING)
def test_pretraining(arch):
    cfg = pretraining(arch)
    size, drop_path = PRETRAINING[arch]
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.model.backbone.get('with_cp', False) is (arch == 'h')
    assert 'init_cfg' not in cfg.model.backbone
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 21841
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]
    assert cfg.optim_wrapper.optimizer.lr == 4e-3
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.train_cfg.max_epochs == 90
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 5
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.split) == ('ImageNet21k', 'train')
    steps = {step.type: step for step in dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == size
    assert steps['RandomErasing'].erase_prob == 0.25
    assert 'RandAugment' in steps and 'custom_hooks' not in cfg


def test_h_is_fine_tuned_as_xl_from_its_own_weights():
    h, xl = fine_tuning('h'), fine_tuning('xl')
    assert h.model.backbone.init_cfg.checkpoint == 'work_dirs/unireplknet_h_in22k/epoch_90.pth'
    for cfg in (h, xl):
        for key in ('arch', 'init_cfg', 'with_cp'):
            cfg.model.backbone.pop(key, None)
        cfg.model.head.pop('in_channels')
    assert h._cfg_dict == xl._cfg_dict


@pytest.mark.parametrize('arch', FINE_TUNING)
def test_fine_tuning(arch):
    cfg = fine_tuning(arch)
    epochs, smoothing, drop_path = FINE_TUNING[arch]
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert 'augments' not in cfg.model.get('train_cfg', {})
    assert cfg.model.head.loss.label_smooth_val == smoothing
    assert cfg.optim_wrapper.optimizer.lr == 5e-5
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-8
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.8
    assert cfg.train_cfg.max_epochs == epochs
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == 384
    assert steps['RandomErasing'].erase_prob == 0.25
    for dataloader in (cfg.val_dataloader, cfg.test_dataloader):
        assert dataloader.dataset.pipeline[1].scale == (384, 384)
    assert cfg.model.backbone.init_cfg.checkpoint == f'unireplknet_{arch}_in22k'
    hooks = cfg.get('custom_hooks', [])
    assert bool(hooks) is (arch in ('l', 'xl'))
    for hook in hooks:
        # One averaging for each step of the optimizer.
        assert hook.get('interval', 1) == cfg.optim_wrapper.get('accumulative_counts', 1)
        assert hook.momentum == 1e-4


# recipe, arch: iterations and update steps of an epoch, epochs of warm-up. 2496 = 312 * 8 and 5004 = 2502 * 2
# are the whole steps in 1,281,167 images, as the published code counts them; MMEngine would do 2503 and 5005.
# Without a remainder nothing is dropped: 1252 = 313 * 4, the last step of which is not full.
# Of ImageNet-22K's 14,197,122 images, 3466 steps of 4096.
IMAGENET_IMAGES = {classification: 1281167, fine_tuning: 1281167, pretraining: 14197122}
IMAGENET_EPOCHS = {
    **{(classification, arch): (1252, 313, 5) for arch in ('a', 'f', 'p', 'n', 't')},
    (classification, 's'): (2496, 312, 5),
    **{(fine_tuning, arch): (2503, 2503, 0) for arch in ('s', 'b', 'l')},
    (fine_tuning, 'xl'): (5004, 2502, 0),
    **{(pretraining, arch): (3466 * 16, 3466, 5) for arch in ('s', 'b', 'xl', 'h')},
    (pretraining, 'l'): (3466 * 8, 3466, 5),
}


def test_epochs_are_stated_for_every_recipe():
    expected = {(recipe, arch) for recipe, arch, _ in ALL if recipe in IMAGENET_IMAGES}
    assert IMAGENET_EPOCHS.keys() == expected


@pytest.mark.parametrize(('recipe', 'arch'), IMAGENET_EPOCHS)
def test_epochs_are_whole_update_steps_on_eight_gpus(tmp_path, monkeypatch, recipe, arch):
    iterations, steps, warmup = IMAGENET_EPOCHS[recipe, arch]
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, GPUS))
    cfg = recipe(arch)
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    loader = dict(
        batch_size=cfg.train_dataloader.batch_size,
        sampler=cfg.train_dataloader.sampler,
        dataset=range(IMAGENET_IMAGES[recipe]),
    )
    runner = build_runner(cfg, tmp_path, loader, cfg.train_cfg, accumulative_counts=accumulated)
    assert len(runner.train_dataloader) == iterations == steps * accumulated
    assert runner.max_iters == cfg.train_cfg.max_epochs * iterations
    *_, cosine = runner.build_param_scheduler(cfg.param_scheduler)
    assert (cosine.begin, cosine.end) == (warmup * iterations, runner.max_iters)
    assert cosine.T_max == runner.max_iters - warmup * iterations


def test_a_recipe_that_accumulates_has_whole_steps():
    """And so have all recipes for ImageNet, whose schedules share it."""
    paths = [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(paths) >= 20
    for path in paths:
        cfg = load_config(path)
        accumulates = cfg.optim_wrapper.get('accumulative_counts', 1) > 1
        whole_steps = cfg.train_cfg.get('type') == 'WholeStepTrainLoop'
        assert whole_steps or not accumulates, path
        assert whole_steps or cfg.model.type != 'ImageClassifier', path


class OneParameter(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.weight.sum())


def build_runner(
    cfg: Config, tmp_path: Path, loader: dict, train_cfg: dict, **optim_wrapper: int
) -> Runner:
    """A runner with the config's schedule and a model of one parameter, ready to train."""
    optimizer = dict(type='SGD', lr=cfg.optim_wrapper.optimizer.lr)
    runner = Runner(
        model=OneParameter(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=optimizer, **optim_wrapper),
        param_scheduler=cfg.param_scheduler,
        experiment_name=tmp_path.name,
        default_scope=cfg.default_scope,
    )
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    return runner


def learning_rates(cfg: Config, tmp_path: Path, iterations: int, epoch_length: int) -> np.ndarray:
    """The learning rate of each of the first iterations, as MMEngine's runner schedules it."""
    loader = dict(
        batch_size=1,
        dataset=list(range(epoch_length)),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    runner = build_runner(cfg, tmp_path, loader, cfg.train_cfg)
    schedulers = runner.build_param_scheduler(cfg.param_scheduler)
    group = runner.optim_wrapper.optimizer.param_groups[0]
    rates = np.empty(iterations)
    for iteration in range(iterations):
        rates[iteration] = group['lr']
        end_of_epoch = (iteration + 1) % epoch_length == 0
        for scheduler in schedulers:
            if not scheduler.by_epoch or end_of_epoch:
                scheduler.step()
    return rates


def test_detection_learning_rate(tmp_path):
    cfg = detection('t')
    rates = learning_rates(cfg, tmp_path, iterations=36 * 20, epoch_length=20)
    iteration = np.arange(len(rates))
    expected = 1e-4 * np.where(iteration // 20 < 27, 1, np.where(iteration // 20 < 33, 0.1, 0.01))
    expected *= np.minimum(1, 0.001 + 0.999 * iteration / 499)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_segmentation_learning_rate(tmp_path):
    cfg = segmentation('t')
    iterations = cfg.train_cfg.max_iters
    rates = learning_rates(cfg, tmp_path, iterations, epoch_length=1000)
    iteration = np.arange(iterations)
    expected = 1e-4 * (1 - iteration / (iterations - 1))  # MMEngine is at 0 in the last one
    expected *= np.minimum(1, 1e-6 + (1 - 1e-6) * iteration / 1499)
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-15)


def test_classification_learning_rate(tmp_path):
    cfg = classification('t')
    rates = learning_rates(cfg, tmp_path, iterations=300 * 10, epoch_length=10)
    warmup = np.minimum(1, 1e-6 + (1 - 1e-6) * np.arange(50) / 49)
    cosine = (1 + np.cos(np.pi * np.arange(2950) / 2950)) / 2
    expected = np.concatenate([4e-3 * warmup, 1e-6 + (4e-3 - 1e-6) * cosine])
    np.testing.assert_allclose(rates, expected, rtol=1e-3)


def test_fine_tuning_learning_rate_ends_at_a_fiftieth(tmp_path):
    cfg = fine_tuning('l')
    rates = learning_rates(cfg, tmp_path, iterations=20 * 10, epoch_length=10)
    cosine = (1 + np.cos(np.pi * np.arange(200) / 200)) / 2
    np.testing.assert_allclose(rates, 1e-6 + (5e-5 - 1e-6) * cosine, rtol=1e-6)


def test_average_of_the_detector_starts_with_large_steps():
    pytest.importorskip('mmdet')
    cfg = detection('b')
    (hook_cfg,) = cfg.custom_hooks
    hook_cfg.pop('priority')  # for the runner
    with DefaultScope.overwrite_default_scope('mmdet'):
        hook = HOOKS.build(hook_cfg)
        assert isinstance(hook, EMAHook)
        model = nn.BatchNorm2d(1)
        averaged = MODELS.build(hook.ema_cfg, default_args=dict(model=model))
    averaged.update_parameters(model)  # the first call copies
    nn.init.constant_(model.weight, 2.0)
    model.running_mean.fill_(3.0)
    averaged.update_parameters(model)
    momentum = (1 - 1e-4) * np.exp(-2 / 2000) + 1e-4
    assert averaged.module.weight.item() == pytest.approx(1 + momentum)
    assert averaged.module.running_mean.item() == pytest.approx(3 * momentum)


@pytest.fixture
def demo_image(tmp_path):
    """What mmseg's data set hands to its pipeline for a 90×60 image."""
    register_all_modules = pytest.importorskip('mmseg.utils').register_all_modules
    register_all_modules(init_default_scope=False)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (90, 60, 3), dtype=np.uint8)
    labels = generator.integers(0, 151, (90, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.jpg')
    Image.fromarray(labels).save(tmp_path / 'labels.png')
    return dict(
        img_path=str(tmp_path / 'image.jpg'),
        seg_map_path=str(tmp_path / 'labels.png'),
        reduce_zero_label=True,
        seg_fields=[],
    )


@pytest.mark.parametrize(
    ('arch', 'ratios'), [('s', (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)), ('b', (0.75, 1.0, 1.25))]
)
def test_multi_scale_testing_of_segmentation(demo_image, arch, ratios):
    cfg = segmentation(arch)
    with DefaultScope.overwrite_default_scope('mmseg'):
        batch = Compose(cfg.tta_pipeline)(demo_image)
    shapes = [tuple(inputs.shape[1:]) for inputs in batch['inputs']]
    crop = cfg.crop_size[0]
    # A 90×60 image scaled to a shorter side of crop * ratio, each side rounded up to 32.
    expected = [
        tuple(int(np.ceil(side * crop * ratio / 60 / 32)) * 32 for side in (90, 60))
        for ratio in ratios
        for _ in (False, True)
    ]
    assert shapes == expected
    assert [s.metainfo['flip'] for s in batch['data_samples']] == [False, True] * len(ratios)


def test_multi_scale_predictions_have_the_size_of_the_image(demo_image):
    cfg = segmentation('t')
    cfg.model.backbone.arch = dict(
        depths=(1, 1, 1, 1), channels=(4, 8, 16, 32), kernel_sizes=(3, 5, 5, 5)
    )
    cfg.model.backbone.init_cfg = None
    cfg.model.decode_head.update(in_channels=[4, 8, 16, 32], channels=8)
    cfg.model.auxiliary_head.update(in_channels=16, channels=8)
    for resize in cfg.tta_pipeline[1].transforms[0]:
        resize.scale = tuple(side // 8 for side in resize.scale)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(dict(type=cfg.tta_model.type, module=cfg.model)).eval()
        batch = Compose(cfg.tta_pipeline)(demo_image)
        (result,) = model.test_step({key: [[v] for v in values] for key, values in batch.items()})
    assert len(batch['inputs']) == 12
    assert result.pred_sem_seg.data.shape[-2:] == (90, 60)
