"""Lists and folders of videos, and what becomes of those that cannot be read, with worker processes too."""

import multiprocessing
import pickle
import socket
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS, DefaultScope
from sliding_videos import sliding_frames, write_sliding
from torch.utils.data import DataLoader

from unireplknet_mm.engine import SeededDataset, SeededSampler, SkipSeenBatchesHook  # noqa: F401
from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.video import (
    RepeatedSampler,
    ReportUnreadableHook,
    TooManyUnreadableError,
    UnreadableVideoError,
    VideoFolder,
    VideoList,
    open_video,
)

PIPELINE = [dict(type='LoadVideo', num_frames=4, stride=2, random=True), dict(type='PackClips')]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Eight videos, of which `bad/` has two that are none; a list of all and one of the good ones."""
    root = tmp_path_factory.mktemp('videos')
    lines = []
    for i in range(6):
        folder = ('a jump', 'walk')[i % 2]
        write_sliding(root / 'train' / folder / f'{i}.mp4', 12, (32, 32))
        lines.append(f'{folder}/{i}.mp4 {i % 2}')
    (root / 'good.txt').write_text('\n'.join(lines) + '\n\n')
    bad = root / 'train' / 'walk'
    (bad / 'text.mp4').write_text('no video')
    (bad / 'empty.mp4').write_bytes(b'')
    (root / 'all.txt').write_text('\n'.join([*lines, 'walk/text.mp4 1', 'walk/empty.mp4 1']))
    return root


def video_list(root, ann_file='all.txt', **options) -> VideoList:
    options = dict(pipeline=PIPELINE, max_unreadable=0.5) | options
    return VideoList(data_root=str(root), ann_file=ann_file, data_prefix='train', **options)


def test_list(root):
    dataset = video_list(root, 'good.txt')
    assert len(dataset) == 6
    info = dataset.get_data_info(0)
    assert info['video_path'] == str(root / 'train' / 'a jump' / '0.mp4') and info['gt_label'] == 0
    sample = dataset[1]
    assert sample['inputs'].shape == (4, 3, 32, 32)
    assert sample['data_samples'].gt_label.tolist() == [1]
    assert sample['data_samples'].video_path.endswith('walk/1.mp4')
    assert dataset.get_gt_labels().tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a.mp4 0\nb.mp4\n', r"line 2: 'b.mp4' is not a path, a blank and a label"),
        ('a.mp4 walking\n', r"line 1: 'a.mp4 walking' is not"),
        ('a.mp4 -2\n', 'line 1'),
        ('\n\n', 'there is no video in this list'),
        ('a.mp4 0\nb.mp4 2\n', 'line 2: the label 2 is beyond the 2 classes'),
    ],
)
def test_mistakes_in_a_list_are_named(tmp_path, text, message):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(ArgumentError, match=message):
        video_list(tmp_path, 'list.txt', metainfo=dict(classes=('a', 'b')))


def test_unlabelled_and_missing_lists(root, tmp_path):
    (tmp_path / 'list.txt').write_text(f'{root}/train/walk/1.mp4 -1\n')
    assert 'gt_label' not in video_list(tmp_path, 'list.txt')[0]['data_samples']
    with pytest.raises(MissingFileError, match=r'none.txt, the list of videos, does not exist'):
        video_list(tmp_path, 'none.txt')
    with pytest.raises(ArgumentError, match='a share from 0 to 1, not 10'):
        video_list(root, max_unreadable=10)


def test_folder_a_class(root, tmp_path):
    dataset = VideoFolder(data_root=str(root), data_prefix='train', pipeline=PIPELINE)
    assert dataset.metainfo['classes'] == ('a jump', 'walk')
    assert dataset.get_gt_labels().tolist() == [0] * 3 + [1] * 5
    for i, frame in enumerate(sliding_frames(5)):
        (tmp_path / 'train' / 'walk' / 'take 1').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'train' / 'walk' / 'take 1' / f'{i}.jpg'), frame)
    arguments = dict(data_root=str(tmp_path), data_prefix='train', pipeline=PIPELINE)
    pictures = VideoFolder(**arguments, classes=('run', 'walk'))
    assert pictures.get_gt_labels().tolist() == [1]
    assert pictures[0]['inputs'].shape == (4, 3, 48, 64)
    with pytest.raises(ArgumentError, match='folders that are no classes: walk'):
        VideoFolder(**arguments, classes=('run',))
    with pytest.raises(MissingFileError, match='none, the folder of videos'):
        VideoFolder(data_root=str(tmp_path), data_prefix='none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ArgumentError, match='there is no CLASS/video'):
        VideoFolder(data_root=str(tmp_path), data_prefix='empty')


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_videos_are_replaced_reported_and_counted(root, log, workers):
    dataset = video_list(root)
    np.random.seed(0)
    loader = DataLoader(dataset, 4, num_workers=workers, collate_fn=list)
    for _ in range(2):
        samples = [sample for batch in loader for sample in batch]
        assert len(samples) == 8
        assert all('text' not in sample['data_samples'].video_path for sample in samples)
    names = [path.rsplit('/', 1)[1] for path in dataset.unreadable()]
    assert names == ['text.mp4', 'empty.mp4']
    assert (dataset.states[:6] == 1).all()
    if workers == 0:
        reports = [line for line in log if line.startswith('Another video takes the place')]
        assert len(reports) == 2 and 'text.mp4 cannot be opened' in reports[0]


def test_summary_of_an_epoch(root):
    lines = []
    dataset = SeededDataset(video_list(root))
    runner = SimpleNamespace(
        logger=SimpleNamespace(warning=lines.append),
        train_dataloader=SimpleNamespace(dataset=dataset),
    )
    dataset[0]
    ReportUnreadableHook().after_train_epoch(runner)
    assert lines == []
    dataset[6], dataset[7]
    ReportUnreadableHook().after_train_epoch(runner)
    assert len(lines) == 1 and lines[0].startswith('2 of the 8 videos could not be read: /')
    runner.train_dataloader.dataset = [1, 2]  # any other data set
    ReportUnreadableHook().after_train_epoch(runner)
    assert len(lines) == 1


@pytest.mark.parametrize('workers', [0, 1])
def test_too_many_are_an_error(root, workers):
    dataset = video_list(root, max_unreadable=0.2)
    loader = DataLoader(dataset, 8, num_workers=workers, collate_fn=list)
    with pytest.raises(TooManyUnreadableError) as error:
        list(loader)
    message = str(error.value)
    assert message.startswith('2 of the 8 videos seen so far cannot be read, more than max_unread')
    assert 'empty.mp4 cannot be opened' in message and 'Traceback' not in message


def test_a_rank_compares_with_what_it_has_seen(tmp_path):
    """Half of the set, as of two ranks, with 15 % of it unreadable; the first one alone is no error."""
    (tmp_path / 'list.txt').write_text('\n'.join(f'{i}.mp4 0' for i in range(400)))
    dataset = video_list(tmp_path, 'list.txt', max_unreadable=0.1, max_refetch=50)

    def pipeline(info):
        if int(Path(info['video_path']).stem) % 40 in (0, 2, 4):
            raise UnreadableVideoError('broken')
        return info

    dataset.pipeline = pipeline
    assert dataset.prepare_data(0) is None
    with pytest.raises(TooManyUnreadableError, match=r'11 of the \d+ videos seen so far'):
        for i in range(0, 400, 2):
            dataset.prepare_data(i)
    dataset.max_unreadable = 0.2
    for i in range(0, 400, 2):
        dataset.prepare_data(i)
    assert len(dataset.unreadable()) == 30


def report_on_rank(rank: int, root, port: int) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    lines = []
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = video_list(root)
        dataset[6 + rank]
    runner = SimpleNamespace(
        logger=SimpleNamespace(warning=lines.append),
        train_dataloader=SimpleNamespace(dataset=dataset),
    )
    ReportUnreadableHook().after_train_epoch(runner)
    torch.distributed.destroy_process_group()
    (root / f'rank{rank}.txt').write_text('\n'.join(lines))


def test_the_summary_is_of_all_ranks(root):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')  # spawned ones would import everything again
    ranks = [context.Process(target=report_on_rank, args=(rank, root, port)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    for rank in (0, 1):
        summary = (root / f'rank{rank}.txt').read_text()
        assert summary.startswith('2 of the 8 videos could not be read: ')
        assert 'text.mp4' in summary and 'empty.mp4' in summary


def test_many_in_a_row_are_an_error(tmp_path):
    lines = [f'{i}.mp4 0' for i in range(50)]
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    dataset = video_list(tmp_path, 'list.txt', max_unreadable=1.0, max_refetch=3)
    with pytest.raises(TooManyUnreadableError, match='4 videos in a row cannot be read'):
        dataset[0]


def test_in_testing_a_grey_clip_keeps_the_label(root, log):
    dataset = video_list(root, test_mode=True)
    sample = dataset[6]
    assert sample['data_samples'].gt_label.tolist() == [1]
    assert sample['data_samples'].video_path.endswith('text.mp4')
    assert sample['data_samples'].unreadable is True
    # Of the size of the others, so that they can be stacked without being resized.
    assert (sample['inputs'] == 128).all() and sample['inputs'].shape == dataset[0]['inputs'].shape
    assert dataset.unreadable() == [sample['data_samples'].video_path]
    assert any(line.startswith('A grey clip takes the place') for line in log)


def test_without_a_readable_video_grey_clips_have_one_size(tmp_path):
    (tmp_path / 'list.txt').write_text('a.mp4 0\nb.mp4 1')
    dataset = video_list(tmp_path, 'list.txt', test_mode=True, max_unreadable=1.0)
    assert [dataset[i]['inputs'].shape for i in (0, 1)] == [(4, 3, 256, 256)] * 2


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write_sliding(tmp_path / 'walk' / '1.mp4', 3)
    (tmp_path / 'walk' / '._1.mp4').write_bytes(b'of macOS')
    (tmp_path / '.ipynb_checkpoints').mkdir()
    write_sliding(tmp_path / 'walk' / '.cache' / '1.mp4', 3)
    for name in ('pictures', 'hidden pictures'):
        (tmp_path / 'walk' / name).mkdir()
        (tmp_path / 'walk' / name / '._0.png').write_bytes(b'of macOS')
    cv2.imwrite(str(tmp_path / 'walk' / 'pictures' / '0.png'), sliding_frames(1)[0])
    dataset = VideoFolder(data_prefix=str(tmp_path), pipeline=PIPELINE)
    assert dataset.metainfo['classes'] == ('walk',)
    names = [Path(dataset.get_data_info(i)['video_path']).name for i in range(len(dataset))]
    assert names == ['1.mp4', 'pictures']
    with open_video(tmp_path / 'walk' / 'pictures') as video:
        assert len(video) == 1


def test_videos_in_nested_folders_count_and_empty_classes_are_named(root, tmp_path, log):
    for path in ('run/a/b/v.mp4', 'run/w.mp4', 'walk/.cache/v.mp4'):
        write_sliding(tmp_path / path, 3)
    (tmp_path / 'run' / 'a' / 'pictures').mkdir()
    cv2.imwrite(str(tmp_path / 'run' / 'a' / 'pictures' / '0.png'), sliding_frames(1)[0])
    dataset = VideoFolder(data_prefix=str(tmp_path), pipeline=PIPELINE)
    names = [dataset.get_data_info(i)['video_path'] for i in range(len(dataset))]
    assert names == [str(tmp_path / 'run' / name) for name in ('a/b/v.mp4', 'a/pictures', 'w.mp4')]
    assert dataset.get_gt_labels().tolist() == [0] * 3
    assert [line for line in log if 'have no video there: walk' in line]
    log.clear()
    VideoFolder(data_root=str(root), data_prefix='train', pipeline=PIPELINE)
    assert not [line for line in log if 'have no video' in line]


def test_encodings_of_lists(root, tmp_path):
    (tmp_path / 'list.txt').write_text('\nçé.mp4 0\n', encoding='utf-8-sig')
    dataset = video_list(tmp_path, 'list.txt')
    assert dataset.get_data_info(0)['video_path'] == str(tmp_path / 'train' / 'çé.mp4')
    assert dataset.place_of(0) == f'{tmp_path}/list.txt, line 2'
    (tmp_path / 'list.txt').write_text('çé.mp4 0\n', encoding='latin-1')
    with pytest.raises(
        ArgumentError, match=r'list.txt, the list of videos, is not in UTF-8 \(byte 0'
    ):
        video_list(tmp_path, 'list.txt')


def test_a_one_frame_video_is_a_still_clip(root, tmp_path):
    write_sliding(tmp_path / 'train' / 'x.mp4', 1)
    (tmp_path / 'list.txt').write_text('x.mp4 0')
    inputs = video_list(tmp_path, 'list.txt')[0]['inputs']
    assert inputs.shape == (4, 3, 48, 64) and torch.equal(inputs, inputs[:1].expand_as(inputs))


def test_a_data_set_can_be_sent_to_another_process(root):
    dataset = pickle.loads(pickle.dumps(video_list(root)))
    assert len(dataset) == 8 and dataset.unreadable() == []


def test_repeats_stand_together_and_are_augmented_anew(root):
    dataset = SeededDataset(video_list(root, 'good.txt'))
    cfg = dict(type='RepeatedSampler', num_repeats=2)
    sampler = SeededSampler(dataset, cfg, seed=0)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 12
    assert indices[::2] == indices[1::2] and sorted(indices[::2]) == list(range(6))
    clips = torch.stack([dataset[index]['inputs'] for index in indices])
    assert not torch.equal(clips[::2], clips[1::2])
    assert torch.equal(clips, torch.stack([dataset[index]['inputs'] for index in indices]))


def test_repeats_after_a_resumption(root):
    dataset = video_list(root, 'good.txt')
    sampler = SeededSampler(dataset, dict(type='RepeatedSampler', num_repeats=2), seed=3)
    sampler.set_epoch(1)
    whole = [(int(index), index.key) for index in sampler]
    sampler.start_at(5)
    assert [(int(index), index.key) for index in sampler] == whole[5:]
    sampler.set_epoch(2)
    assert [int(index) for index in sampler] != [index for index, _ in whole]


def test_repeats_on_two_processes(root, monkeypatch):
    dataset = video_list(root, 'good.txt')
    halves = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        halves.append(list(RepeatedSampler(dataset, 2, seed=0)))
    assert [len(half) for half in halves] == [6, 6]
    assert sorted(halves[0] + halves[1]) == sorted(2 * list(range(6)))
    assert not set(halves[0]) & set(halves[1])
    with pytest.raises(ArgumentError, match='num_repeats must be at least 1'):
        RepeatedSampler(dataset, 0)


def test_registered_by_name(root):
    cfg = dict(type='VideoList', ann_file=str(root / 'good.txt'), data_prefix=str(root / 'train'))
    assert len(DATASETS.build(cfg)) == 6
    assert DATA_SAMPLERS.get('RepeatedSampler') is RepeatedSampler
