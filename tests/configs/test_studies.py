"""The paper's design studies: each config is the row that its docstring names, with the paper's figures.

The table is typed from Tables 2, 3 and 11 (arXiv 2410.08049). What the suite counts agrees with the printed
parameters and FLOPs, which tells that the structures are the paper's.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import unireplknet_mm  # noqa: F401  (registers the backbones)

STUDIES = Path(__file__).resolve().parents[2] / 'configs' / 'studies'


class Row(NamedTuple):
    """Top-1 on ImageNet-1K, mIoU on ADE20K (Table 3) or Cityscapes (Table 2), parameters and FLOPs."""

    top_1: str
    miou: str | None = None
    parameters: str | None = None
    flops: str | None = None


TABLE_3 = {
    'vanilla': Row('81.6', '46.5', '32.9', '4.92'),
    'table_3a_none': Row('81.2', '45.1', '31.3', '4.92'),
    'table_3a_bottleneck': Row('81.5', '46.3', '32.9', '5.18'),
    'table_3a_two_1x1': Row('81.3', '46.2', '32.9', '5.17'),
    'table_3a_two_dw3x3': Row('81.3', '45.4', '31.4', '4.96'),
    'table_3b_none': Row('81.44 ± 0.04', '45.78 ± 0.05'),
    'table_3b_same_kernel_size': Row('81.55 ± 0.01', '46.07 ± 0.07'),
    'table_3b_same_equivalent_size': Row('81.59 ± 0.02', '46.17 ± 0.04'),
    'table_3c_3_11_11_11': Row('81.6', '45.5', '32.6', '4.86'),
    'table_3c_3_3_13_13': Row('81.7', '46.1', '32.8', '4.85'),
    'table_3c_3_13_3_13': Row('81.6', '45.9', '32.4', '4.81'),
    'table_3c_3_13_13_3': Row('81.4', '45.8', '32.5', '4.90'),
    'table_3c_3_15_15_15': Row('81.7', '45.9', '33.3', '4.99'),
    'table_3c_13_13_13_13': Row('81.6', '44.9', '33.0', '5.06'),
    'table_3d_27_lark': Row('82.3', '49.0', '56.7', '9.31'),
    'table_3d_14_lark_13_smak': Row('82.3', '48.8', '55.9', '9.15'),
    'table_3d_9_lark_18_smak': Row('82.3', '48.8', '55.6', '9.10'),
    'table_3d_9_lark_18_without_3x3': Row('82.2', '47.8', '55.5', '9.08'),
}
# UPerNet on the last stage alone, in parentheses in Table 3c
LAST_STAGE = {
    'table_3c': '42.4',
    'table_3c_3_11_11_11': '41.9',
    'table_3c_3_15_15_15': '42.7',
    'table_3c_13_13_13_13': '42.4',
}
TABLE_2 = {
    'mobilenet_v2': Row('71.76', '72.31', '2.64', '214.5'),  # MFLOPs
    'table_2a_3x3_without_shortcuts': Row('68.67'),
    'table_2a_13x13_without_shortcuts': Row('53.98'),
    'table_2b_9x9': Row('72.67', '76.11'),
    'table_2b_9x9_reparam': Row('73.09', '76.30'),
    'table_2b_13x13': Row('72.53', '75.67'),
    'table_2b_13x13_reparam': Row('73.24', '76.60'),
    'table_2c_7x7_last_stage': Row('72.00', '74.30', '2.67', '215.9'),
    'table_2c_9x9_last_stage': Row('71.83', '74.15', '2.69', '217.1'),
    'table_2c_13x13_last_stage': Row('71.97', '74.62', '2.75', '220.2'),
}
TABLE_2D = {
    'table_2d_3x3': Row('82.11', '46.05', '71.8', '12.9'),
    'table_2d_7x7': Row('82.73', '48.05', '72.2', '13.1'),
    'table_2d_13x13': Row('83.02', '48.35', '73.7', '13.4'),
}
SEGMENTERS = {  # with UPerNet, at 512×2048
    'table_2d_3x3': ('104.1', '1119'),
    'table_2d_7x7': ('104.6', '1123'),
    'table_2d_13x13': ('106.0', '1130'),
}
TABLE_11 = {
    'table_11_unireplknet_s_k11': '7.751 92.9 94.7 51.7',
    'table_11_unireplknet_s_k13': '7.602 93.2 98.5 54.8',
}
KERNELS = {
    'table_3d_27_lark': (13,) * 27,
    'table_3d_14_lark_13_smak': (13, 3) * 13 + (13,),
    'table_3d_9_lark_18_smak': (13, 3, 3) * 9,
    'table_3d_9_lark_18_without_3x3': (13, 1, 1) * 9,
}
ON_ADE20K = TABLE_3 | TABLE_2D
ROWS = ON_ADE20K | TABLE_2


def load(name: str) -> Config:
    return load_config(STUDIES / f'{name}.py')


def paper(name: str) -> str:
    """What the docstring says the paper has."""
    docstring = (STUDIES / f'{name}.py').read_text().split('"""')[1]
    return ' '.join(re.search(r'Paper:(.*?)Not reproduced here\.', docstring, re.DOTALL)[1].split())


