"""Archives that were damaged."""

import zipfile

import pytest

from unireplknet_mm.export import ExportError
from unireplknet_mm.export.formats.archive import check_archive

IN_DIRECTORY = zipfile.stringCentralDir
IN_PART = zipfile.stringFileHeader


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ([], None),
        ([(IN_DIRECTORY, 8, 1)], 'encrypted'),
        ([(IN_DIRECTORY, 10, 8)], 'decompressing'),
        ([(IN_DIRECTORY, 10, 77)], 'compression method'),
        ([(zipfile.stringEndArchive, 12, 255)], 'no archive|Invalid argument'),
        ([(IN_PART, 35, 1)], 'part in it has changed'),
    ],
    ids=['whole', 'encrypted', 'compressed', 'unknown compression', 'place', 'content'],
)
def test_a_damaged_archive_is_refused_in_two_lines(tmp_path, changes, message):
    path = tmp_path / 'model.pt2'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('part', b'\xff' * 100)
    content = bytearray(path.read_bytes())
    for header, offset, value in changes:
        content[content.index(header) + offset] = value
    path.write_bytes(content)
    if message is None:
        check_archive(path)
        return
    with pytest.raises(ExportError, match=message) as error:
        check_archive(path)
    assert len(str(error.value).splitlines()) == 2
