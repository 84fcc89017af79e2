"""The configs of point clouds: parameters, a step of each at full size, the recipe, the rows of Table 11."""

from pathlib import Path

import pytest
import torch
from helpers import load_config
from mmpretrain.models import LabelSmoothLoss
from modality_configs import build, step_and_measure

CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / 'point_cloud'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))

# Millions of parameters in training and in deploy form, and GFLOPs of the deploy form, as counted by
# tools/get_flops.py; the paper says 55.5 M of UniRepLKNet-S. 11.7 of the GFLOPs are the projection's.
SIZES = {
    'unireplknet_s_modelnet40': (55.80, 54.99, 20.8),
    'unireplknet_s_four_views_modelnet40': (55.89, 55.08, 52.1),
    'unireplknet_s_scanobjectnn': (55.78, 54.97, 20.8),
    'table_11_unireplknet_s_k13_modelnet40': (55.80, 54.99, 20.8),
    'table_11_unireplknet_s_k11_modelnet40': (55.35, 54.69, 20.8),
    'table_11_convnext_s_modelnet40': (49.57, 49.57, 20.4),
    'table_11_resnet101_modelnet40': (42.67, 42.67, 19.5),
}


def test_every_config_is_counted():
    assert set(SIZES) == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_step_at_full_size_and_the_parameters(name):
    """On the meta device: shapes of 4,096 points and maps of 224×224 through forward and backward."""
    *sizes, gflops = SIZES[name]
    measured = step_and_measure(CONFIGS / f'{name}.py')
    assert measured[0] == pytest.approx(sizes, abs=0.01)
    assert measured[1] == pytest.approx(gflops, abs=0.1)


def test_recipe_of_table_10():
    cfg = load_config(CONFIGS / 'unireplknet_s_modelnet40.py')
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (
        5e-4,
        0.05,
    )
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (300, 16)
    assert cfg.model.backbone.drop_path_rate == 0.4
    steps = {step.type: step for step in cfg.train_pipeline}
    assert (steps['RandomScale'].low, steps['RandomScale'].high) == (2 / 3, 3 / 2)
    assert steps['RandomShift'].largest == 0.2
    assert (steps['SamplePoints'].count, steps['SamplePoints'].candidates) == (4096, 4800)
    embedding = cfg.model.embedding
    assert (embedding.form, embedding.size, embedding.num_neighbours) == ('three_planes', 224, 32)
    assert cfg.input_shape == (4096, 3)


@pytest.mark.parametrize('name', ['unireplknet_s_modelnet40', 'unireplknet_s_scanobjectnn'])
def test_label_smoothing_is_that_of_the_published_code(name):
    """0.8 on the class and 0.2 divided among the others."""
    cfg = load_config(CONFIGS / f'{name}.py')
    classes = cfg.data_preprocessor.num_classes
    loss = LabelSmoothLoss(
        cfg.model.head.loss.label_smooth_val, num_classes=classes, mode=cfg.model.head.loss.mode
    )
    scores = torch.randn(4, classes)
    labels = torch.tensor([0, 1, 2, classes - 1])
    targets = torch.full((4, classes), 0.2 / (classes - 1))
    targets[range(4), labels] = 0.8
    expected = -(targets * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(scores, labels), expected)


def test_the_published_codes_form():
    cfg, model = build(CONFIGS / 'unireplknet_s_four_views_modelnet40.py')
    assert model.embedding.num_views == model.neck.num_views == 4
    assert model.head.in_channels == 4 * 768
    assert (cfg.model.embedding.splat, model.embedding.to_image.out_channels) == ('box', 3)


def test_rows_of_table_11_differ_in_the_network_alone():
    recipe = load_config(CONFIGS / 'unireplknet_s_modelnet40.py')
    rows = [load_config(CONFIGS / f'{name}.py') for name in NAMES if name.startswith('table_11')]
    assert len(rows) == 4
    for row in rows:
        for key in ('train_dataloader', 'test_dataloader', 'optim_wrapper', 'param_scheduler'):
            assert row[key] == recipe[key]
        assert row.model.embedding == recipe.model.embedding
        assert row.model.head.loss == recipe.model.head.loss
    for size in (11, 13):
        _, model = build(CONFIGS / f'table_11_unireplknet_s_k{size}_modelnet40.py')
        expected = ((3,) * 3, (size,) * 3, (size, 3, 3) * 9, (size,) * 3)
        assert model.backbone.arch_settings['kernel_sizes'] == expected


@pytest.mark.parametrize(
    ('name', 'figure'),
    [
        ('unireplknet_s_modelnet40', '93.2, mAcc 90.3'),
        ('table_11_unireplknet_s_k13_modelnet40', '93.2'),
        ('table_11_unireplknet_s_k11_modelnet40', '92.9'),
        ('table_11_convnext_s_modelnet40', '92.7'),
        ('table_11_resnet101_modelnet40', '92.6'),
    ],
)
def test_docstrings_state_the_papers_figures(name, figure):
    assert f'Paper: OA {figure}' in (CONFIGS / f'{name}.py').read_text()
