"""Seeking gives the very frames of decoding the whole file, and broken videos have their treatment."""

import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sliding_videos import cut_off, decode_whole, sliding_frames, write_sliding

from unireplknet_mm.datasets.video_files import import_av
from unireplknet_mm.errors import ArgumentError, MissingPackageError
from unireplknet_mm.modalities.video import UnreadableVideoError, open_video, reading
from unireplknet_mm.modalities.video.reading import PyAVReader, TorchCodecReader

COUNT = 40

# file: the encoder's options; with B-frames, and open groups, whose first frames need the group before
FILES = {
    'closed.mp4': dict(bf='3', **{'b-pyramid': 'normal'}),
    'open.mp4': dict(bf='3', **{'x264-params': 'open-gop=1'}),
    'open.mkv': dict(bf='3', **{'x264-params': 'open-gop=1'}),
    'open.ts': dict(bf='2', **{'x264-params': 'open-gop=1'}),
    'hevc.mp4': dict(codec='libx265', **{'x265-params': 'log-level=none:open-gop=1:bframes=3'}),
    'mpeg2.ts': dict(codec='mpeg2video', bf='2'),
    # without time stamps, and with other ones than their packets have
    'h264.avi': dict(bf='3'),
    'mpeg4.avi': dict(codec='mpeg4', bf='2'),
    'raw.h264': dict(bf='2'),
    'stream.mpg': dict(codec='mpeg2video', bf='2'),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('videos')
    for name, options in FILES.items():
        write_sliding(folder / name, COUNT, **options)
    return folder


@pytest.mark.parametrize('name', FILES)
def test_frames_are_those_of_a_full_decode(folder, name):
    expected = decode_whole(folder / name)
    assert len(expected) == COUNT
    rng = np.random.default_rng(0)
    with open_video(folder / name) as video:
        assert len(video) == COUNT
        for _ in range(12):
            indices = rng.integers(COUNT, size=rng.integers(1, 7)).tolist()
            for index, frame in zip(indices, video.read(indices), strict=True):
                assert np.array_equal(frame, expected[index]), index
    for _ in range(6):  # opened anew, with what is remembered of the packets
        indices = rng.integers(COUNT, size=2).tolist()
        with open_video(folder / name) as video:
            for index, frame in zip(indices, video.read(indices), strict=True):
                assert np.array_equal(frame, expected[index]), index
    with open_video(folder / name) as video:
        for frame, other in zip(video.read(range(COUNT)), expected, strict=True):
            assert np.array_equal(frame, other)


def test_files_have_b_frames_and_several_key_frames(folder):
    """Without them the test above would show little."""
    for name in ('closed.mp4', 'open.mp4', 'open.mkv', 'open.ts', 'hevc.mp4', 'mpeg2.ts'):
        with import_av().open(str(folder / name)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        times = [packet.pts for packet in packets]
        assert times != sorted(times), name
        assert sum(packet.is_keyframe for packet in packets) >= 3, name


def test_only_what_leads_to_the_wanted_frames_is_decoded(folder):
    with open_video(folder / 'closed.mp4') as video:
        video.read([COUNT - 1])
        assert video.decoded < 16  # of groups of 12
        video.decoded = 0
        video.read([1, COUNT - 1])
        assert video.decoded < 24
        video.decoded = 0
        video.read([1, 3, 5])
        assert video.decoded < 12


def test_what_was_listed_is_remembered_of_unchanged_files(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, '_listings', reading._Listings(60))
    path = write_sliding(tmp_path / 'raw.h264', COUNT)
    with open_video(path) as video:
        assert len(video) == video.decoded == COUNT
    with open_video(path) as video:
        assert len(video) == COUNT and video.decoded == 0
    write_sliding(path, 30)  # together above 60 frames: the older listing goes
    with open_video(path) as video:
        assert len(video) == video.decoded == 30
    assert reading._listings.frames == 30
    with open_video(write_sliding(tmp_path / 'b.mp4', 20)) as video:
        assert len(video) == 20
    with open_video(path) as video:
        assert len(video) == 30 and video.decoded == 0
    monkeypatch.setattr(PyAVReader, '_list_packets', None)
    with open_video(tmp_path / 'b.mp4') as video:
        assert len(video) == 20 and len(video.read([3, 19])) == 2


@pytest.mark.parametrize(
    ('matrix', 'show'),
    [
        ((0, 1, -1, 0), lambda frame: cv2.rotate(frame, cv2.ROTATE_90_CLOCKWISE)),
        ((-1, 0, 0, -1), lambda frame: cv2.rotate(frame, cv2.ROTATE_180)),
        ((0, -1, 1, 0), lambda frame: cv2.rotate(frame, cv2.ROTATE_90_COUNTERCLOCKWISE)),
        ((-1, 0, 0, 1), lambda frame: cv2.flip(frame, 1)),
        ((1, 0, 0, -1), lambda frame: cv2.flip(frame, 0)),
        ((0, 1, 1, 0), cv2.transpose),
        ((0, -1, -1, 0), lambda frame: cv2.rotate(cv2.transpose(frame), cv2.ROTATE_180)),
    ],
    ids=['90', '180', '270', 'left-right', 'up-down', 'transposed', 'transversed'],
)
def test_turned_and_mirrored_videos_are_shown_upright(folder, tmp_path, matrix, show):
    """The matrix is [a, b, c, d] of the track's header in ISO/IEC 14496-12, §8.3.2."""

    def in_header(a, b, c, d):
        return struct.pack('>9i', a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    content = (folder / 'closed.mp4').read_bytes()
    track = content.index(b'tkhd')
    before, after = content[:track], content[track:]
    assert in_header(1, 0, 0, 1) in after
    turned = tmp_path / 'turned.mp4'
    turned.write_bytes(before + after.replace(in_header(1, 0, 0, 1), in_header(*matrix), 1))
    expected = decode_whole(folder / 'closed.mp4')
    with open_video(turned) as video:
        for index, frame in zip([3, 20], video.read([3, 20]), strict=True):
            assert np.array_equal(frame, show(expected[index]))


def write_behind_a_cover(path: Path, other: str | None, marked: bool) -> None:
    """A file that begins with a picture; behind it the video of another file, or a second of silence."""
    av = import_av()
    with av.open(str(path), 'w') as container:
        cover = container.add_stream('mjpeg', rate=1)
        cover.height = cover.width = 32
        cover.pix_fmt = 'yuvj420p'
        if marked:
            cover.disposition = av.stream.Disposition.attached_pic
        white = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 255, np.uint8), format='bgr24')
        if other is None:
            sound = container.add_stream('aac', rate=16000, layout='mono')
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), 'fltp', 'mono')
            silence.sample_rate = 16000
            packets = [*sound.encode(silence), *sound.encode()]
            container.mux([*cover.encode(white), *cover.encode(), *packets])
            return
        with av.open(str(other)) as video:
            stream = container.add_stream_from_template(video.streams.video[0])
            container.mux([*cover.encode(white), *cover.encode()])
            for packet in video.demux(video.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)


