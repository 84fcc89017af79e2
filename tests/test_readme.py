"""What the README and the pages of docs/ show works as written there, and what they name exists."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import unireplknet_mm  # noqa: F401  (registers the backbone)

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
EXAMPLES = re.findall(r'<!-- tested: [^>]+ -->\n```python\n(.*?)```', README, re.DOTALL)


def test_the_config_example_builds_and_runs(tmp_path):
    path = tmp_path / 'mask_rcnn_unireplknet.py'
    path.write_text(EXAMPLES[0], encoding='utf-8')
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.pop('init_cfg')['type'] == 'Pretrained'  # a download
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps[:2]] == [(256, 16, 24), (256, 8, 12)]


def test_the_python_example_runs():
    namespace = {}
    exec(EXAMPLES[1], namespace)
    assert [m.shape[-1] for m in namespace['maps']] == [56, 28, 14, 7]
    assert namespace['backbone'].deploy


def test_the_timm_example_runs():
    pytest.importorskip('timm', reason='timm is not installed')
    namespace = {}
    exec(EXAMPLES[2], namespace)
    assert namespace['logits'].shape == (1, 10)
    assert namespace['maps'].feature_info.reduction() == [8, 16, 32]


def test_all_examples_are_tested():
    assert len(EXAMPLES) == README.count('```python') == 3


PAGES = [ROOT / 'README.md', ROOT / 'ops' / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_or_names_exists(page):
    text = page.read_text(encoding='utf-8')
    links = {link for link in re.findall(r'\]\(([^)#]+)[^)]*\)', text) if '://' not in link}
    missing = [link for link in links if not (page.parent / link).exists()]
    named = set(re.findall(r'`((?:unireplknet_mm|configs|tools|scripts|docs)/[\w./]+\w/?)`', text))
    missing += [path for path in named if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize(
    'path',
    sorted(
        set(re.findall(r'\b((?:configs|tools|scripts|docs|ops|requirements)/[\w./]+\w)', README))
    ),
)
def test_paths_that_the_readme_names_exist(path):
    assert list(ROOT.glob(path)), path


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for target in set(re.findall(r'\bmake ([a-z-]+)\b', README)):
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target
