"""Data sets of labelled videos: a list of paths, as of Kinetics, and a folder a class.

A video is a file, or a folder of pictures. One that cannot be read does not end an epoch: in training another
one, drawn at random, takes its place; in testing a grey clip does, under the video's label, so that the
scores are of the whole set. Each is reported once and counted (`ReportUnreadableHook` sums up), whichever
worker process met it. More than `max_unreadable` of those seen so far, or many in a row, are an error.
"""

import logging
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset

from unireplknet_mm.errors import ArgumentError, MissingFileError, UserError, listed
from unireplknet_mm.modalities.folders import (
    classes_of,
    not_hidden,
    warn_of_empty_classes,
)
from unireplknet_mm.modalities.video.reading import PICTURES, UnreadableVideoError

VIDEOS = ('.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ts', '.webm', '.wmv')
UNSEEN, READ, UNREADABLE = range(3)
FEW = 100  # videos; before a process and its workers have seen as many, their share says little


class TooManyUnreadableError(UserError):
    """More videos of a data set cannot be read than it allows."""

    def __init__(self, message: str):
        # An error in a worker process arrives with that process's traceback in front of its message.
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


class VideoDataset(BaseDataset):
    """What the data sets of videos share: what becomes of those that cannot be read.

    Args:
        ann_file, metainfo, data_root, data_prefix, pipeline, test_mode, arguments: as of mmpretrain's
            `BaseDataset`.
        max_unreadable: the share of the videos that may be unreadable, from 0 to 1, among those that this
            rank has seen; until it has seen 100, among the first 100 of the set.
        max_refetch: how many videos in a row, in the place of one, may be.

    Raises:
        ArgumentError: a share that is none.
        TooManyUnreadableError: on reading, more than that are.
    """

    def __init__(
        self,
        ann_file: str = '',
        *arguments: Any,
        max_unreadable: float = 0.1,
        max_refetch: int = 10,
        **named: Any,
    ):
        if not 0 <= max_unreadable <= 1:
            raise ArgumentError(f'max_unreadable is a share from 0 to 1, not {max_unreadable}')
        self.max_unreadable = max_unreadable
        super().__init__(ann_file, *arguments, max_refetch=max_refetch, **named)

    def full_init(self) -> None:
        if not self._fully_initialized:
            super().full_init()
            # One entry a video, which the loader's worker processes write, too.
            self.states = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def unreadable(self) -> list[str]:
        """The videos that could not be read so far, in whatever process of this rank."""
        self.full_init()
        indices = np.flatnonzero(self.states.numpy() == UNREADABLE)
        return [self.get_data_info(int(index))['video_path'] for index in indices]

    def prepare_data(self, idx: int) -> dict | None:
        """A sample; None in training for a video that cannot be read."""
        info = self.get_data_info(idx)
        try:
            sample = self.pipeline(info)
        except UnreadableVideoError as error:
            self._note(idx, error)
            if not self.test_mode:
                return None
            return self._grey_clip(idx)
        self.states[idx] = READ
        return sample

    def _grey_clip(self, idx: int) -> dict:
        """Of the size of a readable video, as a pipeline need not resize what is stacked."""
        info = {**self.get_data_info(idx), 'unreadable': True}
        states = self.states.numpy()
        for other in chain(np.flatnonzero(states == READ), np.flatnonzero(states == UNSEEN)):
            path = self.get_data_info(int(other))['video_path']
            try:
                return self.pipeline({**info, 'sized_as': path})
            except UnreadableVideoError:
                continue
        return self.pipeline(info)

    def _note(self, idx: int, error: UnreadableVideoError) -> None:
        is_new = self.states[idx] != UNREADABLE
        self.states[idx] = UNREADABLE
        count = int((self.states == UNREADABLE).sum())
        # Of several ranks each sees a part of the set, so the set's size would be too large a measure.
        seen = int((self.states != UNSEEN).sum())
        if count > self.max_unreadable * max(seen, min(len(self), FEW)):
            raise TooManyUnreadableError(
                f'{count} of the {seen} videos seen so far cannot be read, more than max_unreadable='
                f'{self.max_unreadable:g} of them. The last one: {error}'
            ) from None
        if is_new:
            replacement = 'a grey clip' if self.test_mode else 'another video'
            print_log(
                f'{replacement.capitalize()} takes the place of one that cannot be read: {error}',
                logger='current',
                level=logging.WARNING,
            )

    def __getitem__(self, idx: int) -> dict:
        self.full_init()
        for _ in range(self.max_refetch + 1):
            sample = self.prepare_data(idx)
            if sample is not None:
                return sample
            idx = self._rand_another()
        raise TooManyUnreadableError(
            f'{self.max_refetch + 1} videos in a row cannot be read. The last one: '
            f'{self.get_data_info(idx)["video_path"]}'
        )

    def extra_repr(self) -> list[str]:
        return [f'Annotation file: \t{self.ann_file}', f'Folder: \t{self.img_prefix}']


