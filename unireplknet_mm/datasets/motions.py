"""Drawing videos whose classes differ in motion alone: handwritten digits that move over photographs.

Scans and photographs are those of `drawing.py`. What is drawn by chance (digit, background, colour, and
where, how large and at what angle the digit is in the middle frame) does not depend on the class: from one
generator's state the videos of all classes have the very same middle frame, and a single picture from the
middle tells nothing. The classes are what happens before and after.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from unireplknet_mm.datasets.drawing import (
    PHOTOGRAPHS,
    crop_background,
    enlarge,
    ink_colour,
    load_photographs,
    load_scans,
)

MOTIONS = ('left', 'right', 'up', 'down', 'growing', 'shrinking', 'turning', 'still')
DIRECTIONS = dict(left=(-1, 0), right=(1, 0), up=(0, -1), down=(0, 1))
SHIFT = (0.2, 0.3)  # from the middle frame to the last one, over the shorter side of the frame
GROWTH = (1.5, 2.0)  # the factor over the same time
TURN = (50.0, 90.0)  # degrees, either way
SPRITE_PIXELS = 96  # at which a scan is enlarged once; the frames are drawn from it


@dataclass(frozen=True)
class Placement:
    """The digit in one frame: its centre in pixels, the height of its scan in pixels, its tilt in degrees."""

    x: float
    y: float
    height: float
    angle: float


@dataclass(frozen=True)
class MovingDigit:
    """A drawn video.

    `frames` are (h, w, 3) uint8 in BGR; `placements` say where the digit is in each of them.
    """

    frames: list[np.ndarray]
    placements: list[Placement]
    digit: int
    scan: int
    photograph: str


def draw_moving_digit(
    rng: np.random.Generator,
    split: str,
    motion: str,
    size: tuple[int, int],
    num_frames: int,
    digit_size: tuple[float, float],
) -> MovingDigit:
    """Draw a digit that moves over a crop of a photograph.

    Args:
        rng: the only source of randomness; what is drawn from it does not depend on the motion.
        split: 'train' or 'val'; decides which photographs and scans may occur.
        motion: of `MOTIONS`.
        size: (width, height) in pixels.
        num_frames: the middle one is number `num_frames // 2`.
        digit_size: least and largest height of the scan in the middle frame, as fractions of the frame's
            shorter side; log-uniform in between.
    """
    names = PHOTOGRAPHS[split]
    photograph = names[rng.integers(len(names))]
    background = crop_background(rng, load_photographs(split)[photograph], size)
    digit = int(rng.integers(10))
    candidates = load_scans(split)[digit]
    scan, ink = candidates[rng.integers(len(candidates))]
    sprite = enlarge(rng, ink, SPRITE_PIXELS).astype(np.float32)
    shorter = min(size)
    middle = Placement(
        x=size[0] * rng.uniform(0.4, 0.6),
        y=size[1] * rng.uniform(0.4, 0.6),
        height=shorter * float(np.exp(rng.uniform(*np.log(digit_size)))),
        angle=rng.uniform(-30, 30),
    )
    shift = shorter * rng.uniform(*SHIFT)
    growth = float(np.exp(rng.uniform(*np.log(GROWTH))))
    turn = rng.uniform(*TURN) * rng.choice((-1, 1))
    opacity = rng.uniform(0.8, 1.0)
    under = _opacity_of(sprite, middle, size) >= 0.5
    colour = ink_colour(rng, background[under] if under.any() else background.reshape(-1, 3))
    frames, placements = [], []
    for i in range(num_frames):
        time = (i - num_frames // 2) / max(
            1, num_frames // 2
        )  # -1 in the first frame, 0 in the middle
        placement = _move(middle, motion, time, shift, growth, turn)
        blend = (_opacity_of(sprite, placement, size) * opacity)[..., None]
        frames.append(np.rint(background * (1 - blend) + colour * blend).astype(np.uint8))
        placements.append(placement)
    return MovingDigit(frames, placements, digit, scan, photograph)


def _move(
    middle: Placement, motion: str, time: float, shift: float, growth: float, turn: float
) -> Placement:
    """Where the digit is at a time from -1 to 1, of which 0 is the middle frame."""
    x, y, height, angle = middle.x, middle.y, middle.height, middle.angle
    if motion in DIRECTIONS:
        dx, dy = DIRECTIONS[motion]
        x, y = x + dx * shift * time, y + dy * shift * time
    elif motion in ('growing', 'shrinking'):
        height *= growth ** (time if motion == 'growing' else -time)
    elif motion == 'turning':
        angle += turn * time
    return Placement(x, y, height, angle)


def _opacity_of(sprite: np.ndarray, placement: Placement, size: tuple[int, int]) -> np.ndarray:
    """Opacity of the ink, (h, w) float32 from 0 to 1."""
    scale = placement.height / SPRITE_PIXELS
    height, width = sprite.shape
    to_frame = cv2.getRotationMatrix2D((width / 2, height / 2), placement.angle, scale)
    to_frame[:, 2] += (placement.x - width / 2, placement.y - height / 2)
    # Blurred before it is drawn smaller, or thin strokes would flicker.
    smooth = cv2.GaussianBlur(sprite, (0, 0), max(0.1, 0.35 / scale))
    return cv2.warpAffine(smooth, to_frame, size, flags=cv2.INTER_LINEAR)
