"""Drawing the demo images: real handwritten digits on crops of real photographs.

Nothing is downloaded and nothing is synthetic but the composition: the digits are the 1,797 scans
that scikit-learn ships (UCI, 8x8 pixels, smoothly enlarged), the backgrounds are crops of the
photographs that scikit-learn and scikit-image ship. Every mask is the very set of pixels that was
inked, so boxes, areas and polygons are exact. Scans and photographs of the validation split never
occur in training. The masks do not depend on the version of OpenCV; single pixels of the images
may, by its way of decoding, scaling and encoding them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from unireplknet_mm.errors import MissingFileError, MissingPackageError

DIGIT_NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')

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
FIRST_VAL_SCAN = 1437  # of the 1,797: the last 360, later writers, about 36 scans of each digit

JPEG_QUALITY = 95


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
        raise MissingPackageError(
            'the demo data is made of the images that scikit-learn and scikit-image ship; '
            'install them with: pip install "scikit-learn>=1.3" "scikit-image>=0.22"'
        )
    return Path(spec.origin).parent.joinpath(*parts)


@lru_cache
def load_photographs(split: str) -> dict[str, np.ndarray]:
    """The split's photographs by file name, (h, w, 3) uint8 in BGR.

    Raises:
        MissingPackageError: scikit-learn or scikit-image is not installed.
        MissingFileError: the installed version ships another set of photographs.
    """
    folders = (
        _source_folder('skimage', 'data'),
        _source_folder('sklearn', 'datasets', 'images'),
    )
    photographs = {}
    for name in PHOTOGRAPHS[split]:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            raise MissingFileError(
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


def crop_background(rng: np.random.Generator, photograph: np.ndarray, size: tuple[int, int]):
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


def enlarge(rng: np.random.Generator, ink: np.ndarray, pixels: float) -> np.ndarray:
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


def ink_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
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
    image = crop_background(rng, load_photographs(split)[photograph], size)
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
        opacity = enlarge(rng, ink, pixels)[:height, :width]
        inked = opacity >= 0.5
        corner = _place(rng, owner, inked, areas)
        if corner is None:
            continue
        x, y = corner
        window = np.s_[y : y + opacity.shape[0], x : x + opacity.shape[1]]
        colour = ink_colour(rng, image[window][inked])
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


def draw_label_map(scene: Scene, first_digit: int, background: int, unlabelled: int) -> np.ndarray:
    """The label of every pixel of a scene, (h, w) uint8.

    Args:
        first_digit: the label of the digit 0; those of the others follow.
        background: the label of the photograph.
        unlabelled: the label of the rim of the ink.
    """
    # -1, the background, takes the last entry.
    lookup = np.array([first_digit + label for label in scene.labels] + [background], np.uint8)
    label_map = lookup[scene.owner]
    label_map[scene.fringe] = unlabelled
    return label_map


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, BGR or of one channel, as JPEG or as PNG, which its name ends with."""
    is_png = path.suffix == '.png'
    parameters = [] if is_png else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    encoded = cv2.imencode('.png' if is_png else '.jpg', image, parameters)[1]
    path.write_bytes(encoded.tobytes())
