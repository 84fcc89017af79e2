"""A file is either the old one or the new one; folders are tried before anything is written there."""

import os

import pytest

from unireplknet_mm.errors import UserError
from unireplknet_mm.files import (
    PARTIAL,
    create_folder,
    remove_partial_files,
    replacing,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with replacing(path) as partial:
        partial.write_text('whole')
        assert names(path.parent) == [partial.name]
        assert partial.name.startswith('.a.txt.') and partial.suffix == PARTIAL
    assert names(path.parent) == ['a.txt']
    assert path.read_text() == 'whole'


def test_writers_that_look_at_the_extension_can_have_it(tmp_path):
    with replacing(tmp_path / 'a.pkl', keep_extension=True) as partial:
        partial.touch()
        assert partial.suffix == '.pkl'
    assert names(tmp_path) == ['a.pkl']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text('half')
        raise error
    assert names(tmp_path) == ['a.txt']
    assert path.read_text() == 'old'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')

    def disk_full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', disk_full)
    with pytest.raises(OSError, match='No space left'):
        write_text(path, 'new')
    assert names(tmp_path) == ['a.txt']
    assert path.read_text() == 'old'


def test_text_is_utf_8_and_has_the_usual_permissions(tmp_path):
    (tmp_path / 'plain').touch()
    write_text(tmp_path / 'new' / 'atomic', 'K×K')
    assert (tmp_path / 'new' / 'atomic').read_bytes() == 'K×K'.encode()
    modes = [(tmp_path / name).stat().st_mode for name in ('plain', 'new/atomic')]
    assert modes[0] == modes[1]


def test_partial_files_are_removed_and_others_are_not(tmp_path):
    with replacing(tmp_path / 'iter_1.pth') as partial:
        partial.write_bytes(b'half')
        stale = partial.rename(partial.with_name(partial.name.replace('iter_1', 'iter_2')))
        partial.write_bytes(b'whole')
    (tmp_path / '.hidden').touch()
    assert remove_partial_files(tmp_path) == [stale]
    assert names(tmp_path) == ['.hidden', 'iter_1.pth']


def test_a_folder_is_created_and_left_empty(tmp_path):
    create_folder(tmp_path / 'new' / 'folder', '--work-dir')
    assert not names(tmp_path / 'new' / 'folder')


def test_a_folder_that_cannot_be_created_is_named_with_its_option(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as info:
        create_folder('file/work', '--work-dir')
    assert str(info.value) == (
        f'cannot write to {tmp_path}/file/work: Not a directory.\nChoose another one with --work-dir.'
    )
    assert names(tmp_path) == ['file']


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='/proc is what nobody can write to')
def test_a_folder_that_cannot_be_written():
    with pytest.raises(UserError) as info:
        create_folder('/proc', '--work-dir')
    assert str(info.value).startswith('cannot write to /proc: ')
