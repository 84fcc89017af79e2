"""Frames out of video files and out of folders of pictures, those that are wanted and hardly any more.

First the packets of a file are listed, which reads all of it and decodes nothing and tells how many frames
there are and when each is shown; a process remembers that of the files it read last. Then decoding starts at
the key frame before a wanted frame and ends with the last wanted one. A frame is found by its time stamp, so
it is the very one that decoding the whole file gives, whatever order the file stores them in (B-frames).

How videos that are not as they should be are read:

- Of a file whose end is missing the frames that are there count.
- A frame that cannot be decoded is replaced by the readable one before it, the first ones by the one after.
- Where the resolution changes, all frames get the size of the first one that is read.
- Frames that are marked as turned by 90, 180 or 270 degrees or as mirrored, as those of phones are, are shown
  as players show them.
- Of several videos in a file FFmpeg's best one counts, never a cover, which is a picture.
- No frame at all, no video in the file, no such codec, no permission to read: `UnreadableVideoError`.
"""

import bisect
import math
import re
import stat
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from unireplknet_mm.datasets.video_files import import_av
from unireplknet_mm.errors import ArgumentError, FileError, MissingPackageError

BACKENDS = ('pyav', 'torchcodec')
PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
# Containers whose packets have the time stamps of their frames, as FFmpeg names them. In others, frames are
# counted from the beginning: the packets of AVI and MPEG program streams have none, or ascending ones in the
# order of storage, which with B-frames is not that in which frames are shown.
SEEKABLE_CONTAINERS = ('mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm', 'mpegts')
MAX_LISTED_FRAMES = 1_000_000  # remembered by a process: at most 16 MB


class UnreadableVideoError(FileError):
    """A video of which no frame can be had."""


class VideoReader(ABC):
    """The frames of a video by their number; a context manager, which closes it.

    Args:
        path: of the file or folder.

    Raises:
        UnreadableVideoError: there is no video in it that can be read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    @abstractmethod
    def __len__(self) -> int:
        """The number of frames, at least 1."""

    def read(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Frames, (H, W, 3) uint8 in BGR, of one size.

        Args:
            indices: from 0, in any order; one may be there several times.

        Raises:
            ArgumentError: the video has no such frame.
            UnreadableVideoError: none of them can be decoded.
        """
        wanted = sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise ArgumentError(f'{self.path} has {len(self)} frames, not number {wanted[-1]}')
        found = self._decode(wanted)
        if wanted and not found:
            raise UnreadableVideoError(f'{self.path}: none of its frames can be decoded')
        readable = sorted(found)
        frames = []
        for index in indices:
            before = bisect.bisect_right(readable, index) - 1
            frames.append(found[readable[max(before, 0)]])
        return _of_one_size(frames)

    @abstractmethod
    def _decode(self, wanted: list[int]) -> dict[int, np.ndarray]:
        """Those of the wanted frames, in ascending order, that can be decoded, by their number."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


def _of_one_size(frames: list[np.ndarray]) -> list[np.ndarray]:
    height, width = frames[0].shape[:2] if frames else (0, 0)
    return [
        frame if frame.shape[:2] == (height, width) else cv2.resize(frame, (width, height))
        for frame in frames
    ]


def open_video(path: str | Path, backend: str = 'pyav') -> VideoReader:
    """A video file, or a folder of pictures whose names sort in the order of the frames.

    Args:
        backend: what decodes files: 'pyav', or 'torchcodec', which needs the system's FFmpeg.

    Raises:
        ArgumentError: there is no such backend.
        MissingPackageError: it is not installed.
        UnreadableVideoError: the file or folder is not there, or there is no video in it that can be read.
    """
    if backend not in BACKENDS:
        raise ArgumentError(f'backend must be one of {", ".join(BACKENDS)}, not {backend!r}')
    path = Path(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        raise UnreadableVideoError(f'{path} does not exist') from None
    except OSError as error:
        raise UnreadableVideoError(f'{path} cannot be opened: {_said(error)}') from error
    if is_folder:
        return FrameFolder(path)
    return TorchCodecReader(path) if backend == 'torchcodec' else PyAVReader(path)


class FrameFolder(VideoReader):
    """A video as a folder of pictures, in the order of the numbers in their names: 2.jpg before 10.jpg."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        try:
            pictures = [
                file
                for file in self.path.iterdir()
                if file.suffix.lower() in PICTURES and not file.name.startswith('.')
            ]
        except OSError as error:
            raise UnreadableVideoError(f'{path} cannot be opened: {_said(error)}') from error
        if not pictures:
            raise UnreadableVideoError(f'{path}: there are no pictures in this folder')
        self.pictures = sorted(pictures, key=_in_numerical_order)

    def close(self) -> None:
        """Pictures are open only while they are read."""

    def __len__(self) -> int:
        return len(self.pictures)

    def _decode(self, wanted: list[int]) -> dict[int, np.ndarray]:
        frames = {}
        for index in wanted:
            try:
                content = np.fromfile(self.pictures[index], np.uint8)
            except OSError:  # such as no permission: like a picture that cannot be decoded
                continue
            frame = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
            if frame is not None:
                frames[index] = frame
        return frames


