"""Demo data: real handwritten digits on real photographs, in the layouts of COCO, ADE20K and ImageNet.

Nothing is downloaded and nothing is synthetic but the composition: the digits are the 1,797 scans
that scikit-learn ships (UCI, 8x8 pixels, smoothly enlarged), the backgrounds are crops of the
photographs that scikit-learn and scikit-image ship. Every mask is the very set of pixels that was
inked, so boxes, areas and polygons are exact. Scans and photographs of the validation split never
occur in training. Image ``i`` of a split depends on the seed and on ``i`` alone, so a larger data
set starts with the images of a smaller one. The annotations do not depend on the version of OpenCV;
single pixels of the images may, by its way of decoding, scaling and encoding them.

The digits are drawn by :func:`draw_scene`, the layouts are written by the ``_write_*`` functions,
and :func:`make_demo_data` puts the result in place in one rename.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

LAYOUTS = ('coco', 'ade20k', 'imagenet')
SPLITS = ('train', 'val')
DIGIT_NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
ADE20K_BACKGROUND = 11  # 0 is unlabelled, 1 to 10 are the digits

# Files of the scikit-image (skimage/data) and scikit-learn (sklearn/datasets/images) wheels. Of the
# two views of the motorcycle only one is used.
PHOTOGRAPHS = {
    'train': (
        'astronaut.png',
        'brick.png',
        'chelsea.png',
        'china.jpg',
        'coins.png',
        'grass.png',
        'hubble_deep_field.jpg',
        'ihc.png',
        'moon.png',
        'motorcycle_left.png',
        'retina.jpg',
        'rocket.jpg',
    ),
    'val': ('camera.png', 'coffee.png', 'flower.jpg', 'gravel.png'),
}
FIRST_VAL_SCAN = (
    1437  # the last 360 of the 1,797 scans: later writers, about 36 scans of each digit
)

MANIFEST = 'demo_data.json'
FORMAT_VERSION = (
    2  # to be raised when the same parameters give other files; older data are replaced
)
MIN_DIGIT_PIXELS = 8
JPEG_QUALITY = 95
STALE_AFTER_SECONDS = 24 * 3600


@dataclass(frozen=True)
class _LayoutDefaults:
    size: tuple[int, int]  # width, height: typical of the real data set
    digits_per_image: tuple[int, int]
    digit_size: tuple[float, float]  # fractions of the image's shorter side


_DEFAULTS = {
    'coco': _LayoutDefaults((640, 480), (2, 6), (0.14, 0.40)),
    'ade20k': _LayoutDefaults((683, 512), (2, 6), (0.14, 0.40)),
    'imagenet': _LayoutDefaults((500, 375), (1, 1), (0.45, 0.85)),
}


@dataclass(frozen=True)
class Scene:
    """One drawn image and what is on it.

    ``image`` is (h, w, 3) uint8 in BGR; ``owner`` is (h, w) int16, the index of the digit that a
    pixel belongs to or -1; ``fringe`` is (h, w) bool, the half-transparent rim of the ink that
    belongs to no digit; ``labels`` and ``scans`` hold one entry a digit.
    """

    image: np.ndarray
    owner: np.ndarray
    fringe: np.ndarray
    labels: tuple[int, ...]
    scans: tuple[int, ...]
    photograph: str


def _source_folder(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    if spec is None:
        raise ImportError(
            'the demo data is made of the images that scikit-learn and scikit-image ship; '
            'install them with: pip install "scikit-learn>=1.3" "scikit-image>=0.22"'
        )
    return Path(spec.origin).parent.joinpath(*parts)


@lru_cache
def load_photographs(split: str) -> dict[str, np.ndarray]:
    """The split's photographs by file name, (h, w, 3) uint8 in BGR.

    Raises:
        ImportError: scikit-learn or scikit-image is not installed.
        FileNotFoundError: the installed version ships another set of photographs.
    """
    folders = (
        _source_folder('skimage', 'data'),
        _source_folder('sklearn', 'datasets', 'images'),
    )
    photographs = {}
    for name in PHOTOGRAPHS[split]:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f'the installed scikit-image and scikit-learn do not ship the photograph {name}; '
                'scikit-image 0.22 to 0.26 and scikit-learn 1.3 to 1.9 do'
            )
        photographs[name] = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return photographs


@lru_cache
def load_scans(split: str) -> dict[int, list[tuple[int, np.ndarray]]]:
    """The split's scans by digit: (index among the 1,797, (8, 8) float64 ink from 0 to 1)."""
    _source_folder('sklearn')  # the clear error when it is missing
    from sklearn.datasets import load_digits

    digits = load_digits()
    indices = range(FIRST_VAL_SCAN) if split == 'train' else range(FIRST_VAL_SCAN, 1797)
    scans: dict[int, list[tuple[int, np.ndarray]]] = {digit: [] for digit in range(10)}
    for index in indices:
        ink = digits.images[index] / 16
        scans[int(digits.target[index])].append((index, ink))
    return scans