def table(name: str) -> str:
    """What the docstring says which table it is of."""
    docstring = (STUDIES / f'{name}.py').read_text().split('"""')[1]
    return docstring.split('\n\n')[0]


def build(cfg: Config, deploy: bool = True) -> torch.nn.Module:
    """The config's model on the meta device."""
    cfg.model.backbone.deploy = deploy
    scope = DefaultScope.overwrite_default_scope(cfg.default_scope)
    with scope, torch.device('meta'):
        return MODELS.build(cfg.model).eval()


def count(model: torch.nn.Module) -> tuple[float, float]:
    """Millions of parameters and millions of multiply-adds at 224×224."""
    image = torch.empty(1, 3, 224, 224, device='meta')
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(model.extract_feat(image))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters / 1e6, counter.get_total_flops() / 2e6


def agrees(value: float, printed: str) -> bool:
    """To a unit of the last printed digit: some of the paper's figures are rounded, most cut off."""
    digits = len(printed.partition('.')[2])
    return abs(value - float(printed)) < 10**-digits


def test_every_row_has_its_configs():
    wanted = {f'{name}_in1k' for name in (*ROWS, *TABLE_11)}
    wanted |= {f'{name}_ade20k' for name in ON_ADE20K}
    wanted |= {f'{name}_last_stage_ade20k' for name in LAST_STAGE}
    wanted |= {f'{name}_cityscapes' for name, row in TABLE_2.items() if row.miou}
    assert {path.stem for path in STUDIES.glob('*.py')} == wanted


def test_docstrings_state_the_papers_figures():
    for name, row in ROWS.items():
        assert f'top-1 {row.top_1}' in paper(f'{name}_in1k'), name
        if row.parameters:
            unit = 'M' if name in TABLE_2 else 'G'
            assert f'; {row.parameters} M parameters and {row.flops} {unit}FLOPs' in paper(
                f'{name}_in1k'
            )
        data = 'cityscapes' if name in TABLE_2 else 'ade20k'
        if row.miou:
            assert f'mIoU {row.miou}' in paper(f'{name}_{data}'), name
    for name, (parameters, flops) in SEGMENTERS.items():
        assert f'; {parameters} M parameters and {flops} GFLOPs' in paper(f'{name}_ade20k')
    for name, miou in LAST_STAGE.items():
        assert f'mIoU {miou}' in paper(f'{name}_last_stage_ade20k')
    for name, figures in TABLE_11.items():
        assert re.findall(r'\d+\.\d+', paper(f'{name}_in1k')) == figures.split()
    for path in STUDIES.glob('table_*.py'):
        number = re.match(r'table_(\d+[a-d]?)_', path.stem)[1]
        assert f'Table {number} of the paper' in table(path.stem), path.stem


