"""The configs of videos: parameters, a step of each at its full size, the recipe, the rows of Table 11."""

from pathlib import Path

import pytest
from helpers import load_config
from modality_configs import build, millions, step_and_measure

from unireplknet_mm.models.whole_model import switch_to_deploy

CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / 'video'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))

# Millions of parameters in training and in deploy form, and GFLOPs of the deploy form, as counted by
# tools/get_flops.py; the paper says 55.5 M of UniRepLKNet-S.
SIZES = {
    'unireplknet_s_k400': (56.00, 55.18, 145.4),
    'unireplknet_b_reshape_k400': (98.25, 97.25, 256.7),
    'table_11_unireplknet_s_k11_k400': (55.54, 54.88, 144.5),
    'table_11_unireplknet_s_k13_k400': (56.00, 55.18, 145.4),
    'table_11_convnext_s_k400': (49.76, 49.76, 138.9),
    'table_11_resnet101_k400': (43.32, 43.32, 124.8),
}


def test_every_config_is_counted():
    assert set(SIZES) == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_step_at_full_size_and_the_parameters(name):
    """On the meta device: shapes of 16 frames of 224×224 through forward and backward."""
    *sizes, gflops = SIZES[name]
    measured = step_and_measure(CONFIGS / f'{name}.py')
    assert measured[0] == pytest.approx(sizes, abs=0.01)
    assert measured[1] == pytest.approx(gflops, abs=0.1)


def test_the_backbone_has_the_papers_parameters():
    """Without the head 55.69 M in training and 54.88 M in deploy form; the paper prints 55.5 M."""
    _, model = build(CONFIGS / 'unireplknet_s_k400.py')
    assert millions(model.backbone) == pytest.approx(55.69, abs=0.005)
    switch_to_deploy(model.eval())
    assert millions(model.backbone) == pytest.approx(54.88, abs=0.005)
    assert millions(model.embedding) == 0


def test_recipe_of_table_9():
    cfg = load_config(CONFIGS / 'unireplknet_s_k400.py')
    videos = 8 * cfg.train_dataloader.batch_size // 2 * cfg.optim_wrapper.accumulative_counts
    assert cfg.train_dataloader.sampler == dict(type='RepeatedSampler', num_repeats=2)
    assert videos == 64
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 4e-3 * videos / 256
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (90, 5)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    assert cfg.model.backbone.drop_path_rate == 0.4
    assert [augment.alpha for augment in cfg.model.train_cfg.augments] == [0.8, 1.0]
    load, each, _ = cfg.train_pipeline
    assert (load.num_frames, load.stride, load.random) == (16, 4, True)
    augment = each.transforms[0]
    assert (augment.magnitude_level, augment.num_policies, augment.magnitude_std) == (7, 4, 0.5)
    load, _, crops, _ = cfg.test_pipeline
    assert (load.num_clips, crops.num_crops, load.random if 'random' in load else False) == (
        5,
        3,
        False,
    )
    assert cfg.model.embedding == dict(type='FrameGrid', num_frames=16, layout='grid')


def test_the_published_codes_network():
    cfg, model = build(CONFIGS / 'unireplknet_b_reshape_k400.py')
    settings = model.backbone.arch_settings
    assert settings['channels'] == (128, 256, 512, 1024)
    assert settings['kernel_sizes'] == ((3,) * 3, (13,) * 3, (13, 3, 3) * 9, (11,) * 3)
    assert cfg.model.embedding.layout == 'reshape'


def test_rows_of_table_11_differ_in_the_network_alone():
    recipe = load_config(CONFIGS / 'unireplknet_s_k400.py')
    rows = [load_config(CONFIGS / f'{name}.py') for name in NAMES if name.startswith('table_11')]
    assert len(rows) == 4
    for row in rows:
        for key in ('train_dataloader', 'test_dataloader', 'optim_wrapper', 'param_scheduler'):
            assert row[key] == recipe[key]
        assert row.model.embedding == recipe.model.embedding
        assert row.model.train_cfg == recipe.model.train_cfg
    kernels = {11: ((3,) * 3, (11,) * 3, (11, 3, 3) * 9, (11,) * 3)}
    for size in (11, 13):
        _, model = build(CONFIGS / f'table_11_unireplknet_s_k{size}_k400.py')
        expected = kernels[11] if size == 11 else ((3,) * 3, (13,) * 3, (13, 3, 3) * 9, (13,) * 3)
        assert model.backbone.arch_settings['kernel_sizes'] == expected


@pytest.mark.parametrize(
    ('name', 'figure'),
    [
        ('unireplknet_s_k400', '54.8'),
        ('table_11_unireplknet_s_k13_k400', '54.8'),
        ('table_11_unireplknet_s_k11_k400', '51.7'),
        ('table_11_convnext_s_k400', '48.5'),
        ('table_11_resnet101_k400', '41.3'),
    ],
)
def test_docstrings_state_the_papers_figures(name, figure):
    assert f'Paper: top-1 {figure}' in (CONFIGS / f'{name}.py').read_text()
