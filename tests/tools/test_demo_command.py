"""The demo deletes nothing but what an earlier demo left. What it trains is in tests/configs."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from helpers import read_tree
from tool_runs import TOOLS

from unireplknet_mm.errors import ExistingFileError, UserError

RESULTS = (
    '20261120_101500/20261120_101500.log',
    'best_coco_bbox_mAP_epoch_4.pth',
    'cascade_unireplknet_demo.py',
    'curve.png',
    'deploy.pth',
    'epoch_4.pth',
    'last_checkpoint',
    'predictions.png',
)
FOREIGN = ('thesis.txt', 'pictures/me.jpg', '.git/HEAD', 'weights.pth')


def write(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'content of {name}')
    return folder


@pytest.fixture
def demo(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module('demo')


@pytest.mark.parametrize('names', [FOREIGN, FOREIGN[:1], FOREIGN[2:3], RESULTS])
def test_folder_with_files_is_refused(call, tmp_path, names):
    """`RESULTS` without a summary: they may be those of a training with tools/train.py."""
    before = read_tree(write(tmp_path / 'own', names))
    first = sorted(name.split('/')[0] for name in names)[0]
    message = call('demo', '--work-dir', tmp_path / 'own', status=1)
    assert message.startswith(f'error: {tmp_path}/own was not made by a demo and holds {first}')
    assert message.endswith(
        '; nothing is deleted.\n'
        'Choose a new or an empty folder with --work-dir, or empty this one yourself.\n'
    )
    assert read_tree(tmp_path / 'own') == before


def test_working_directory_is_refused(call, tmp_path, monkeypatch):
    """A relative path is one from where the user is, not from the checkout."""
    before = read_tree(write(tmp_path, FOREIGN))
    monkeypatch.chdir(tmp_path)
    assert f'error: {tmp_path} was not made' in call('demo', '--work-dir', '.', status=1)
    assert f'error: {tmp_path}/pictures was not' in call('demo', '--work-dir', 'pictures', status=1)
    assert read_tree(tmp_path) == before


def test_link_to_a_folder_with_files_is_refused(call, tmp_path):
    before = read_tree(write(tmp_path / 'own', FOREIGN))
    (tmp_path / 'link').symlink_to(tmp_path / 'own')
    message = call('demo', '--work-dir', tmp_path / 'link', status=1)
    assert f'error: {tmp_path}/own was not made by a demo' in message
    assert read_tree(tmp_path / 'own') == before and (tmp_path / 'link').is_symlink()


def test_file_is_refused(demo, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError) as error:
        demo.claim_work_dir(tmp_path / 'file')
    assert str(error.value) == (
        f'{tmp_path}/file is a file, not a folder.\nChoose another one with --work-dir.'
    )


def test_misspelt_option(call, demo, tmp_path, monkeypatch):
    """Of what the runner builds only when it trains."""
    monkeypatch.setattr(demo, 'make_data', lambda cfg: None)
    monkeypatch.chdir(tmp_path)
    options = ('--cfg-options', 'train_dataloader.dataset.type=CocoDatset')
    message = call('demo', '--work-dir', tmp_path / 'demo', *options, status=1)
    assert message.endswith(
        'error: the config names CocoDatset, which is no registered dataset. Did you mean CocoDataset?\n'
        'One of your own is registered by its module: name that in custom_imports.\n'
    )


def test_nothing_is_left_of_a_config_that_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ('--cfg-options', 'default_scope.name=3')  # it leads through a string
    assert call('demo', '--work-dir', tmp_path / 'demo', *options, status=1).startswith('error: ')
    assert not (tmp_path / 'demo').exists()


@pytest.mark.parametrize('kind', ['new', 'empty', 'link'])
def test_new_and_empty_folders_are_taken(demo, tmp_path, kind):
    folder = tmp_path / kind
    if kind == 'empty':
        folder.mkdir()
    elif kind == 'link':
        (tmp_path / 'disk').mkdir()
        folder.symlink_to(tmp_path / 'disk')
    demo.claim_work_dir(folder)
    demo.claim_work_dir(folder)  # an interrupted demo, and the next one
    assert (folder / demo.MARKER).is_file()


def test_only_the_results_of_an_earlier_demo_are_replaced(demo, tmp_path):
    folder = tmp_path / 'demo'
    demo.claim_work_dir(folder)
    write(folder, (*RESULTS, 'summary.md', '.epoch_4.pth.17.partial', *FOREIGN))
    elsewhere = write(tmp_path / 'elsewhere', FOREIGN)
    (folder / '20261120_101501').symlink_to(elsewhere)
    demo.claim_work_dir(folder)
    demo.remove_earlier_results(folder)
    assert sorted(read_tree(folder)) == sorted([demo.MARKER, *FOREIGN])
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(
        [demo.MARKER, *{name.split('/')[0] for name in FOREIGN}]
    )
    assert sorted(read_tree(elsewhere)) == sorted(FOREIGN)


def test_finished_demo_of_an_earlier_version_is_known_by_its_summary(demo, tmp_path):
    folder = write(tmp_path / 'demo', RESULTS)
    row = dict.fromkeys(('box AP', 'images/s'), 0.5)
    (folder / 'summary.md').write_text(demo.summarize(row, row))
    demo.claim_work_dir(folder)
    demo.remove_earlier_results(folder)
    assert sorted(read_tree(folder)) == [demo.MARKER]

    write(folder := tmp_path / 'own', (*RESULTS, 'summary.md'))
    with pytest.raises(ExistingFileError):
        demo.claim_work_dir(folder)