@pytest.mark.parametrize('name', [name for name, row in ON_ADE20K.items() if row.parameters])
def test_structures_have_the_papers_parameters_and_flops(name):
    parameters, mflops = count(build(load(f'{name}_in1k')))
    assert agrees(parameters, ROWS[name].parameters)
    assert agrees(mflops / 1e3, ROWS[name].flops)


@pytest.mark.parametrize('name', SEGMENTERS)
def test_segmenters_of_table_2d_have_the_papers_parameters_and_flops(name):
    """Without the auxiliary head, as in Table 7."""
    model = build(load(f'{name}_ade20k'))
    image = torch.empty(1, 3, 512, 2048, device='meta')
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.decode_head(model.extract_feat(image))
    parts = (model.backbone, model.decode_head)
    parameters = sum(p.numel() for part in parts for p in part.parameters())
    printed_parameters, printed_flops = SEGMENTERS[name]
    assert agrees(parameters / 1e6, printed_parameters)
    gflops = counter.get_total_flops() / 2e9
    assert gflops == pytest.approx(float(printed_flops), rel=0.002)


@pytest.mark.parametrize('name', [name for name, row in TABLE_2.items() if row.parameters])
def test_mobilenets_have_the_papers_parameters_and_flops(name):
    """It counts the norms' parameters, and an operation for each output of an activation or a shortcut.

    With those a row misses what is printed by 0.0004 M at most, in the way that the others are cut off; an
    operation for each output of a norm would be 0.3 M more.
    """
    cfg = load(f'{name}_in1k')
    cfg.model.backbone.small_kernel_size = None  # which is folded
    model = build(cfg, deploy=False)
    outputs = dict(activations=0, shortcuts=0, norms=0)

    def note(module, inputs, output):
        outputs['norms'] += isinstance(module, nn.BatchNorm2d) * output.numel()
        outputs['shortcuts'] += getattr(module, 'is_added', False) * output.numel()
        outputs['activations'] += (getattr(module, 'activation', None) is not None) * output.numel()

    for module in model.backbone.modules():
        if module is not model.backbone:
            module.register_forward_hook(note)
    parameters, mflops = count(model)
    assert agrees(parameters, TABLE_2[name].parameters)
    assert outputs == dict(activations=5_338_256, shortcuts=181_104, norms=5_855_304)
    counted = mflops + (outputs['activations'] + outputs['shortcuts']) / 1e6
    printed = float(TABLE_2[name].flops)
    assert printed <= counted < printed + 0.1004
    assert mflops + outputs['norms'] / 1e6 > printed + 0.2


@pytest.mark.parametrize('name', ROWS)
def test_recipe_is_that_of_appendix_b(name):
    """Table 16, but for 100 epochs and drop path 0.1."""
    cfg = load(f'{name}_in1k')
    assert cfg.train_cfg == dict(type='WholeStepTrainLoop', max_epochs=100, val_interval=1)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.train_dataloader.batch_size * 8 * cfg.optim_wrapper.accumulative_counts == 4096
    assert cfg.optim_wrapper.optimizer == load('../cls/unireplknet_t_in1k').optim_wrapper.optimizer
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 5
    assert cfg.model.head.loss.label_smooth_val == 0.1
    mixing = (0.3, 0.3) if name in TABLE_2 else (0.8, 1.0)
    assert tuple(augment.alpha for augment in cfg.model.train_cfg.augments) == mixing


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.miou])
def test_the_second_half_is_the_first_transferred(name):
    first = load(f'{name}_in1k')
    second = load(f'{name}_{"cityscapes" if name in TABLE_2 else "ade20k"}')
    assert second.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=f'work_dirs/{name}_in1k/epoch_100.pth'
    )
    structure = ('type', 'arch', 'branches', 'extra_structure')
    structure += ('widen_factor', 'kernel_sizes', 'small_kernel_size', 'has_shortcut')
    for key in structure:
        assert first.model.backbone.get(key) == second.model.backbone.get(key), key
    if name in ON_ADE20K:
        assert (second.train_cfg.max_iters, second.train_dataloader.batch_size) == (160000, 2)
        assert second.crop_size == (512, 512)
        assert second.optim_wrapper.optimizer.lr == 1e-4
    else:
        assert (second.train_cfg.max_iters, second.train_dataloader.batch_size) == (80000, 2)
        assert second.crop_size == (512, 1024)
        optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005)
        assert second.optim_wrapper.optimizer == optimizer
        assert second.auto_scale_lr.base_batch_size == 8