def _crop_background(rng: np.random.Generator, photograph: np.ndarray, size: tuple[int, int]):
    """A random crop of the photograph, resized to ``size`` (width, height); (h, w, 3) float32."""
    height, width = photograph.shape[:2]
    largest = min(width / size[0], height / size[1])
    scale = largest * rng.uniform(0.4, 1.0)
    crop_w, crop_h = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    x = rng.integers(width - crop_w + 1)
    y = rng.integers(height - crop_h + 1)
    crop = photograph[y : y + crop_h, x : x + crop_w]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    crop = cv2.resize(np.ascontiguousarray(crop), size, interpolation=interpolation)
    return np.clip(crop.astype(np.float32) * rng.uniform(0.8, 1.15), 0, 255)


def _enlarge(rng: np.random.Generator, ink: np.ndarray, pixels: float) -> np.ndarray:
    """Opacity, (h, w) float64 in [0, 1], of a scan whose 8x8 frame is drawn ``pixels`` high.

    The scan is tilted by up to 10 degrees; the ink's edge is about 1.5 pixels wide at every size,
    and the ink is what has an opacity of at least one half.
    """
    from scipy import ndimage  # comes with scikit-learn

    cell = pixels / 8
    angle = np.deg2rad(rng.uniform(-10, 10))
    aspect = rng.uniform(0.85, 1.15)
    rotation = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    to_frame = rotation @ np.diag([1 / cell, 1 / (cell * aspect)])
    frame = np.pad(ink, 2)  # the spline needs room to fade out
    side = int(np.ceil(14 * cell))
    offset = (frame.shape[0] - 1) / 2 - to_frame @ np.full(2, (side - 1) / 2)
    value = ndimage.affine_transform(frame, to_frame, offset, (side, side), order=3)
    threshold = rng.uniform(0.38, 0.55)  # the width of the pen
    opacity = np.clip((value - threshold) / min(0.5, 1.5 / cell) + 0.5, 0, 1)
    rows, columns = np.flatnonzero(opacity.any(1)), np.flatnonzero(opacity.any(0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _ink_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """An ink, (3,) float32 in BGR, that stands out from the (n, 3) pixels it is drawn on.

    Its brightness is drawn from those that differ by 65 or more from nine tenths of the pixels;
    where there is none, the brightness that differs from the most pixels is taken.
    """
    brightness = background.mean(1)
    choices = np.arange(10.0, 256.0, 15.0)
    distinct = (np.abs(choices[:, None] - brightness) >= 65).mean(1)
    choices = choices[distinct >= min(0.9, distinct.max())]
    tint = rng.uniform(-45, 45, 3)
    # One draw whatever the number of choices: a pixel that another OpenCV scales differently must
    # not change what is drawn next.
    colour = choices[int(rng.random() * len(choices))] + tint - tint.mean()
    return np.clip(colour, 0, 255).astype(np.float32)


def _place(rng: np.random.Generator, owner: np.ndarray, inked: np.ndarray, areas: list[int]):
    """A random corner (x, y) at which ``inked`` hides at most a tenth of any earlier digit.

    Returns None when 30 tries find none. ``areas`` are the areas that the earlier digits had when
    they were drawn.
    """
    h, w = inked.shape
    visible = np.bincount(owner[owner >= 0], minlength=len(areas))
    for _ in range(30):
        x = int(rng.integers(owner.shape[1] - w + 1))
        y = int(rng.integers(owner.shape[0] - h + 1))
        below = owner[y : y + h, x : x + w][inked]
        hidden = np.bincount(below[below >= 0], minlength=len(areas))
        if np.all(visible - hidden >= 0.9 * np.asarray(areas)) or not areas:
            return x, y
    return None


def draw_scene(
    rng: np.random.Generator,
    split: str,
    size: tuple[int, int],
    digits_per_image: tuple[int, int],
    digit_size: tuple[float, float],
    labels: Iterable[int],
) -> Scene:
    """Draw digits on a crop of a photograph.

    Args:
        rng: The only source of randomness.
        split: 'train' or 'val'; decides which photographs and scans may occur.
        size: (width, height) in pixels.
        digits_per_image: Least and largest number of digits. A digit for which there is no room
            left is given up, the first one never.
        digit_size: Least and largest height of a digit's frame, as fractions of the image's
            shorter side; log-uniform in between.
        labels: The digits to choose from.
    """
    width, height = size
    labels = tuple(labels)
    names = PHOTOGRAPHS[split]
    photograph = names[rng.integers(len(names))]
    image = _crop_background(rng, load_photographs(split)[photograph], size)
    owner = np.full((height, width), -1, np.int16)
    fringe = np.zeros((height, width), bool)
    drawn_labels: list[int] = []
    drawn_scans: list[int] = []
    areas: list[int] = []
    for _ in range(rng.integers(digits_per_image[0], digits_per_image[1] + 1)):
        label = labels[rng.integers(len(labels))]
        candidates = load_scans(split)[label]
        scan, ink = candidates[rng.integers(len(candidates))]
        pixels = min(size) * np.exp(rng.uniform(*np.log(digit_size)))
        opacity = _enlarge(rng, ink, pixels)[:height, :width]
        inked = opacity >= 0.5
        corner = _place(rng, owner, inked, areas)
        if corner is None:
            continue
        x, y = corner
        window = np.s_[y : y + opacity.shape[0], x : x + opacity.shape[1]]
        colour = _ink_colour(rng, image[window][inked])
        blend = (opacity * rng.uniform(0.8, 1.0))[..., None].astype(np.float32)
        image[window] = image[window] * (1 - blend) + colour * blend
        owner[window][inked] = len(areas)
        fringe[window] |= opacity > 0.1
        areas.append(int(inked.sum()))
        drawn_labels.append(label)
        drawn_scans.append(scan)
    return Scene(
        image=np.rint(image).astype(np.uint8),
        owner=owner,
        fringe=fringe & (owner < 0),
        labels=tuple(drawn_labels),
        scans=tuple(drawn_scans),
        photograph=photograph,
    )


def trace_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The closed outlines of a mask along its pixels' edges.

    Args:
        mask: (h, w) bool. Pixels that only touch at a corner count as apart.

    Returns:
        (n, 2) arrays of corners (x, y), whole numbers from 0 to w and 0 to h. Outer outlines run
        clockwise (positive area in image coordinates), those of holes the other way round.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    mask = mask[top : top + height, left : left + width]
    padded = np.pad(mask, 1)
    # The directions 0 to 3 go right, down, left and up along a pixel's top, right, bottom and left
    # edge, so the mask is always on the right-hand side.
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))
    steps = ((1, 0), (0, 1), (-1, 0), (0, -1))
    edges = {
        (x + dx, y + dy, direction)
        for direction, (neighbour, (dx, dy)) in enumerate(zip(neighbours, starts, strict=True))
        for y, x in np.argwhere(mask & ~neighbour).tolist()
    }
    outlines = []
    visited = set()
    for edge in sorted(edges):
        corners = []
        while edge not in visited:
            visited.add(edge)
            x, y, direction = edge
            x, y = x + steps[direction][0], y + steps[direction][1]
            # Where two pixels touch at a corner, the right turn stays at the same pixel.
            turns = [(x, y, (direction + turn) % 4) for turn in (1, 0, -1)]
            edge = next(turn for turn in turns if turn in edges)
            if edge[2] != direction:
                corners.append((left + x, top + y))
        if corners:
            outlines.append(np.array(corners))
    return outlines


