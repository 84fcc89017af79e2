"""Point clouds and meshes in files: `.ply`, `.off`, `.npy`, and lines of numbers (`.txt`, `.xyz`, `.pts`).

Of a mesh, points are drawn from its surface; a file without faces is a cloud, of which the first three
columns count. Nothing in a file is executed. The readers are small, so that a folder of clouds needs no
package: of `.ply`, vertices and faces in all three encodings, other elements and properties being passed
over; of `.off`, also with the counts in its first line, as ModelNet has some, and those with colours or
normals (COFF, NOFF).
"""

import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unireplknet_mm.datasets.surfaces import Mesh, sample_surface
from unireplknet_mm.errors import UserError

SUFFIXES = ('.ply', '.off', '.npy', '.txt', '.xyz', '.pts')
PLY_TYPES = {
    **dict(char='i1', uchar='u1', short='i2', ushort='u2', int='i4', uint='u4'),
    **dict(float='f4', double='f8'),
    **dict(int8='i1', uint8='u1', int16='i2', uint16='u2', int32='i4', uint32='u4'),
    **dict(float32='f4', float64='f8'),
}
PLY_ENCODINGS = dict(ascii='', binary_little_endian='<', binary_big_endian='>')
# With texture coordinates, colours and normals, which follow a vertex's coordinates and are left out.
OFF_HEADER = re.compile('(ST)?C?N?OFF')
FACE_LISTS = ('vertex_indices', 'vertex_index')


# ModelNet-40's resampled release and ScanObjectNN have y up; the published code turns both like this.
Z_UP_AXES, Z_UP_SIGNS = (2, 0, 1), (-1, -1, 1)


class PointCloudError(UserError):
    """A file that is no readable point cloud, or points that are none."""


def read_cloud(path: Path, mesh_points: int, rng: np.random.Generator) -> np.ndarray:
    """The points of a file, (n, 3) float32, moved so that their mean is 0.

    Args:
        path, mesh_points, rng: as of `read_coordinates`.

    Raises:
        PointCloudError: as of `read_coordinates`, or there are less than two different points, or one that is
            not finite.
    """
    return centre(read_coordinates(path, mesh_points, rng), path)