@pytest.mark.parametrize('name', KERNELS)
def test_arrangement_of_stage_3(name):
    assert build(load(f'{name}_in1k')).backbone.arch_settings['kernel_sizes'][2] == KERNELS[name]


def test_branches_of_table_3b():
    for name, sizes in (
        ('none', ()),
        ('same_kernel_size', (5, 7, 3, 3, 3)),
        ('same_equivalent_size', (5, 13, 7, 9, 11)),
    ):
        (branches,) = load(f'table_3b_{name}_in1k').model.backbone.branches.values()
        assert tuple(branches) == tuple((size, 1) for size in sizes)


@pytest.mark.parametrize('name', LAST_STAGE)
def test_the_last_stage_alone_is_decoded(name):
    cfg = load(f'{name}_last_stage_ade20k')
    whole = load(f'{"vanilla" if name == "table_3c" else name}_ade20k')
    assert cfg.model.backbone.arch == whole.model.backbone.arch
    assert cfg.model.backbone.init_cfg == whole.model.backbone.init_cfg
    picked = [cfg.model.backbone.out_indices[i] for i in cfg.model.decode_head.in_index]
    assert picked == [3] and cfg.model.decode_head.in_channels == [768]


def test_table_11_is_s_with_its_kernels():
    for size in (11, 13):
        backbone = build(load(f'table_11_unireplknet_s_k{size}_in1k')).backbone
        settings = dict(backbone.arch_settings)
        kernels = settings.pop('kernel_sizes')
        assert kernels == ((3,) * 3, (size,) * 3, (size, 3, 3) * 9, (size,) * 3)
        assert settings == dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768))
    recipe = load('../cls/unireplknet_s_in1k')
    cfg = load('table_11_unireplknet_s_k11_in1k')
    assert cfg.model.backbone.pop('arch') and recipe.model.backbone.pop('arch')
    assert cfg._cfg_dict == recipe._cfg_dict


def test_the_page_of_studies_says_the_same():
    page = (STUDIES.parents[1] / 'docs' / 'studies.md').read_text(encoding='utf-8')
    lines = {
        name: line
        for line in page.splitlines()
        for name in re.findall(r'\(\.\./configs/studies/(\w+)\.py\)', line)
    }
    assert lines.keys() == {path.stem for path in STUDIES.glob('*.py')}
    for name, row in ROWS.items():
        cells = [cell.strip() for cell in lines[f'{name}_in1k'].split('|')]
        assert row.top_1 in cells and (row.miou is None or row.miou in cells), name
        if row.parameters:
            unit = 'M' if name in TABLE_2 else 'G'
            assert f'{row.parameters} M' in cells and f'{row.flops} {unit}' in cells, name
        if row.miou:
            data = 'cityscapes' if name in TABLE_2 else 'ade20k'
            assert lines[f'{name}_{data}'] == lines[f'{name}_in1k'], name
    for name, miou in LAST_STAGE.items():
        assert lines[f'{name}_last_stage_ade20k'].endswith(f'| {miou} |')
    for name, figures in TABLE_11.items():
        assert re.findall(r'\d+\.\d+', lines[f'{name}_in1k']) == figures.split()