def _signed_area(outline: np.ndarray) -> float:
    x, y = outline.T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons, flat lists [x1, y1, x2, y2, ...], that cover exactly the pixels of a mask.

    COCO's polygons have no holes, and mmdet ignores instances with a run-length mask when it is
    asked for polygons (``poly2mask=False``). A mask with a hole is therefore cut along a column
    through the hole, as often as needed, and the pieces are returned side by side.
    """
    outlines = trace_outlines(mask)
    hole = next((outline for outline in outlines if _signed_area(outline) < 0), None)
    if hole is None:
        return [outline.astype(float).ravel().tolist() for outline in outlines]
    column = (hole[:, 0].min() + hole[:, 0].max()) // 2
    columns = np.arange(mask.shape[1])
    left, right = mask & (columns < column), mask & (columns >= column)
    return mask_to_polygons(left) + mask_to_polygons(right)


def mask_to_rle(mask: np.ndarray) -> dict:
    """The uncompressed run-length form of COCO: column by column, starting with background."""
    flat = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return dict(size=list(mask.shape), counts=counts.tolist())


@dataclass(frozen=True)
class _DrawnImage:
    split: str
    index: int
    scene: Scene


def _write_bytes(path: Path, extension: str, image: np.ndarray) -> None:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if extension == '.jpg' else []
    encoded = cv2.imencode(extension, image, parameters)[1]
    path.write_bytes(encoded.tobytes())


def coco_class_names(num_classes: int) -> tuple[str, ...]:
    """Names of the COCO layout's categories: 'zero' to 'nine', then 'unused_10' and so on."""
    unused = tuple(f'unused_{index}' for index in range(10, num_classes))
    return DIGIT_NAMES[:num_classes] + unused