def _in_numerical_order(file: Path) -> list[tuple[int, str]]:
    parts = re.findall(r'\d+|\D+', file.name)
    return [(int(part), '') if part.isdigit() else (-1, part) for part in parts]


class _Times(NamedTuple):
    """When all frames are shown, and the key frames among them: ascending, in units of the stream."""

    frames: Sequence[int]
    keys: Sequence[int]


class _Listing(NamedTuple):
    """What is known of a file whose packets were listed: its times, if it has any, and how many frames."""

    times: _Times | None
    length: int


class _Listings:
    """The listings of the files that were read last, of a bounded number of frames altogether."""

    def __init__(self, max_frames: int):
        self.max_frames = max_frames
        self.frames = 0
        self.by_file: OrderedDict[tuple, _Listing] = OrderedDict()

    def get(self, file: tuple) -> _Listing | None:
        if file in self.by_file:
            self.by_file.move_to_end(file)
        return self.by_file.get(file)

    def put(self, file: tuple, listing: _Listing) -> None:
        self.by_file[file] = listing
        self.frames += listing.length
        while self.frames > self.max_frames:
            _, oldest = self.by_file.popitem(last=False)
            self.frames -= oldest.length


_listings = _Listings(MAX_LISTED_FRAMES)


class PyAVReader(VideoReader):
    """A file by PyAV, which brings its own FFmpeg.

    Attributes:
        decoded: how many frames were decoded so far.
    """

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.av = import_av()
        self.decoded = 0
        self.container = None
        self._open()
        try:
            self.times, self.length = self._look_up()
            if not self.length:
                raise UnreadableVideoError(f'{path}: there is no frame in this file')
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self.length

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
            self.container = None

    def _open(self) -> None:
        """Open the file, or open it again, at its beginning."""
        self.close()
        try:
            self.container = self.av.open(str(self.path))
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableVideoError(f'{self.path} cannot be opened: {_said(error)}') from error
        self.stream = self._choose_stream()
        if self.stream is None:
            self.close()
            raise UnreadableVideoError(f'{self.path}: there is no video in this file')
        if self.stream.codec_context is None:
            self.close()
            raise UnreadableVideoError(
                f'{self.path}: this FFmpeg has no decoder for its video; re-encode it, as H.264 for instance'
            )
        # The loader's workers run side by side; threads of the decoder would only disturb them.
        self.stream.codec_context.thread_count = 1

    def _choose_stream(self) -> Any | None:
        """The video that FFmpeg takes for the best one; None if there are only covers, or nothing."""
        cover = self.av.stream.Disposition.attached_pic
        videos = [
            stream for stream in self.container.streams.video if not stream.disposition & cover
        ]
        best = self.container.streams.best('video')
        return best if best in videos else next(iter(videos), None)

    def _look_up(self) -> _Listing:
        """From memory where the file is the same as when its packets were listed."""
        status = self.path.stat()
        file = (str(self.path.absolute()), status.st_size, status.st_mtime_ns)
        listing = _listings.get(file)
        if listing is None:
            times = self._list_packets()
            listing = _Listing(times, len(times.frames) if times else self._count())
            if listing.length:
                _listings.put(file, listing)
        return listing

    def _list_packets(self) -> _Times | None:
        """Of a file that tells when its frames are shown; None otherwise."""
        if self.container.format.name not in SEEKABLE_CONTAINERS:
            return None
        shown, keys = [], []
        with _until_broken(self.av):
            for packet in self.container.demux(self.stream):
                if packet.size == 0 or packet.is_discard or packet.is_corrupt:
                    continue
                if packet.pts is None:
                    return None
                shown.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        if len(set(shown)) < len(shown):
            return None
        return _Times(array('q', sorted(shown)), array('q', sorted(keys)))

    def _count(self) -> int:
        self._open()
        return sum(1 for _ in self._frames())

    def _frames(self) -> Iterator[Any]:
        """The frames from here on, as far as they can be decoded."""
        with _until_broken(self.av):
            for packet in self.container.demux(self.stream):
                try:
                    frames = packet.decode()
                except self.av.FFmpegError:  # this one is broken; the next ones may not be
                    continue
                for frame in frames:
                    self.decoded += 1
                    yield frame

    def _decode(self, wanted: list[int]) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        if self.times is not None:
            index_of = {self.times.frames[index]: index for index in wanted}
            for group in self._groups(wanted):
                self._decode_group(group, index_of, found)
            return found
        self._open()
        for index, frame in enumerate(self._frames()):
            if index in wanted:
                found[index] = _to_array(frame)
            if index >= wanted[-1]:
                break
        return found

    def _groups(self, wanted: list[int]) -> list[list[int]]:
        """Wanted frames that one pass decodes: those between which there is no key frame to jump to."""
        groups: list[list[int]] = []
        last = None
        for index in wanted:
            key = self._key_before(self.times.frames[index])
            if key != last:
                groups.append([])
            groups[-1].append(index)
            last = key
        return groups

    def _key_before(self, time: int) -> int:
        """The number of the last key frame shown at or before a time; -1 for the beginning of the file."""
        return bisect.bisect_right(self.times.keys, time) - 1

    def _decode_group(self, group: list[int], index_of: dict[int, int], found: dict) -> None:
        first, last = self.times.frames[group[0]], self.times.frames[group[-1]]
        key = self._key_before(first)
        while True:
            self._seek(key)
            passed_first = False
            for frame in self._frames():
                if frame.pts is None:
                    continue
                if frame.pts in index_of and not frame.is_corrupt:
                    found[index_of[frame.pts]] = _to_array(frame)
                passed_first = passed_first or frame.pts <= first
                if frame.pts >= last:
                    break
            # A container may take a seek as a hint and land behind the key frame.
            if passed_first or key < 0:
                return
            key -= 1

    def _seek(self, key: int) -> None:
        if key < 0:
            self._open()
            return
        try:
            self.container.seek(self.times.keys[key], stream=self.stream, backward=True)
        except (self.av.FFmpegError, OSError):  # a container without an index, or broken
            self._open()


