"""The pages of docs/: examples run, tables agree with the code, and tests that a page names exist."""

import re
from pathlib import Path

import pytest
import torch
from helpers import published_weights, save

from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.weights import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / 'docs').glob('*.md'))


def read(name: str) -> str:
    return (ROOT / 'docs' / f'{name}.md').read_text(encoding='utf-8')


def examples(name: str) -> list[str]:
    pattern = r'<!-- tested: tests/test_docs.py -->\n```python\n(.*?)```'
    return re.findall(pattern, read(name), re.DOTALL)


def test_the_example_of_a_prediction(tmp_path, capsys):
    folder = make_demo_data('coco', tmp_path / 'coco', 1, 1, size=(120, 96))
    raw = {
        name: torch.zeros(()).expand(value.shape) for name, value in published_weights('a').items()
    }
    raw['head.bias'] = torch.zeros(1000)
    raw['head.bias'][281] = 20.0
    weights = save(tmp_path / 'a.pth', dict(model=raw))
    (example,) = examples('getting_started')
    exec(example, dict(PRETRAINED=str(weights), PICTURE=str(next(folder.rglob('*.jpg')))))
    # Behind a progress bar on the same line, or on one of its own.
    assert 'tabby, tabby cat 0.99' in capsys.readouterr().out.splitlines()[-1]


def test_the_example_of_folding():
    (example,) = examples('reparameterization')
    namespace = {}
    exec(example, namespace)
    assert namespace['backbone'].deploy


def test_the_table_of_weights_is_the_catalogue():
    rows = re.findall(r'^\| `(\w+)` \| (.*) \|$', read('weights'), re.MULTILINE)
    assert dict(rows) == {
        name: ' | '.join([w.arch.upper(), w.dataset, w.resolution, w.figure or 'for fine-tuning'])
        for name, w in PUBLISHED.items()
    }


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page):
    for path, name in re.findall(r'`([\w/]+\.py)::(\w+)`', page.read_text(encoding='utf-8')):
        assert re.search(
            rf'^ *def {name}\(', (ROOT / path).read_text(encoding='utf-8'), re.MULTILINE
        ), (
            path,
            name,
        )


def test_every_complaint_has_a_report_and_a_test_or_says_that_nothing_is_built():
    _, *sections = re.split(r'^## ', read('complaints'), flags=re.MULTILINE)
    assert len(sections) >= 10
    for section in sections:
        title, _, text = section.partition('\n')
        assert re.search(r'https://github\.com/[\w-]+/[\w-]+/(issues|pull)/\d+', text), title
        assert '::test_' in text, title
    links = re.findall(
        r'\[(?:[\w/-]+ )*(\d+)\]\(https://github\.com/([\w/-]+)/(?:issues|pull)/(\d+)\)',
        read('complaints'),
    )
    assert len(links) > 25 and all(shown == number for shown, _, number in links)
    assert {repository for _, repository, _ in links} <= {
        'AILab-CVC/UniRepLKNet',
        'DingXiaoH/RepLKNet-pytorch',
        'LMMMEng/OverLoCK',
        'MegEngine/RepLKNet',
        'VITA-Group/SLaK',
        'huggingface/pytorch-image-models',
    }


def test_paths_that_pages_name_exist():
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        for path in set(
            re.findall(
                r'(?<![\w/])((?:configs|tools|scripts|tests|requirements)/[\w/]+\.\w+)', text
            )
        ):
            assert (ROOT / path).exists(), (page.name, path)


def test_make_targets_that_pages_name_exist():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for page in PAGES:
        for target in set(re.findall(r'`make ([a-z-]+)`', page.read_text(encoding='utf-8'))):
            assert re.search(rf'^{target}:', makefile, re.MULTILINE), (page.name, target)