@DATASETS.register_module()
class VideoList(VideoDataset):
    """Videos of a list: a line each, the path below `data_prefix` and the label, an integer from 0.

    The list of Kinetics: `abseiling/4YTwq0-73Y8.mp4 0`. The path may hold blanks; it may be that of a folder
    of pictures. Empty lines are left out. A label of -1 means that there is none.

    Raises:
        MissingFileError: there is no such list.
        ArgumentError: there is nothing in it, it is not in UTF-8, or a line is not of this form; the message
            has its number.
    """

    def load_data_list(self) -> list[dict]:
        path = Path(self.ann_file)
        if not path.is_file():
            raise MissingFileError(f'{path}, the list of videos, does not exist')
        try:
            lines = path.read_text(encoding='utf-8-sig').splitlines()  # Windows marks the beginning
        except UnicodeDecodeError as error:
            raise ArgumentError(
                f'{path}, the list of videos, is not in UTF-8 (byte {error.start}): save it as UTF-8'
            ) from None
        samples = [
            dict(self._parse(line.strip(), f'{path}, line {number}'), line=number)
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
        if not samples:
            raise ArgumentError(f'{path}: there is no video in this list')
        return samples

    def place_of(self, index: int) -> str:
        """Where in the list a sample is, for messages."""
        return f'{self.ann_file}, line {self.get_data_info(index)["line"]}'

    def _parse(self, line: str, where: str) -> dict:
        name, _, label = line.rpartition(' ')
        try:
            label = int(label)
        except ValueError:
            name = ''
        if not name.strip() or label < -1:
            raise ArgumentError(
                f'{where}: {line!r} is not a path, a blank and a label, an integer from 0'
            )
        classes = self.CLASSES
        if classes and label >= len(classes):
            raise ArgumentError(
                f'{where}: the label {label} is beyond the {len(classes)} classes of the data set'
            )
        info = dict(video_path=str(Path(self.img_prefix, name.strip())))
        return info if label == -1 else dict(info, gt_label=label)


@DATASETS.register_module()
class VideoFolder(VideoDataset):
    """Videos in a folder a class, at any depth: files, or folders of pictures.

    The classes are sorted by name. Where `classes` are given, their order counts, and every folder must be
    one of them. Without them the folders of validation and test must have the same classes as that of
    training (`SameClassesHook` looks after it). A class without a video is a warning.
    Names that begin with a dot are left out, of folders, videos and pictures.

    Raises:
        MissingFileError: there is no such folder.
        ArgumentError: there is no video in it, or a folder that is no class.
    """

    def load_data_list(self) -> list[dict]:
        root = Path(self.img_prefix)
        if not root.is_dir():
            raise MissingFileError(f'{root}, the folder of videos, does not exist')
        classes = self._metainfo['classes'] = classes_of(root, self.CLASSES)
        samples = [
            dict(video_path=str(path), gt_label=label)
            for label, name in enumerate(classes)
            for path in _videos_in(root / name, (root.resolve(),))
        ]
        if not samples:
            raise ArgumentError(
                f'{root}: there is no CLASS/video{{{",".join(VIDEOS)}}} in this folder'
            )
        warn_of_empty_classes(root, classes, (sample['gt_label'] for sample in samples), 'video')
        return samples


def _videos_in(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The videos below the folder of a class, sorted; a folder that has pictures in it is one.

    Links to folders are followed, but for those to a folder that they are in.
    """
    place = folder.resolve()
    if not folder.is_dir() or place in above:
        return
    for path in sorted(not_hidden(folder)):
        if not path.is_dir():
            if path.suffix.lower() in VIDEOS and path.is_file():
                yield path
        elif is_frame_folder(path):
            yield path
        else:
            yield from _videos_in(path, (*above, place))


def is_frame_folder(folder: Path) -> bool:
    """Whether a folder holds pictures, which then are the frames of a video.

    Where it holds a video file too, at any depth, they are its covers.
    """
    has_pictures = any(path.suffix.lower() in PICTURES for path in not_hidden(folder))
    return has_pictures and not _has_videos(folder)


def _has_videos(folder: Path) -> bool:
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith('.')]
        visible = (name for name in files if not name.startswith('.'))
        if any(os.path.splitext(name)[1].lower() in VIDEOS for name in visible):
            return True
    return False


@HOOKS.register_module()
class ReportUnreadableHook(Hook):
    """Says at the end of each epoch how many videos could not be read, and which, on whatever rank."""

    def after_train_epoch(self, runner: Runner) -> None:
        _report(runner, runner.train_dataloader)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        _report(runner, runner.val_dataloader)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        _report(runner, runner.test_dataloader)


def _report(runner: Runner, dataloader: Any) -> None:
    unreadable = getattr(dataloader.dataset, 'unreadable', None)
    if unreadable is None:
        return
    paths = sorted(set(chain(*all_gather_object(unreadable()))))
    if paths:
        runner.logger.warning(
            f'{len(paths)} of the {len(dataloader.dataset)} videos could not be read: {listed(paths)}'
        )
