"""`model-index.yml` against the configs, their docstrings and the table of published weights."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from unireplknet_mm.weights import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
MODELS = INDEX['Models']
URLS = {weights.url: weights for weights in PUBLISHED.values()}


def docstring(model: dict) -> str:
    return ' '.join((ROOT / model['Config']).read_text().split('"""')[1].split())


@pytest.fixture(params=MODELS, ids=[model['Name'] for model in MODELS])
def model(request):
    return request.param


def test_every_config_with_figures_of_the_paper_is_listed_once():
    listed = [model['Config'] for model in MODELS]
    published = {
        str(path.relative_to(ROOT))
        for task in ('cls', 'det', 'seg')
        for path in (ROOT / 'configs' / task).glob('*.py')
        if 'Paper:' in path.read_text()
    }
    assert len(set(listed)) == len(listed)
    assert set(listed) == published


def test_name_and_collection(model):
    assert model['Name'] == Path(model['Config']).stem
    assert model['In Collection'] in [collection['Name'] for collection in INDEX['Collections']]


def test_figures_are_those_of_the_docstring_and_marked_as_the_papers(model):
    text = docstring(model)
    for result in model['Results']:
        assert result['Source'] == 'paper'
        for figure in result['Metrics'].values():
            assert str(figure) in text
    millions, billions = (model['Metadata'][key] for key in ('Parameters', 'FLOPs'))
    assert f'{millions / 1e6:g} M parameters' in text.replace('.0 M', ' M')
    assert f'{billions / 1e9:g} GFLOPs' in text


def test_input_size_is_the_one_of_the_config(model):
    cfg = Config.fromfile(ROOT / model['Config'])
    width, height = (int(side) for side in model['Metadata']['Input size'].split('x'))
    if cfg.default_scope == 'mmseg':
        assert (height, width) == (cfg.crop_size[0], 4 * cfg.crop_size[1])
    elif cfg.default_scope == 'mmpretrain':
        assert height == width == cfg.train_pipeline[1].scale
    else:
        assert (width, height) == (1280, 800)


def test_weights_are_published_ones_of_the_architecture(model):
    arch = Config.fromfile(ROOT / model['Config']).model.backbone.arch
    if model['Weights'] in URLS:
        assert URLS[model['Weights']].arch == arch
    else:
        # The other detectors and segmenters have no file name in the authors' documents.
        assert model['Weights'].startswith('https://drive.google.com/file/d/')
        assert model['Config'].split('/')[1] in ('det', 'seg')


def test_pretraining_agrees_with_the_weights_that_training_starts_from(model):
    backbone = Config.fromfile(ROOT / model['Config']).model.backbone
    data = model['Metadata']['Training Data']
    if 'init_cfg' not in backbone:
        assert data == ['ImageNet-1K']
        return
    weights = PUBLISHED[backbone.init_cfg.checkpoint]
    assert weights.arch == backbone.arch
    pretraining = [name.strip() for name in weights.dataset.split(', then ')]
    assert data == [*pretraining, data[-1]]


PAGE = (ROOT / 'docs' / 'models.md').read_text(encoding='utf-8')
ROWS = dict(
    re.findall(r'^\| \[[^]]+\]\(\.\./(configs/[\w/]+\.py)\) \| (.*) \|$', PAGE, re.MULTILINE)
)


def test_the_page_of_models_has_a_row_for_each():
    assert {model['Config'] for model in MODELS} <= ROWS.keys()


def test_the_page_of_models_says_the_same(model):
    cells = [cell.strip() for cell in ROWS[model['Config']].split('|')]
    figures = {value for result in model['Results'] for value in result['Metrics'].values()}
    millions, billions = (model['Metadata'][key] for key in ('Parameters', 'FLOPs'))
    parameters = next(i for i, cell in enumerate(cells) if cell.endswith(' M'))
    assert float(cells[parameters].removesuffix(' M')) == pytest.approx(millions / 1e6)
    assert float(cells[parameters + 1].removesuffix(' G')) == pytest.approx(billions / 1e9)
    assert {float(cell) for cell in cells[parameters + 2 :]} == figures
    assert cells[0] == ('22K' if 'ImageNet-22K' in model['Metadata']['Training Data'] else '1K')


def test_figures_are_those_of_the_published_file(model):
    weights = URLS.get(model['Weights'])
    if weights is None or weights.figure is None:
        return
    stated = [float(number) for number in re.findall(r'\d+\.\d+', weights.figure)]
    assert stated == [value for result in model['Results'] for value in result['Metrics'].values()]