@contextmanager
def _until_broken(av: Any) -> Iterator[None]:
    """What is inside ends where FFmpeg meets data that are no video: a broken end."""
    with suppress(av.FFmpegError, EOFError):
        yield


def _to_array(frame: Any) -> np.ndarray:
    """A frame as players show it: mirrored and turned as it is marked, by the nearest quarter of a turn."""
    pixels = frame.to_ndarray(format='bgr24')
    marked = frame.side_data.get('DISPLAYMATRIX')
    if marked is None:
        return pixels
    # A pixel (x, y), y downwards, is shown at (a x + c y, b x + d y). `frame.rotation` takes no notice of a
    # mirror: to it, left for right is half a turn. So the mirror comes off first; a turn is left.
    a, b, _, c, d = (int(number) for number in np.frombuffer(bytes(marked), np.int32)[:5])
    if a * d - b * c < 0:
        pixels, a, b = pixels[:, ::-1], -a, -b
    clockwise = round(math.degrees(math.atan2(b, a)) / 90)
    return np.ascontiguousarray(np.rot90(pixels, -clockwise))


def _said(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


class TorchCodecReader(VideoReader):
    """A file by torchcodec, which loads the FFmpeg of the system."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        decoder = _import_torchcodec()
        try:
            self.decoder = decoder(
                str(path), dimension_order='NHWC', num_ffmpeg_threads=1, seek_mode='exact'
            )
            self.length = len(self.decoder)
        except (RuntimeError, ValueError) as error:
            raise UnreadableVideoError(f'{path} cannot be opened: {error}') from error
        if not self.length:
            raise UnreadableVideoError(f'{path}: there is no frame in this file')

    def __len__(self) -> int:
        return self.length

    def close(self) -> None:
        self.decoder = None

    def _decode(self, wanted: list[int]) -> dict[int, np.ndarray]:
        frames = {}
        for index in wanted:
            try:
                frame = self.decoder.get_frame_at(index).data
            except (RuntimeError, IndexError):  # what lies behind a broken place may be readable
                continue
            frames[index] = np.ascontiguousarray(frame.numpy()[..., ::-1])
        return frames


def _import_torchcodec() -> Any:
    """torchcodec's decoder.

    Raises:
        MissingPackageError: it is not installed, or finds no FFmpeg.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise MissingPackageError(
            "backend='torchcodec' needs torchcodec: pip install torchcodec, in the release that fits torch"
        ) from error
    except (RuntimeError, OSError) as error:
        raise MissingPackageError(
            "backend='torchcodec' needs the system's FFmpeg (on Debian and Ubuntu, apt-get install ffmpeg), "
            "and PyPI's wheel of it CUDA's NPP (pip install nvidia-npp); backend='pyav' needs neither"
        ) from error
    return VideoDecoder
