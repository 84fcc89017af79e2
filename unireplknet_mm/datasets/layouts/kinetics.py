"""Kinetics: a folder of videos a class, and a list of paths with their labels a split."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.configuration import classes_of_heads
from unireplknet_mm.datasets.drawing import load_photographs, load_scans
from unireplknet_mm.datasets.layouts.base import SPLITS, Layout, Progress
from unireplknet_mm.datasets.motions import MOTIONS, draw_moving_digit
from unireplknet_mm.datasets.video_files import import_av, write_video
from unireplknet_mm.errors import ArgumentError

LIST = '{split}.txt'
SMALLEST_SIDE = 32


class Kinetics(Layout):
    """Demo data: digits over photographs, in classes of motion (`datasets/motions.py`), as H.264 files.

    Video i of a split depends on the seed and on i alone; its class is i modulo `num_classes`.
    """

    name = 'kinetics'
    dataset_types = ('VideoList',)
    samples = 'videos'
    files = ('{train,val}/CLASS/*.mp4', LIST.format(split='{train,val}'))
    title = 'Kinetics-400'
    source = 'https://github.com/cvdfoundation/kinetics-dataset'
    defaults = dict(
        size=(160, 120),
        frames=32,
        seed=0,
        num_classes=len(MOTIONS),
        digit_size=(0.25, 0.4),
    )
    run_samples = (2, 1)  # a clip at a time: of full size each takes gigabytes to train on
    small_config = 'configs/demo/motions_unireplknet_demo.py'

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        def default(name: str) -> str:
            value = self.defaults[name]
            return ' '.join(map(str, value)) if isinstance(value, tuple) else str(value)

        add = parser.add_argument
        add('--size', type=int, nargs=2, metavar=('W', 'H'), help=f'default: {default("size")}')
        add('--frames', type=int, metavar='N', help=f'of a video (default: {default("frames")})')
        add('--seed', type=int, metavar='S', help=f'default: {default("seed")}')
        add(
            '--num-classes',
            type=int,
            metavar='K',
            help=f'the first K of {", ".join(MOTIONS)} (default: {default("num_classes")})',
        )
        add(
            '--digit-size',
            type=float,
            nargs=2,
            metavar=('LEAST', 'MOST'),
            help="height of a digit in the middle frame over the frame's shorter side "
            f'(default: {default("digit_size")})',
        )

    def check(self, parameters: dict[str, Any]) -> None:
        size, digit_size = parameters['size'], parameters['digit_size']
        if len(size) != 2 or min(size) < SMALLEST_SIDE or any(side % 2 for side in size):
            raise ArgumentError(
                f'size must be width and height, even numbers from {SMALLEST_SIDE}, not {tuple(size)}: '
                'H.264 stores colours at half the resolution'
            )
        if parameters['frames'] < 1:
            raise ArgumentError(f'frames must be at least 1, not {parameters["frames"]}')
        if parameters['seed'] < 0:
            raise ArgumentError(f'seed must not be negative, not {parameters["seed"]}')
        if not 1 <= parameters['num_classes'] <= len(MOTIONS):
            raise ArgumentError(
                f'num_classes={parameters["num_classes"]} does not fit the layout {self.name}: its demo data '
                f'have the {len(MOTIONS)} motions {", ".join(MOTIONS)} at most, whatever the head has'
            )
        if not (len(digit_size) == 2 and 0.1 <= digit_size[0] <= digit_size[1] <= 0.5):
            raise ArgumentError(
                'digit_size must be two numbers, the smaller first, from 0.1 to 0.5, '
                f'not {tuple(digit_size)}'
            )

    def check_sources(self) -> None:
        import_av()
        for split in SPLITS:
            load_photographs(split)
            load_scans(split)

    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        used = {split: dict(photographs=set(), scans=set()) for split in SPLITS}
        lines: dict[str, list[str]] = {split: [] for split in SPLITS}
        motions = MOTIONS[: parameters['num_classes']]
        for split in SPLITS:
            for motion in motions:
                (root / split / motion).mkdir(parents=True)
        counts = dict(train=parameters['images'], val=parameters['val_images'])
        planned = [(split, index) for split in SPLITS for index in range(counts[split])]
        for split, index in progress(planned):
            label = index % len(motions)
            drawn = draw_moving_digit(
                np.random.default_rng([parameters['seed'], SPLITS.index(split), index]),
                split,
                motions[label],
                tuple(parameters['size']),
                parameters['frames'],
                tuple(parameters['digit_size']),
            )
            name = f'{motions[label]}/{index + 1:06d}.mp4'
            write_video(root / split / name, drawn.frames)
            lines[split].append(f'{name} {label}\n')
            used[split]['photographs'].add(drawn.photograph)
            used[split]['scans'].add(drawn.scan)
        for split in SPLITS:
            path = root / LIST.format(split=split)
            path.write_text(''.join(lines[split]), encoding='utf-8')
        return {
            split: {kind: sorted(values) for kind, values in kinds.items()}
            for split, kinds in used.items()
        }

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        return dict(num_classes=min(classes_of_heads(model) | {len(MOTIONS)}))

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(ann_file=LIST.format(split=split), data_prefix=split)


LAYOUT = Kinetics()