def _write_coco(
    root: Path, drawn_images: Iterable[_DrawnImage], num_classes: int, mask_format: str
) -> None:
    encode_mask = mask_to_polygons if mask_format == 'polygon' else mask_to_rle
    categories = [
        dict(id=index + 1, name=name, supercategory='digit')
        for index, name in enumerate(coco_class_names(num_classes))
    ]
    info = dict(description='handwritten digits on photographs', version=str(FORMAT_VERSION))
    documents = {
        split: dict(info=info, licenses=[], images=[], annotations=[], categories=categories)
        for split in SPLITS
    }
    for split in SPLITS:
        (root / f'{split}2017').mkdir()
    (root / 'annotations').mkdir()
    for drawn in drawn_images:
        scene, document = drawn.scene, documents[drawn.split]
        image_id = drawn.index + 1
        file_name = f'{image_id:012d}.jpg'
        _write_bytes(root / f'{drawn.split}2017' / file_name, '.jpg', scene.image)
        height, width = scene.owner.shape
        document['images'].append(
            dict(
                id=image_id,
                file_name=file_name,
                width=width,
                height=height,
                photograph=scene.photograph,
            )
        )
        for index, (label, scan) in enumerate(zip(scene.labels, scene.scans, strict=True)):
            mask = scene.owner == index
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            document['annotations'].append(
                dict(
                    id=len(document['annotations']) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[float(x), float(y), float(w), float(h)],
                    area=float(mask.sum()),
                    segmentation=encode_mask(mask),
                    iscrowd=0,
                    scan=scan,
                )
            )
    for split, document in documents.items():
        path = root / 'annotations' / f'instances_{split}2017.json'
        path.write_text(json.dumps(document), encoding='utf-8')


def _write_ade20k(root: Path, drawn_images: Iterable[_DrawnImage]) -> None:
    folders = dict(train='training', val='validation')
    for kind in ('images', 'annotations'):
        for folder in folders.values():
            (root / kind / folder).mkdir(parents=True)
    for drawn in drawn_images:
        scene = drawn.scene
        # -1, the background, takes the last entry.
        lookup = np.array([label + 1 for label in scene.labels] + [ADE20K_BACKGROUND], np.uint8)
        label_map = lookup[scene.owner]
        label_map[scene.fringe] = 0
        stem = f'ADE_{drawn.split}_{drawn.index + 1:08d}'
        folder = folders[drawn.split]
        _write_bytes(root / 'images' / folder / f'{stem}.jpg', '.jpg', scene.image)
        _write_bytes(root / 'annotations' / folder / f'{stem}.png', '.png', label_map)


