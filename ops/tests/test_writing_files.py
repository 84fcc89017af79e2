"""A file is either the old one or the new one, and one that cannot be written is the user's to mend."""

import os

import pytest

from unireplknet_ops.errors import FileError, UserError
from unireplknet_ops.files import write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_in_a_new_folder_and_its_replacement(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    for text in ('K×K', 'k'):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert names(path.parent) == ['a.json']


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    path = tmp_path / 'a.json'
    path.write_bytes(b'old')
    with pytest.raises(FileError) as error:
        write_text(path, 'new')
    assert isinstance(error.value, UserError) and isinstance(error.value, OSError)
    assert str(error.value) == (
        f'{path} cannot be written: No space left on device.\nMend that, or choose another place.'
    )
    assert path.read_bytes() == b'old' and names(tmp_path) == ['a.json']


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(FileError, match='cannot be written: '):
        write_text(tmp_path / 'file' / 'a.json', 'new')
    assert names(tmp_path) == ['file']


def test_a_link_stays_and_other_than_files_are_refused(tmp_path):
    link, pipe = tmp_path / 'link.json', tmp_path / 'pipe'
    link.symlink_to('a.json')
    write_text(link, 'new')
    assert link.is_symlink() and (tmp_path / 'a.json').read_text() == 'new'
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(FileError, match='is no file, and cannot be replaced by one'):
            write_text(path, 'new')
    assert names(tmp_path) == ['a.json', 'link.json', 'pipe'] and pipe.is_fifo()
