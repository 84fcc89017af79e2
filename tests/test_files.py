"""A file is either the old one or the new one; what does not fit on the disk is said with a way out."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unireplknet_mm.errors import FileError, UserError
from unireplknet_mm.files import (
    PARTIAL,
    NoSpaceError,
    create_folder,
    creating_folder,
    no_space_error,
    remove_partial_files,
    replacing,
    write_bytes,
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
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', disk_full)
    with pytest.raises(NoSpaceError):
        write_text(path, 'new')
    assert names(tmp_path) == ['a.txt']
    assert path.read_text() == 'old'


def test_text_is_utf_8_and_has_the_usual_permissions(tmp_path):
    (tmp_path / 'plain').touch()
    write_text(tmp_path / 'new' / 'atomic', 'K×K')
    assert (tmp_path / 'new' / 'atomic').read_bytes() == 'K×K'.encode()
    modes = [(tmp_path / name).stat().st_mode for name in ('plain', 'new/atomic')]
    assert modes[0] == modes[1]


@pytest.mark.parametrize('relative', [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, relative):
    folder, elsewhere = tmp_path / 'folder', tmp_path / 'elsewhere'
    for path in (folder, elsewhere):
        path.mkdir()
    write_text(elsewhere / 'a.txt', 'old')
    link = folder / 'link'
    link.symlink_to('../elsewhere/a.txt' if relative else elsewhere / 'a.txt')
    for text in ('new', 'newer'):
        write_text(link, text)
        assert link.is_symlink() and (elsewhere / 'a.txt').read_text() == text
        (elsewhere / 'a.txt').unlink()  # a link that leads nowhere yet
    assert names(folder) == ['link'] and not names(elsewhere)


def test_only_files_are_replaced(tmp_path):
    pipe, folder, link = tmp_path / 'pipe.pkl', tmp_path / 'folder.pkl', tmp_path / 'link.pkl'
    os.mkfifo(pipe)  # root may replace /dev/null just as well
    folder.mkdir()
    link.symlink_to(pipe)
    no_file = 'is no file, and cannot be replaced by one: name another one.'
    for path, reason in ((pipe, no_file), (link, no_file), (folder, 'is a folder: name a file.')):
        with pytest.raises(FileError) as error, replacing(path):
            raise AssertionError('begun')
        assert str(error.value) == f'{path} {reason}'
    assert pipe.is_fifo() and names(tmp_path) == ['folder.pkl', 'link.pkl', 'pipe.pkl']


def test_partial_files_are_removed_and_others_are_not(tmp_path):
    with replacing(tmp_path / 'iter_1.pth') as partial:
        partial.write_bytes(b'half')
        stale = partial.rename(partial.with_name(partial.name.replace('iter_1', 'iter_2')))
        partial.write_bytes(b'whole')
    (tmp_path / '.hidden').touch()
    (tmp_path / '.notes.partial.txt').touch()
    (tmp_path / '.demo.1.partial').mkdir()
    kept = names(tmp_path)
    assert remove_partial_files(tmp_path) == [stale]
    assert names(tmp_path) == [name for name in kept if name != stale.name]


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


@pytest.fixture
def full(monkeypatch):
    """Let writing fail after 1,000 bytes with an error of this number."""

    def set_up(number):
        def write(path, content):
            with open(path, 'wb') as file:
                file.write(content[:1000])
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, 'write_bytes', write)
        monkeypatch.setattr(
            shutil, 'disk_usage', lambda folder: shutil._ntuple_diskusage(9e9, 6e9, 3e9)
        )

    return set_up


@pytest.mark.parametrize(
    ('number', 'message'),
    [
        (
            errno.ENOSPC,
            '{} cannot be written: it needs 2.5 MB, 3.0 GB are free on its disk.\n'
            'Make room there, or write to another disk.',
        ),
        (
            errno.EDQUOT,
            '{} cannot be written: it needs 2.5 MB, the disk quota is exceeded.\n'
            'Make room there, or write to another disk.',
        ),
        (
            errno.EFBIG,
            '{} cannot be written: it needs 2.5 MB, files may not be that large here.\n'
            'Raise the limit (ulimit -f), or write to another disk.',
        ),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, full, number, message):
    path = tmp_path / 'weights.pth'
    path.write_text('old')
    full(number)
    with pytest.raises(NoSpaceError) as error:
        write_bytes(path, bytes(2_500_000))
    assert str(error.value) == message.format(path)
    assert isinstance(error.value, UserError) and isinstance(error.value, OSError)
    assert error.value.errno == number
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_size_that_is_not_known_beforehand(tmp_path, full):
    full(errno.ENOSPC)
    message = r'it needs more than 1\.0 kB, 3\.0 GB are free'
    with (
        pytest.raises(NoSpaceError, match=message),
        replacing(tmp_path / 'predictions.pkl') as partial,
    ):
        partial.write_bytes(bytes(5000))


def test_another_file_that_does_not_fit_is_not_taken_for_this_one(tmp_path):
    with pytest.raises(OSError) as error, replacing(tmp_path / 'predictions.pkl'):
        raise OSError(errno.ENOSPC, 'of a log, before the first byte of the predictions')
    assert not isinstance(error.value, NoSpaceError)


def test_other_errors_stay_what_they_are(tmp_path, full):
    full(errno.EIO)
    with pytest.raises(OSError) as error:
        write_text(tmp_path / 'last_checkpoint', 'epoch_1.pth')
    assert (type(error.value), error.value.errno) == (OSError, errno.EIO)


def test_file_that_nobody_knows():
    error = no_space_error(OSError(errno.ENOSPC, 'No space left on device'))
    assert str(error) == (
        'a file cannot be written: no space is left on its disk.\n'
        'Make room there, or write to another disk.'
    )
    assert no_space_error(error, 'elsewhere') is error


def test_limit_of_the_system(tmp_path):
    """The portable way to a real failure: a limit for the size of files."""
    script = f"""