def _write_imagenet(root: Path, drawn_images: Iterable[_DrawnImage], num_classes: int) -> None:
    # Sorted by name the folders are in the order of the labels, as folder-style readers need it.
    folders = [f'{digit}_{name}' for digit, name in enumerate(DIGIT_NAMES[:num_classes])]
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    (root / 'meta').mkdir()
    for split in SPLITS:
        for folder in folders:
            (root / split / folder).mkdir(parents=True)
    for drawn in drawn_images:
        label = drawn.scene.labels[0]
        name = f'{folders[label]}/{folders[label]}_{drawn.index + 1:08d}.JPEG'
        _write_bytes(root / drawn.split / name, '.jpg', drawn.scene.image)
        lines[drawn.split].append(f'{name} {label}\n')
    for split in SPLITS:
        (root / 'meta' / f'{split}.txt').write_text(''.join(lines[split]), encoding='utf-8')


def _check_range(name: str, value: tuple, least: float, largest: float) -> None:
    if not (len(value) == 2 and least <= value[0] <= value[1] <= largest):
        raise ValueError(
            f'{name} must be two numbers, the smaller first, from {least} to {largest}, '
            f'not {tuple(value)}'
        )


def _check_parameters(parameters: dict) -> None:
    layout, num_classes = parameters['layout'], parameters['num_classes']
    for name in ('images', 'val_images', 'num_classes'):
        if parameters[name] < 1:
            raise ValueError(f'{name} must be at least 1, not {parameters[name]}')
    if parameters['seed'] < 0:
        raise ValueError(f'seed must not be negative, not {parameters["seed"]}')
    if parameters['mask_format'] not in ('polygon', 'rle'):
        raise ValueError(
            f"mask_format must be 'polygon' or 'rle', not {parameters['mask_format']!r}"
        )
    if (layout == 'ade20k' and num_classes != 10) or (layout == 'imagenet' and num_classes > 10):
        raise ValueError(
            f'num_classes={num_classes} does not fit the layout {layout}: it has labels for the '
            'ten digits (ade20k: and the background), whatever the number of classes of a head is'
        )
    most = 1 if layout == 'imagenet' else 100
    _check_range('digits_per_image', parameters['digits_per_image'], 1, most)
    _check_range('digit_size', parameters['digit_size'], 0.01, 0.85)
    smallest = min(parameters['size']) * parameters['digit_size'][0]
    if smallest < MIN_DIGIT_PIXELS:
        needed = int(np.ceil(MIN_DIGIT_PIXELS / parameters['digit_size'][0]))
        width, height = parameters['size']
        raise ValueError(
            f'size {width}x{height} is too small: the smallest digit would be {smallest:.1f} '
            f'pixels high; use at least {needed}x{needed} or a larger digit_size'
        )


def _draw_all(parameters: dict, used: dict[str, dict[str, set]], progress) -> Iterator[_DrawnImage]:
    """Draw the images one by one and note in ``used`` what they were made of."""
    counts = dict(train=parameters['images'], val=parameters['val_images'])
    planned = [(split, index) for split in SPLITS for index in range(counts[split])]
    digits = range(min(10, parameters['num_classes']))
    for split, index in progress(planned):
        rng = np.random.default_rng([parameters['seed'], SPLITS.index(split), index])
        scene = draw_scene(
            rng,
            split,
            tuple(parameters['size']),
            parameters['digits_per_image'],
            parameters['digit_size'],
            [index % len(digits)] if parameters['layout'] == 'imagenet' else digits,
        )
        used[split]['photographs'].add(scene.photograph)
        used[split]['scans'].update(scene.scans)
        yield _DrawnImage(split, index, scene)


def _write_all(root: Path, parameters: dict, progress) -> None:
    used = {split: dict(photographs=set(), scans=set()) for split in SPLITS}
    drawn_images = _draw_all(parameters, used, progress)
    if parameters['layout'] == 'coco':
        _write_coco(root, drawn_images, parameters['num_classes'], parameters['mask_format'])
    elif parameters['layout'] == 'ade20k':
        _write_ade20k(root, drawn_images)
    else:
        _write_imagenet(root, drawn_images, parameters['num_classes'])
    sources = {
        split: {kind: sorted(values) for kind, values in kinds.items()}
        for split, kinds in used.items()
    }
    manifest = dict(parameters=parameters, sources=sources)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding='utf-8')