def test_a_cover_is_not_the_video(folder, tmp_path):
    path = tmp_path / 'cover.mkv'
    write_behind_a_cover(path, folder / 'closed.mp4', marked=False)
    assert len(decode_whole(path)) == 1  # the first video
    expected = decode_whole(folder / 'closed.mp4')
    with open_video(path) as video:
        assert len(video) == COUNT
        assert np.array_equal(video.read([5])[0], expected[5])
    path = tmp_path / 'song.mp4'
    write_behind_a_cover(path, None, marked=True)
    assert len(decode_whole(path)) == 1
    with pytest.raises(UnreadableVideoError, match='there is no video in this file'):
        open_video(path)


def test_folder_of_pictures(tmp_path):
    frames = sliding_frames(11)
    for i, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f'{i}.png'), frame)  # '10.png' is before '2.png' in the alphabet
    (tmp_path / 'notes.txt').write_text('no picture')
    with open_video(tmp_path) as video:
        assert len(video) == 11
        for frame, expected in zip(video.read(range(11)), frames, strict=True):
            assert np.array_equal(frame, expected)
    (tmp_path / '3.png').write_bytes(b'')
    with open_video(tmp_path) as video:
        assert np.array_equal(video.read([2, 3])[1], frames[2])
        assert np.array_equal(video.read([3, 4])[0], frames[4])
        with pytest.raises(UnreadableVideoError, match='none of its frames'):
            video.read([3])


def test_what_may_not_be_read_is_unreadable(tmp_path, monkeypatch):
    """The tests may run as root, who may read everything: the refusals are made."""
    frames = sliding_frames(3)
    for i, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f'{i}.png'), frame)

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'iterdir', refuse)
        with pytest.raises(UnreadableVideoError, match='cannot be opened: Permission denied'):
            open_video(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'stat', refuse)
        with pytest.raises(UnreadableVideoError, match='cannot be opened: Permission denied'):
            open_video(tmp_path / 'a.mp4')
    fromfile = np.fromfile
    monkeypatch.setattr(
        np, 'fromfile', lambda file, type: refuse() if file.stem == '1' else fromfile(file, type)
    )
    with open_video(tmp_path) as video:
        assert np.array_equal(video.read([0, 1])[1], frames[0])
        with pytest.raises(UnreadableVideoError, match='none of its frames'):
            video.read([1])