import resource
from unireplknet_mm.files import NoSpaceError, write_bytes

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes({str(tmp_path / 'weights.pth')!r}, bytes(200_000))
except NoSpaceError as error:
    print(error)
"""
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(root), str(root / 'ops')])},
    )
    first, second = result.stdout.splitlines()
    assert first == (
        f'{tmp_path}/weights.pth cannot be written: it needs 200.0 kB, files may not be that large here.'
    )
    assert second == 'Raise the limit (ulimit -f), or write to another disk.'
    assert not list(tmp_path.iterdir())


def test_folder_on_a_full_disk(tmp_path, full):
    full(errno.ENOSPC)
    with pytest.raises(
        UserError, match=f'cannot write to {re.escape(str(tmp_path))}: No space left'
    ):
        create_folder(tmp_path, '--work-dir')
    assert not list(tmp_path.iterdir())


def test_folder_where_files_may_not_be_large(tmp_path, full):
    full(errno.EFBIG)
    with pytest.raises(NoSpaceError) as error:
        create_folder(tmp_path, '--work-dir')
    assert str(error.value) == (
        f'{tmp_path} cannot be written: files may not be that large here.\n'
        'Raise the limit (ulimit -f), or choose another one with --work-dir.'
    )
    assert not list(tmp_path.iterdir())


def test_new_folders_go_again_where_nothing_comes_of_them(tmp_path):
    def fail(folder: Path, name: str | None = None) -> None:
        with pytest.raises(KeyboardInterrupt), creating_folder(folder, 'DIR'):
            if name:
                (folder / name).touch()
            raise KeyboardInterrupt

    fail(tmp_path / 'a' / 'b')
    assert not (tmp_path / 'a').exists()
    (tmp_path / 'a').mkdir()
    fail(tmp_path / 'a' / 'b' / 'c')
    assert (tmp_path / 'a').is_dir() and not (tmp_path / 'a' / 'b').exists()
    fail(tmp_path / 'a' / 'b', 'kept')
    assert (tmp_path / 'a' / 'b' / 'kept').is_file()
    fail(tmp_path / 'a')
    assert (tmp_path / 'a' / 'b' / 'kept').is_file()
    file = tmp_path / 'a' / 'b' / 'kept'
    with pytest.raises(UserError, match='is a file, not a'), creating_folder(file, 'DIR'):
        raise AssertionError
    assert (tmp_path / 'a' / 'b' / 'kept').is_file()
    with creating_folder(tmp_path / 'new', 'DIR'):
        pass
    assert (tmp_path / 'new').is_dir()
