"""Reading clouds and meshes: every format and encoding, and what is none."""

import contextlib
import pickle
import struct

import numpy as np
import pytest

from unireplknet_mm.datasets.solids import SOLIDS
from unireplknet_mm.datasets.surfaces import revolve
from unireplknet_mm.modalities.point_cloud import PointCloudError, read_arrays, read_cloud
from unireplknet_mm.modalities.point_cloud.files import read_coordinates

POINTS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
# A unit square in the plane z = 2, as one face of four corners.
SQUARE = [(0, 0, 2), (1, 0, 2), (1, 1, 2), (0, 1, 2)]


def read(path, count: int = 400):
    return read_coordinates(path, count, np.random.default_rng(0)).astype(np.float32)


def ply(encoding: str, faces: bool) -> bytes:
    """The points, with a colour and an element that nobody asks for; or the square."""
    vertices = SQUARE if faces else POINTS.tolist()
    header = f'ply\nformat {encoding} 1.0\ncomment made by a test\nelement vertex {len(vertices)}\n'
    header += 'property float x\nproperty uchar red\nproperty double y\nproperty float z\n'
    header += 'element camera 1\nproperty list uchar short values\n'
    header += 'element face 1\nproperty list uchar int vertex_indices\n' if faces else ''
    header += 'end_header\n'
    if encoding == 'ascii':
        lines = [f'{x!r} 255 {y!r} {z!r}' for x, y, z in vertices] + ['3 1 2 3']
        lines += ['4 0 1 2 3'] if faces else []
        return header.encode() + '\n'.join(lines).encode()
    order = '<' if 'little' in encoding else '>'
    body = b''.join(struct.pack(f'{order}fBdf', x, 255, y, z) for x, y, z in vertices)
    body += struct.pack(f'{order}B3h', 3, 1, 2, 3)
    body += struct.pack(f'{order}B4i', 4, 0, 1, 2, 3) if faces else b''
    return header.encode() + body


ENCODINGS = ('ascii', 'binary_little_endian', 'binary_big_endian')


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_points_of_ply(tmp_path, encoding):
    (tmp_path / 'a.ply').write_bytes(ply(encoding, faces=False))
    points = read(tmp_path / 'a.ply')
    assert points.dtype == np.float32
    assert np.array_equal(points, POINTS)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_faces_of_ply_are_sampled(tmp_path, encoding):
    (tmp_path / 'a.ply').write_bytes(ply(encoding, faces=True))
    check_square(read(tmp_path / 'a.ply'))


@pytest.mark.parametrize('encoding', ENCODINGS[1:])
def test_faces_of_different_lengths(tmp_path, encoding):
    """A quadrilateral, two triangles and a line; also where the first is the longest."""
    order = '<' if 'little' in encoding else '>'
    for faces in ([(0, 1, 2), (0, 2, 3), (0, 1)], [(0, 1, 2, 3), (0, 1)], [(0, 1, 2), (0, 2, 3)]):
        header = (
            f'ply\nformat {encoding} 1.0\nelement vertex 4\nproperty float x\nproperty float y\n'
        )
        header += f'property float z\nelement face {len(faces)}\nproperty uchar flags\n'
        header += 'property list uint8 uint vertex_index\nend_header\n'
        body = b''.join(struct.pack(f'{order}3f', *corner) for corner in SQUARE)
        for face in faces:
            body += struct.pack(f'{order}BB{len(face)}I', 9, len(face), *face)
        (tmp_path / 'a.ply').write_bytes(header.encode() + body)
        check_square(read(tmp_path / 'a.ply'))
    (tmp_path / 'a.ply').write_bytes((header.encode() + body)[:-2])
    with pytest.raises(PointCloudError, match='it ends too early'):
        read(tmp_path / 'a.ply')