def read_coordinates(path: Path, mesh_points: int, rng: np.random.Generator) -> np.ndarray:
    """The points of a file as they stand there, (n, 3), of the file's precision.

    Args:
        path: by its suffix one of `SUFFIXES`.
        mesh_points: how many are drawn from a mesh, with `rng`.

    Raises:
        PointCloudError: the file cannot be read, is of another format, or holds a mesh without area.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PointCloudError(
            f'{path}: {suffix or "a file without suffix"} is no format of point clouds that is read here; '
            f'{", ".join(SUFFIXES)} are'
        )
    try:
        content = _READERS[suffix](path)
    except OSError as error:
        raise PointCloudError(f'{path} cannot be read: {error.strerror or error}') from None
    except (ValueError, IndexError, EOFError, MemoryError, UnicodeDecodeError) as error:
        raise PointCloudError(f'{path} is no readable {suffix} file: {error}') from None
    if isinstance(content, Mesh):
        if not np.isfinite(content.vertices).all():
            raise PointCloudError(f'{path} has coordinates that are not finite (NaN or infinite)')
        try:
            content = sample_surface(content, mesh_points, rng)
        except ValueError as error:
            raise PointCloudError(f'{path}: {error}') from None
    elif content.ndim != 2 or content.shape[1] < 3 or content.dtype.kind not in 'fiu':
        raise PointCloudError(
            f'{path} holds no points: rows of at least 3 numbers are wanted, it has an array of shape '
            f'{content.shape}, {content.dtype}'
        )
    return content[:, :3]


def centre(points: np.ndarray, name: Any) -> np.ndarray:
    """Points (n, 3 or more), moved so that their mean is 0 -> (n, 3) float32; further columns are left out.

    That is done in float64: coordinates such as 5,400,000 of a map have half a metre of single precision.

    Raises:
        PointCloudError: they are no cloud, as of `check_points`.
    """
    points = points[:, :3].astype(np.float64)
    check_points(points, name)
    with np.errstate(over='ignore', invalid='ignore'):  # what is too large is told below
        points = (points - points.mean(0)).astype(np.float32)
    check_points(points, name)
    return points


def turn_z_up(points: np.ndarray) -> np.ndarray:
    """Points with y up, (n, 3 or more) -> (n, 3) with z up, no less precise; further columns are left out."""
    dtype = points.dtype if points.dtype.kind == 'f' else np.float64
    return points[:, Z_UP_AXES].astype(dtype) * np.array(Z_UP_SIGNS, dtype)


def check_points(points: np.ndarray, name: Any) -> None:
    """See that (n, 3) points are a cloud.

    Raises:
        PointCloudError: there are fewer than two, all are the same, or one is not finite.
    """
    if not np.isfinite(points).all():
        count = int((~np.isfinite(points).all(1)).sum())
        raise PointCloudError(
            f'{name}: {count} of {len(points)} points are not finite (NaN or infinite)'
        )
    if len(points) < 2:
        raise PointCloudError(f'{name} has {len(points)} point(s), a cloud has at least two')
    if (points == points[0]).all():
        raise PointCloudError(f'{name}: all {len(points)} points are the same')


def _read_npy(path: Path) -> np.ndarray:
    with path.open('rb') as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_lines(path: Path) -> np.ndarray:
    """Numbers by lines, between commas or blanks; `.pts` may begin with the number of points."""
    skipped = 0
    with path.open(encoding='utf-8-sig') as file:
        for number, line in enumerate(file, start=1):
            line = line.partition('#')[0].strip()
            if len(line.split()) == 1 and ',' not in line and not skipped:
                skipped = number
            elif line:
                break
        else:
            raise ValueError('it has no points')
    delimiter = ',' if ',' in line else None
    return np.loadtxt(
        path, delimiter=delimiter, ndmin=2, skiprows=skipped, encoding='utf-8-sig', comments='#'
    )


def _read_off(path: Path) -> Mesh | np.ndarray:
    text = path.read_text('utf-8-sig', 'replace')  # what is not UTF-8 stands in comments
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    lines = [line for line in lines if line]
    header = OFF_HEADER.match(lines[0]) if lines else None
    if header is None:
        raise ValueError('it does not begin with OFF')
    counts = lines[0][header.end() :].split()
    lines = lines[1:]
    if not counts:
        counts, lines = lines[0].split(), lines[1:]
    vertices, faces = int(counts[0]), int(counts[1])
    if len(lines) < vertices + faces:
        raise ValueError(
            f'{vertices} vertices and {faces} faces are announced, {len(lines)} lines follow'
        )
    points = np.array([line.split()[:3] for line in lines[:vertices]], dtype=np.float64)
    polygons = []
    for line in lines[vertices : vertices + faces]:
        corners, *numbers = line.split()
        polygons.append([int(number) for number in numbers[: int(corners)]])
        if len(polygons[-1]) != int(corners):
            raise ValueError(f'a face of {corners} corners has {len(polygons[-1])}: {line!r:.60}')
    return _as_mesh(points, polygons)


def _as_mesh(points: np.ndarray, polygons: list | np.ndarray) -> Mesh | np.ndarray:
    """Polygons, cut into triangles around their first corner; without any, the points alone.

    Args:
        polygons: lists of numbers of points, or (n, k) of n polygons with k corners.
    """
    points = points.reshape(-1, 3)
    if isinstance(polygons, np.ndarray):
        corners = range(1, polygons.shape[1] - 1)
        triangles = [polygons[:, [0, i, i + 1]] for i in corners]
    else:
        triangles = [
            [(polygon[0], polygon[i], polygon[i + 1])]
            for polygon in polygons
            for i in range(1, len(polygon) - 1)
        ]
    if not triangles:
        return points
    triangles = np.concatenate(triangles).astype(np.int64)
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise ValueError(f'a face names a vertex that is not among the {len(points)}')
    return Mesh(points, triangles)


def _read_ply(path: Path) -> Mesh | np.ndarray:
    with path.open('rb') as file:
        encoding, elements = _read_ply_header(file)
        if encoding == 'ascii':
            tokens = iter(file.read().decode('ascii').split())
            read_element = _read_ascii_element
        else:
            tokens, read_element = file, _read_binary_element
        points, polygons = None, []
        for name, count, properties in elements:
            columns = read_element(tokens, count, properties, PLY_ENCODINGS[encoding])
            if name == 'vertex':
                if missing := [axis for axis in 'xyz' if axis not in columns]:
                    raise ValueError(f'its vertices have no {", ".join(missing)}')
                points = np.stack([np.asarray(columns[a], np.float64) for a in 'xyz'], 1)
            elif name == 'face':
                polygons = next((columns[key] for key in FACE_LISTS if key in columns), [])
    if points is None:
        raise ValueError('it has no vertices')
    return _as_mesh(points, polygons)


def _read_ply_header(file: BinaryIO) -> tuple[str, list]:
    """The encoding, and the elements: name, count, properties as (name, type, type of a list's length)."""
    if file.readline().strip() != b'ply':
        raise ValueError('it does not begin with ply')
    encoding, elements = None, []
    while True:
        line = file.readline()
        words = line.decode('latin-1').split()  # comments may be of any encoding
        if not line or words == ['end_header']:
            break
        if words[:1] == ['format']:
            encoding = words[1]
        elif words[:1] == ['element']:
            elements.append((words[1], int(words[2]), []))
        elif words[:2] == ['property', 'list']:
            elements[-1][2].append((words[4], _ply_type(words[3]), _ply_type(words[2])))
        elif words[:1] == ['property']:
            elements[-1][2].append((words[2], _ply_type(words[1]), None))
    if not line or encoding not in PLY_ENCODINGS:
        raise ValueError('its header has no end' if not line else f'its format is {encoding}')
    return encoding, elements


def _ply_type(word: str) -> str:
    if word not in PLY_TYPES:
        raise ValueError(f'a property is of the unknown type {word}')
    return PLY_TYPES[word]


def _read_ascii_element(tokens: Any, count: int, properties: list, order: str) -> dict[str, list]:
    columns = {name: [] for name, _, _ in properties}
    try:
        for _ in range(count):
            for name, _, length in properties:
                if length is None:
                    columns[name].append(float(next(tokens)))
                else:
                    columns[name].append([int(next(tokens)) for _ in range(int(next(tokens)))])
    except StopIteration:
        raise ValueError('it ends too early') from None
    return columns


def _read_binary_element(file: BinaryIO, count: int, properties: list, order: str) -> dict:
    start = file.tell()
    if count:
        first = _read_binary_rows(file, 1, properties, order)
        file.seek(start)
        rows = _read_equal_rows(file, count, properties, order, first)
        if rows is not None:
            return rows
        file.seek(start)
    return _read_binary_rows(file, count, properties, order)


def _read_equal_rows(
    file: BinaryIO, count: int, properties: list, order: str, first: dict
) -> dict[str, np.ndarray] | None:
    """All rows at once, if their lists are as long as those of the first, as of triangles; else None."""
    fields, lengths = [], {}
    for name, kind, length in properties:
        if length is None:
            fields.append((name, order + kind))
        else:
            lengths[f'length of {name}'] = len(first[name][0])
            fields.append((f'length of {name}', order + length))
            fields.append((name, order + kind, (len(first[name][0]),)))
    try:
        rows = _take(file, fields, count)
    except ValueError:  # it ends too early for lists of this length
        return None
    if any((rows[name] != length).any() for name, length in lengths.items()):
        return None
    return {name: rows[name] for name, _, _ in properties}


def _read_binary_rows(file: BinaryIO, count: int, properties: list, order: str) -> dict[str, list]:
    """Row by row, and list by list."""
    columns = {name: [] for name, _, _ in properties}
    for _ in range(count):
        for name, kind, length in properties:
            if length is None:
                columns[name].append(_take(file, order + kind, 1)[0])
            else:
                columns[name].append(
                    _take(file, order + kind, int(_take(file, order + length, 1)[0])).tolist()
                )
    return columns


def _take(file: BinaryIO, dtype: Any, count: int) -> np.ndarray:
    dtype = np.dtype(dtype)
    content = file.read(dtype.itemsize * count)
    if len(content) < dtype.itemsize * count:
        raise ValueError('it ends too early')
    return np.frombuffer(content, dtype, count)


_READERS = {
    '.npy': _read_npy,
    '.off': _read_off,
    '.ply': _read_ply,
    '.txt': _read_lines,
    '.xyz': _read_lines,
    '.pts': _read_lines,
}
