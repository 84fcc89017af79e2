"""Classes that are folders: numbers as names, and what is said of those without a sample."""

from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from unireplknet_mm.modalities.audio import RecordingFolder
from unireplknet_mm.modalities.point_cloud import PointCloudFolder
from unireplknet_mm.modalities.video import VideoFolder

FOLDERS = {
    'recording': (RecordingFolder, 'wav'),
    'video': (VideoFolder, 'mp4'),
    'cloud': (PointCloudFolder, 'ply'),
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize('sample', FOLDERS)
def test_classes_without_a_sample_are_named(sample, tmp_path, log):
    kind, suffix = FOLDERS[sample]
    touch(tmp_path, f'a/1.{suffix}', f'7/1.{suffix}', 'b/notes.md')
    dataset = kind(data_root=str(tmp_path), classes=['b', 'a', *'cdef', 7])
    assert dataset.metainfo['classes'] == ('b', 'a', 'c', 'd', 'e', 'f', '7')
    assert sorted(dataset.get_gt_labels()) == [1, 6]
    message = f'{tmp_path}: 5 of 7 classes have no {sample} there: b, c, d, e, f'
    assert [line for line in log if 'classes have no' in line] == [message]
    log.clear()
    touch(tmp_path, *(f'{name}/1.{suffix}' for name in 'bcdef'))
    kind(data_root=str(tmp_path), classes=['b', 'a', *'cdef', 7])
    assert not [line for line in log if 'classes have no' in line]


def test_recordings_that_are_left_out_may_empty_a_class(tmp_path, log):
    touch(tmp_path, *(f'{name}.wav' for name in ('0_ada', '0_bo', '1_bo')))
    pattern = r'(?P<label>\d)_(?P<speaker>\w+)\.wav'
    RecordingFolder(str(tmp_path), pattern=pattern, without=dict(speaker='bo'))
    assert any(line.endswith('1 of 2 classes have no recording there: 1') for line in log)


def test_links_that_lead_back_are_not_followed(tmp_path):
    """Those that lead elsewhere are."""
    root = tmp_path / 'data'
    for suffix in ('wav', 'mp4'):
        touch(tmp_path, f'data/a/1.{suffix}', f'data/b/1.{suffix}', f'elsewhere/2.{suffix}')
    for link, target in {'a/up': root, 'a/b': root / 'b', 'b/a': root / 'a'}.items():
        (root / link).symlink_to(target)
    (root / 'b/c').symlink_to(tmp_path / 'elsewhere')
    for kind, key in ((RecordingFolder, 'recording_path'), (VideoFolder, 'video_path')):
        dataset = kind(data_root=str(root))
        found = [Path(dataset.get_data_info(i)[key]) for i in range(len(dataset))]
        names = [str(path.relative_to(root).with_suffix('')) for path in found]
        assert sorted(names) == ['a/1', 'a/b/1', 'a/b/c/2', 'b/1', 'b/a/1', 'b/c/2']


def test_a_cover_beside_folders_of_videos_is_no_video(tmp_path):
    touch(tmp_path, 'a/show/cover.jpg', 'a/show/first/1.mp4', 'a/frames/1.jpg', 'a/frames/.x/1.mp4')
    dataset = VideoFolder(data_root=str(tmp_path))
    found = [dataset.get_data_info(i)['video_path'] for i in range(len(dataset))]
    assert found == [str(tmp_path / 'a' / name) for name in ('frames', 'show/first/1.mp4')]


def test_paths_whose_label_is_empty_do_not_fit(tmp_path):
    touch(tmp_path, 'a_1.wav', '_2.wav')
    dataset = RecordingFolder(str(tmp_path), pattern=r'(?P<label>[a-z])?_\d\.wav')
    assert len(dataset) == 1 and dataset.metainfo['classes'] == ('a',)