def _read_parameters(out: Path) -> dict | None:
    """The parameters of the complete data set at ``out``; None where there is no such thing."""
    try:
        return json.loads((out / MANIFEST).read_text(encoding='utf-8'))['parameters']
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_reusable(out: Path, parameters: dict, overwrite: bool) -> bool:
    """Whether ``out`` already holds what is asked for; raises when it must not be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    existing = _read_parameters(out)
    if existing is None:
        raise FileExistsError(f'{out} exists and is not demo data; choose another folder')
    if existing == parameters:
        return True
    if overwrite or existing | dict(version=FORMAT_VERSION) == parameters:
        return False
    names = [name for name in parameters if existing.get(name) != parameters[name]]
    differences = ', '.join(f'{name}={existing.get(name)}' for name in names)
    raise FileExistsError(
        f'{out} holds other demo data ({differences}); '
        'ask for overwrite (--overwrite) or choose another folder'
    )


def _remove_stale(out: Path) -> None:
    """Remove what killed runs left beside ``out`` a day ago or earlier."""
    for path in out.parent.glob(f'.{out.name}.partial-*'):
        if time.time() - path.stat().st_mtime > STALE_AFTER_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(partial: Path, out: Path, parameters: dict) -> None:
    """Rename the finished folder; an older data set at ``out`` is first moved aside, then deleted.

    Several processes may generate the same data at once: the first wins, the others keep its data.
    """
    old = partial.with_name(partial.name + '-old')
    if _read_parameters(out) not in (None, parameters):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        if _read_parameters(out) != parameters:
            raise
    shutil.rmtree(old, ignore_errors=True)


def make_demo_data(
    layout: str,
    out: str | os.PathLike,
    images: int,
    val_images: int | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    num_classes: int = 10,
    digits_per_image: tuple[int, int] | None = None,
    digit_size: tuple[float, float] | None = None,
    mask_format: str = 'polygon',
    overwrite: bool = False,
    progress: Callable[[list], Iterable] = iter,
) -> Path:
    """Write a demo data set, or return at once when ``out`` already holds the very same one.

    The files are written to a hidden folder beside ``out`` that is renamed at the end, so ``out``
    is complete whenever it exists. What an older version of this module wrote with the same
    parameters is replaced.

    Args:
        layout: 'coco', 'ade20k' or 'imagenet'.
        out: Folder of the data set, the ``data_root`` of a config.
        images: Number of training images.
        val_images: Number of validation images; a fifth of ``images`` when left out.
        size: (width, height) of every image in pixels; the real data set's typical size when left
            out.
        seed: The same seed and parameters give the same files.
        num_classes: Categories of the COCO layout; beyond ten they are called 'unused_10' and so
            on, so that the data fit a head with 80 classes. Below ten only the first digits are
            drawn, in the ImageNet layout too. The ADE20K layout always has all ten.
        digits_per_image: Least and largest number of digits on an image.
        digit_size: Least and largest height of a digit as fractions of the image's shorter side.
        mask_format: 'polygon' or 'rle', how the COCO layout stores its masks. Both are exact.
        overwrite: Replace other demo data at ``out``. Anything else there is never replaced.
        progress: Wraps the list of images to be drawn, for example ``tqdm.tqdm``.

    Returns:
        ``out`` as a path.

    Raises:
        ValueError: a parameter is out of range.
        FileExistsError: ``out`` holds something else.
        OSError: ``out`` cannot be written.
        ImportError: scikit-learn or scikit-image is not installed.
    """
    if layout not in LAYOUTS:
        raise ValueError(f'unknown layout {layout!r}; known are {", ".join(LAYOUTS)}')
    defaults = _DEFAULTS[layout]
    parameters = dict(
        version=FORMAT_VERSION,
        layout=layout,
        images=images,
        val_images=max(1, images // 5) if val_images is None else val_images,
        size=list(size or defaults.size),
        seed=seed,
        num_classes=num_classes,
        digits_per_image=list(digits_per_image or defaults.digits_per_image),
        digit_size=list(digit_size or defaults.digit_size),
        mask_format=mask_format,
    )
    _check_parameters(parameters)
    target = Path(out).resolve()
    if _is_reusable(target, parameters, overwrite):
        return Path(out)
    for split in SPLITS:  # a missing source is noticed before anything is written
        load_photographs(split)
        load_scans(split)
    partial = target.parent / f'.{target.name}.partial-{secrets.token_hex(4)}'
    try:
        partial.mkdir(parents=True)
        _remove_stale(target)
        _write_all(partial, parameters, progress)
        _put_in_place(partial, target, parameters)
    except OSError as error:
        raise OSError(f'cannot write demo data to {out}: {error.strerror or error}') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Path(out)