@pytest.mark.parametrize('name', ['open.mkv', 'open.ts', 'closed.mp4'])
@pytest.mark.parametrize('share', [0.9, 0.4])
def test_of_a_broken_end_what_is_there_counts(folder, name, share):
    """An MP4 can be read when its index is at the beginning, where `write_video` puts it."""
    whole = decode_whole(folder / name)
    with open_video(cut_off(folder / name, share)) as video:
        assert 1 <= len(video) < COUNT
        last = len(video) - 1
        frames = video.read([0, last // 2, last])
        assert np.array_equal(frames[0], whole[0])
        assert np.array_equal(frames[1], whole[last // 2])


def test_index_at_a_lost_end(tmp_path):
    """Without `faststart` the index of an MP4 is at its end."""
    path = tmp_path / 'slow.mp4'
    with import_av().open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.height, stream.width = 48, 64
        for frame in sliding_frames(20):
            picture = import_av().VideoFrame.from_ndarray(frame.copy(), format='bgr24')
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    with open_video(path) as video:
        assert len(video) == 20
    with pytest.raises(UnreadableVideoError, match=r'part0.9.mp4 cannot be opened: '):
        open_video(cut_off(path, 0.9))


def test_a_hole_is_filled_with_the_frame_before_it(folder, tmp_path):
    """Bytes of one packet in the middle are overwritten."""
    av = import_av()
    path = tmp_path / 'hole.mkv'
    content = bytearray((folder / 'open.mkv').read_bytes())
    with av.open(str(folder / 'open.mkv')) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        key = [packet for packet in packets if packet.is_keyframe][1]
        start = content.index(bytes(key)[:200])
        content[start : start + key.size] = bytes(key.size)
    path.write_bytes(content)
    whole = decode_whole(folder / 'open.mkv')
    with open_video(path) as video:
        assert len(video) == COUNT
        frames = video.read(range(COUNT))
    assert len(frames) == COUNT and {frame.shape for frame in frames} == {(48, 64, 3)}
    assert np.array_equal(frames[0], whole[0])
    assert not np.array_equal(frames[13], whole[13])


def test_changing_resolution(tmp_path):
    """Two H.264 streams, one after the other, of which the second is larger."""
    path = tmp_path / 'changing.h264'
    first = write_sliding(tmp_path / 'first.h264', 8, (64, 48))
    second = write_sliding(tmp_path / 'second.h264', 8, (96, 80))
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert {frame.shape for frame in decode_whole(path)} == {(48, 64, 3), (80, 96, 3)}
    with open_video(path) as video:
        assert len(video) == 16
        frames = video.read([0, 7, 12, 15])
        assert {frame.shape for frame in frames} == {(48, 64, 3)}
        assert {frame.shape for frame in video.read([12, 0])} == {(80, 96, 3)}
    assert np.array_equal(frames[0], decode_whole(first)[0])


def test_one_frame(tmp_path):
    with open_video(write_sliding(tmp_path / 'one.mp4', 1)) as video:
        assert len(video) == 1
        frames = video.read([0, 0, 0])
    assert len(frames) == 3 and all(np.array_equal(frame, frames[0]) for frame in frames)
    with pytest.raises(ArgumentError, match='has 1 frames, not number 1'):
        open_video(tmp_path / 'one.mp4').read([1])


def test_what_is_no_video(tmp_path):
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'text.mp4').write_text('not a video\n' * 50)
    (tmp_path / 'folder').mkdir()
    av = import_av()
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        silence.sample_rate = 16000
        container.mux([*stream.encode(silence), *stream.encode()])
    for name, message in {
        'missing.mp4': 'does not exist',
        'empty.mp4': 'cannot be opened',
        'text.mp4': 'cannot be opened',
        'folder': 'no pictures in this folder',
        'sound.mp4': 'no video in this file',
    }.items():
        with pytest.raises(UnreadableVideoError, match=message):
            open_video(tmp_path / name)
    # The name of a codec that there is not, in the place of that of H.264.
    whole = write_sliding(tmp_path / 'whole.mp4', 3).read_bytes()
    (tmp_path / 'codec.mp4').write_bytes(whole.replace(b'avc1', b'zzzz'))
    with pytest.raises(UnreadableVideoError, match='has no decoder for its video; re-encode it'):
        open_video(tmp_path / 'codec.mp4')
    with pytest.raises(ArgumentError, match="not 'decord'"):
        open_video(tmp_path, backend='decord')


def test_torchcodec_reads_the_same_frames(folder):
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        with pytest.raises(MissingPackageError, match='torchcodec'):
            open_video(folder / 'closed.mp4', 'torchcodec')
        pytest.skip(f'torchcodec with the FFmpeg of the system: {str(error).splitlines()[0]}')
    indices = [0, 13, 12, COUNT - 1]
    with open_video(folder / 'closed.mp4') as one, TorchCodecReader(folder / 'closed.mp4') as other:
        assert len(one) == len(other)
        for frame, same in zip(one.read(indices), other.read(indices), strict=True):
            # Two builds of FFmpeg may round differently from YUV to RGB.
            assert np.abs(frame.astype(int) - same).max() <= 2


def test_without_pyav_the_error_names_the_extra(folder, tmp_path, monkeypatch):
    """And a folder of pictures needs no decoder."""
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(MissingPackageError, match=r'PyAV.*pip install "unireplknet-mm\[video\]"'):
        open_video(folder / 'closed.mp4')
    cv2.imwrite(str(tmp_path / '0.png'), sliding_frames(1)[0])
    with open_video(tmp_path) as video:
        assert len(video) == 1