def check_square(points):
    """Evenly over the square, in both of its triangles."""
    assert points.shape == (400, 3)
    assert (points[:, 2] == 2).all()
    assert points[:, :2].min() >= 0 and points[:, :2].max() <= 1
    for low_x in (0, 0.5):
        for low_y in (0, 0.5):
            inside = (points[:, 0] // 0.5 * 0.5 == low_x) & (points[:, 1] // 0.5 * 0.5 == low_y)
            assert 70 < inside.sum() < 130


@pytest.mark.parametrize('beginning', ['OFF\n# a comment\n4 1 0\n', 'OFF4 1 0\n', 'OFF 4 1 0\n\n'])
def test_off_of_every_beginning(tmp_path, beginning):
    """ModelNet has files whose first line is `OFF4 1 0`."""
    vertices = '\n'.join(' '.join(map(str, corner)) for corner in SQUARE)
    (tmp_path / 'a.off').write_text(f'{beginning}{vertices}\n4 0 1 2 3 255 0 0\n')
    check_square(read(tmp_path / 'a.off'))


def test_off_without_faces_is_a_cloud(tmp_path):
    (tmp_path / 'a.off').write_text('OFF\n2 0 0\n0 0 0\n1 2 3\n')
    assert read(tmp_path / 'a.off').tolist() == [[0, 0, 0], [1, 2, 3]]


@pytest.mark.parametrize(
    ('name', 'delimiter', 'header'),
    [('a.txt', ',', ''), ('a.xyz', ' ', ''), ('a.pts', ' ', '50')],
)
def test_lines_of_numbers(tmp_path, name, delimiter, header):
    content = np.concatenate([POINTS, POINTS], 1)
    np.savetxt(tmp_path / name, content, '%.9g', delimiter, header=header, comments='')
    assert np.array_equal(read(tmp_path / name), POINTS)


def test_arrays(tmp_path):
    np.save(tmp_path / 'a.npy', POINTS.astype(np.float64))
    assert np.array_equal(read(tmp_path / 'a.npy'), POINTS)
    np.save(tmp_path / 'b.npy', np.arange(12).reshape(2, 6))
    assert read(tmp_path / 'b.npy').tolist() == [[0, 1, 2], [6, 7, 8]]


def test_far_from_the_origin_points_stay_apart(tmp_path):
    """On a map single precision would have steps of 0.5 there."""
    far = POINTS + np.array([4.5e5, 5.4e6, 100.0])
    np.save(tmp_path / 'a.npy', far)
    np.savetxt(tmp_path / 'a.xyz', far, '%.9f')
    for name in ('a.npy', 'a.xyz'):
        points = read_cloud(tmp_path / name, 1, np.random.default_rng(0))
        assert points.dtype == np.float32
        np.testing.assert_allclose(points, POINTS - POINTS.mean(0), atol=1e-6)


@pytest.mark.parametrize('beginning', ['\ufeff', '# x, y, z\n', '\n# by a tool\n3\n'])
def test_what_precedes_lines_of_numbers(tmp_path, beginning):
    for delimiter in ' ,':
        lines = '\n'.join(delimiter.join('012') for _ in range(3))
        (tmp_path / 'a.txt').write_text(beginning + lines, 'utf-8')
        assert read(tmp_path / 'a.txt').tolist() == [[0, 1, 2]] * 3


@pytest.mark.parametrize(('kind', 'more'), [('C', ' 9 9 9 1'), ('N', ' 0 0 1'), ('STCN', ' 7' * 9)])
def test_off_with_colours_or_normals(tmp_path, kind, more):
    vertices = '\n'.join(' '.join(map(str, corner)) + more for corner in SQUARE)
    (tmp_path / 'a.off').write_text(f'{kind}OFF\n4 1 0\n{vertices}\n4 0 1 2 3\n')
    check_square(read(tmp_path / 'a.off'))


def test_comments_of_ply_are_of_any_encoding(tmp_path):
    content = ply('ascii', False).replace(b'ply\n', b'ply\ncomment Caf\xc3\xa9 \xff\n', 1)
    (tmp_path / 'a.ply').write_bytes(content)
    assert np.array_equal(read(tmp_path / 'a.ply'), POINTS)


def test_archives_are_no_arrays(tmp_path):
    np.savez(tmp_path / 'a.npz', points=POINTS)
    (tmp_path / 'a.npz').rename(tmp_path / 'a.npy')
    with pytest.raises(PointCloudError, match=r'a\.npy is no readable \.npy file'):
        read(tmp_path / 'a.npy')


def test_points_are_even_over_a_solid(tmp_path):
    """Of a box of 1 × 1 × 8 only 2 in 34 are on its ends."""
    mesh = revolve(*SOLIDS['box'])
    vertices = mesh.vertices * [np.sqrt(0.5), np.sqrt(0.5), 4]
    lines = [f'OFF\n{len(vertices)} {len(mesh.triangles)} 0']
    lines += [' '.join(map(repr, map(float, vertex))) for vertex in vertices]
    lines += ['3 ' + ' '.join(map(str, triangle)) for triangle in mesh.triangles]
    (tmp_path / 'box.off').write_text('\n'.join(lines))
    points = read(tmp_path / 'box.off', 10000)
    share = (np.abs(points[:, 2]) > 4 - 1e-6).mean()
    assert share == pytest.approx(2 / 34, abs=0.01)
    assert np.abs(points[:, :2]).max() <= 0.5 + 1e-6


BAD = {
    'short_face.off': (b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n', 'a face of 4 corners has 3'),
    'large.xyz': (b'0 0 0\n1e39 0 0\n', '2 of 2 points are not finite'),
    'empty.txt': (b'# x y z\n', 'it has no points'),
    'words.txt': (b'no,numbers,here\n' * 3, 'is no readable .txt file'),
    'two.xyz': (b'1 2\n3 4\n', r'holds no points.*\(2, 2\)'),
    'nan.txt': (b'1,2,3\nnan,2,3\n', '1 of 2 points are not finite'),
    'inf.xyz': (b'1 2 3\n1 inf 3\n', '1 of 2 points are not finite'),
    'one.xyz': (b'1 2 3\n', r'has 1 point\(s\), a cloud has at least two'),
    'same.xyz': (b'1 2 3\n' * 9, 'all 9 points are the same'),
    'empty.off': (b'', 'is no readable .off file: it does not begin with OFF'),
    'short.off': (b'OFF\n8 4 0\n0 0 0\n', '8 vertices and 4 faces are announced, 1 lines follow'),
    'beyond.off': (b'OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n', 'names a vertex that is not'),
    'flat.off': (b'OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n', 'the mesh has no area'),
    'nan.off': (b'OFF\n3 1 0\nnan 0 0\n1 0 0\n0 1 0\n3 0 1 2\n', 'coordinates that are not finite'),
    'photo.ply': (b'\x89PNG\r\n' + bytes(99), 'it does not begin with ply'),
    'cut.ply': (ply('ascii', False).rsplit(b'\n', 9)[0], 'it ends too early'),
    'cut_binary.ply': (ply('binary_little_endian', False)[:-90], 'it ends too early'),
    'endless.ply': (b'ply\nformat ascii 1.0\n', 'its header has no end'),
    'odd.ply': (b'ply\nformat ascii 1.0\nelement vertex 1\nproperty real x\n', 'unknown type real'),
    'flat.ply': (
        b'ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n',
        'its vertices have no y, z',
    ),
    'text.npy': (b'1 2 3', 'is no readable .npy file'),
    'model.obj': (b'v 0 0 0', 'model.obj: .obj is no format of point clouds that is read here'),
}


@pytest.mark.parametrize('name', BAD)
def test_what_is_no_cloud_is_named(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PointCloudError, match=message) as error:
        read_cloud(tmp_path / name, 400, np.random.default_rng(0))
    assert str(tmp_path / name) in str(error.value)
    assert len(str(error.value).splitlines()) <= 4


def test_a_missing_file(tmp_path):
    with pytest.raises(PointCloudError, match=r'a\.ply cannot be read: No such file'):
        read(tmp_path / 'a.ply')


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([Trap(tmp_path / 'sprung')], object), allow_pickle=True)
    with pytest.raises(PointCloudError, match=r'no readable \.npy file'):
        read(tmp_path / 'a.npy')
    assert not (tmp_path / 'sprung').exists()


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays(tmp_path, protocol):
    clouds = [POINTS, np.asfortranarray(POINTS), POINTS[::2]]
    content = [clouds, [np.array([3]), np.int64(4), 5], dict(names=('a', 'b'), raw=b'\xff\x00')]
    (tmp_path / 'a.dat').write_bytes(pickle.dumps(content, protocol))
    read_clouds, labels, rest = read_arrays(tmp_path / 'a.dat')
    for cloud, expected in zip(read_clouds, clouds, strict=True):
        assert np.array_equal(cloud, expected)
    assert [int(np.asarray(label).item()) for label in labels] == [3, 4, 5]
    assert rest == content[2]


def test_pickles_of_python_2(tmp_path):
    """Arrays whose bytes are `str`."""
    old = (
        b'cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS"b"\np3\ntp4\nRp5\n'
        b'(I1\n(I2\ntp6\ncnumpy\ndtype\np7\n(S"f4"\np8\nI0\nI1\ntp9\nRp10\n(I3\nS"<"\np11\nNNNI-1\nI-1\n'
        b'I0\ntp12\nbI00\nS"\\x00\\x00\\x80?\\x00\\x00\\x00\\xc0"\np13\ntp14\nb.'
    )
    (tmp_path / 'a.dat').write_bytes(old)
    assert read_arrays(tmp_path / 'a.dat').tolist() == [1.0, -2.0]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_run_no_code(tmp_path, protocol):
    for content in (Trap(tmp_path / 'sprung'), [POINTS, [Trap(tmp_path / 'sprung')]]):
        (tmp_path / 'a.dat').write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(PointCloudError, match=r'names \w+\.mkdir, which is no array'):
            read_arrays(tmp_path / 'a.dat')
    codec = b'c_codecs\nencode\n(Vx\nVpunycode\ntR.'
    (tmp_path / 'a.dat').write_bytes(codec)
    with pytest.raises(PointCloudError, match='punycode'):
        read_arrays(tmp_path / 'a.dat')
    assert not (tmp_path / 'sprung').exists()


class Call:
    """A pickle of it calls `function` and sets `state`."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


RECONSTRUCT, EMPTY = POINTS.__reduce__()[:2]
OBJECTS, PARTS = np.dtype('O'), np.dtype([('a', 'O')])
NO_OBJECTS = Call(np.dtype, 'O8', False, True, state=(3, '|', None, None, None, -1, -1, 0))
UNSAFE = {
    'objects over bytes': Call(np.ndarray, (1,), OBJECTS, b'A' * 8),
    'any class': Call(RECONSTRUCT, list, (0,), b'b'),
    'a size': Call(RECONSTRUCT, np.ndarray, (9,), b'b'),
    'objects as bytes': Call(RECONSTRUCT, *EMPTY, state=(1, (1,), OBJECTS, False, b'A' * 8)),
    'denied objects': Call(RECONSTRUCT, *EMPTY, state=(1, (1,), NO_OBJECTS, False, b'A' * 8)),
    'fewer objects': Call(RECONSTRUCT, *EMPTY, state=(1, (9,), OBJECTS, False, [1])),
    'fewer bytes': Call(RECONSTRUCT, *EMPTY, state=(1, (9,), np.dtype('f4'), False, b'A' * 8)),
    'a negative size': Call(
        RECONSTRUCT, *EMPTY, state=(1, (-1, -8), np.dtype('i1'), False, b'A' * 8)
    ),
    'fields': Call(RECONSTRUCT, *EMPTY, state=(1, (1,), PARTS, False, [(1,)])),
    'a number of objects': Call(
        type(np.float32(0)).__reduce__(np.float32(0))[0], OBJECTS, b'A' * 8
    ),
}


@pytest.mark.parametrize('name', UNSAFE)
def test_pickles_cannot_reach_into_memory(tmp_path, name):
    (tmp_path / 'a.dat').write_bytes(pickle.dumps([UNSAFE[name]], 4))
    with pytest.raises(PointCloudError, match=r'a\.dat is no readable pickle of arrays'):
        read_arrays(tmp_path / 'a.dat')


def test_pickles_cannot_change_the_reader(tmp_path):
    content = b'cnumpy.core.multiarray\nscalar\n}Vx\nI1\nsb.'  # sets an attribute of the function
    (tmp_path / 'a.dat').write_bytes(content)
    with pytest.raises(PointCloudError, match='it changes a function'):
        read_arrays(tmp_path / 'a.dat')


def test_pickles_of_objects_dates_and_other_byte_orders(tmp_path):
    arrays = [
        np.array([1, 'a', None, (2.5,)], object),
        np.array(['2020-01-01T05', 'NaT'], 'M8[h]'),
        np.arange(3, dtype='>i4'),
        np.array(['ab', 'c']),
    ]
    (tmp_path / 'a.dat').write_bytes(pickle.dumps(arrays, 4))
    for found, expected in zip(read_arrays(tmp_path / 'a.dat'), arrays, strict=True):
        assert found.dtype == expected.dtype.newbyteorder('=') and found.shape == expected.shape
        assert found.tolist() == expected.tolist()


def test_damaged_pickles(tmp_path):
    path = tmp_path / 'a.dat'
    whole = pickle.dumps([POINTS, [1]])
    for content in (b'', b'no pickle', whole[:-20], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(PointCloudError, match=r'a\.dat is no readable pickle of arrays'):
            read_arrays(path)
    rng = np.random.default_rng(0)
    for _ in range(300):  # whatever a changed byte makes of it, it is no other error
        changed = bytearray(whole)
        changed[rng.integers(120)] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(PointCloudError):
            read_arrays(path)
