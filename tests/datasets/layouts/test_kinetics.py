"""Demo data of videos: what is written is what the data sets read, in both layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL_DEMO_DATA, load_config, read_tree
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.datasets.demo import MANIFEST
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.motions import MOTIONS, draw_moving_digit
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.video import VideoFolder, VideoList, open_video

LAYOUTS = ('kinetics', 'video_folders')
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def test_files_are_the_drawn_videos(generated):
    """But for what H.264 loses."""
    root = generated['kinetics']
    for split in SPLITS:
        dataset = VideoList(data_root=str(root), ann_file=f'{split}.txt', data_prefix=split)
        count = SMALL_DEMO_DATA['images' if split == 'train' else 'val_images']
        assert len(dataset) == count
        for index in (0, count - 1):
            info = dataset.get_data_info(index)
            assert info['gt_label'] == index % 8
            rng = np.random.default_rng([0, SPLITS.index(split), index])
            size = SMALL_DEMO_DATA['size']
            drawn = draw_moving_digit(rng, split, MOTIONS[index % 8], size, 32, (0.25, 0.4))
            with open_video(info['video_path']) as video:
                assert len(video) == 32
                for frame, expected in zip(video.read(range(32)), drawn.frames, strict=True):
                    assert np.abs(frame.astype(int) - expected).mean() < 4


def test_files_are_h264_in_several_groups(generated):
    from unireplknet_mm.datasets.video_files import import_av

    path = next((generated['kinetics'] / 'train' / 'left').glob('*.mp4'))
    with import_av().open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == 'h264'
        assert sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size) >= 2


def test_folders_hold_the_same_videos(generated):
    root = generated['video_folders']
    dataset = VideoFolder(data_root=str(root), data_prefix='train')
    assert dataset.metainfo['classes'] == tuple(sorted(MOTIONS))
    assert len(dataset) == SMALL_DEMO_DATA['images']
    listed = read_tree(generated['kinetics'])
    assert {n: b for n, b in listed.items() if n != MANIFEST} == {
        n: b for n, b in read_tree(root).items() if n != MANIFEST
    }


def test_same_seed_same_files(generated, tmp_path):
    again = make_demo_data('kinetics', tmp_path / 'again', **SMALL_DEMO_DATA)
    assert read_tree(again) == read_tree(generated['kinetics'])
    fewer = read_tree(
        make_demo_data('kinetics', tmp_path / 'fewer', **SMALL_DEMO_DATA | dict(images=5))
    )
    videos = [name for name in fewer if name.endswith('.mp4')]
    assert len(videos) == 11
    assert all(fewer[name] == read_tree(again)[name] for name in videos)


def test_validation_shares_no_source_with_training(generated):
    sources = json.loads((generated['kinetics'] / MANIFEST).read_text())['sources']
    for kind in ('photographs', 'scans'):
        train, val = set(sources['train'][kind]), set(sources['val'][kind])
        assert train and val and not train & val


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        (dict(size=(63, 64)), 'even numbers from 32, not'),
        (dict(size=(16, 16)), 'even numbers from 32, not'),
        (dict(frames=0), 'frames must be at least 1, not 0'),
        (dict(seed=-1), 'seed must not be negative'),
        (dict(num_classes=9), 'num_classes=9 does not fit the layout kinetics'),
        (dict(digit_size=(0.4, 0.2)), 'digit_size must be two numbers'),
        (dict(mask_format='rle'), 'have no mask_format'),
    ],
)
def test_parameters_out_of_range_are_named(tmp_path, parameters, message):
    with pytest.raises(ArgumentError, match=message):
        make_demo_data('kinetics', tmp_path / 'out', 4, **parameters)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_head_with_fewer_classes_gets_fewer_motions(layout):
    from unireplknet_mm.datasets.layouts import LAYOUTS

    model = Config(dict(head=dict(num_classes=3)))._cfg_dict
    assert LAYOUTS[layout].parameters_for(model, []) == dict(num_classes=3)
    model.head.num_classes = 400
    assert LAYOUTS[layout].parameters_for(model, []) == dict(num_classes=8)


@pytest.mark.parametrize('dataset_type', ['VideoList', 'VideoFolder'])
def test_a_config_runs_on_them(tmp_path, dataset_type):
    """What --demo-data does to the recipe for Kinetics, as it is and with folders in the place of lists."""
    cfg = load_config(ROOT / 'configs' / 'video' / 'unireplknet_s_k400.py')
    loaders = [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test')]
    for loader in loaders:
        loader.dataset.type = dataset_type
    use_demo_data(cfg, tmp_path, train_images=2, val_images=1)
    for loader, split in zip(loaders, ('train', 'val', 'val'), strict=True):
        assert Path(loader.dataset.data_root).parent == tmp_path
        dataset = DATASETS.build(loader.dataset)
        assert len(dataset) == (2 if split == 'train' else 1)
        assert f'/{split}/left/000001.mp4' in dataset.get_data_info(0)['video_path']
    clip, views = (DATASETS.build(loader.dataset)[0]['inputs'] for loader in loaders[1:])
    assert clip.shape == (16, 3, 224, 224) and views.shape == (15, 16, 3, 224, 224)
    assert cfg.train_cfg.max_epochs == 1
