"""From a path to what the network gets: the same for all frames of a clip, and in the right order."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS, DefaultScope
from sliding_videos import decode_whole, sliding_frames, write_sliding

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.video import (
    ClipPreprocessor,
    EachFrame,
    LoadVideo,
    PackClips,
    SpatialCrops,
    UnreadableVideoError,
)

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
AUGMENTS = {
    'RandAugment m7-n4': dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=4,
        total_level=10,
        magnitude_level=7,
        magnitude_std=0.5,
    ),
    'RandomResizedCrop': dict(type='RandomResizedCrop', scale=24),
    'RandomFlip': dict(type='RandomFlip', prob=0.5),
    # Without the hue, which mmcv 2.1 and 2.2 turn with a number that NumPy 2 refuses.
    'ColorJitter': dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    'RandomErasing': dict(
        type='RandomErasing', erase_prob=0.5, mode='rand', fill_color=(1, 2, 3), fill_std=(9, 9, 9)
    ),
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return write_sliding(tmp_path_factory.mktemp('video') / 'video.mp4', 40)


def loaded(frames, clips: int = 1) -> dict:
    return dict(frames=list(frames), num_frames=len(frames) // clips)


@pytest.mark.parametrize('name', AUGMENTS)
def test_all_frames_are_augmented_alike(name):
    """Sixteen times the same frame come out as sixteen times the same; another draw differs."""
    frame = sliding_frames(1)[0].copy()
    transform = EachFrame([AUGMENTS[name]])
    outcomes = []
    for seed in range(8):
        np.random.seed(seed)
        torch.manual_seed(seed)
        frames = transform(loaded([frame.copy() for _ in range(4)]))['frames']
        assert all(np.array_equal(frames[0], other) for other in frames[1:]), seed
        outcomes.append(frames[0].tobytes())
    assert len(set(outcomes)) > 1


def test_the_draws_go_on_after_a_clip():
    """The next clip of the same worker is augmented in another way."""
    frame = sliding_frames(1)[0]
    transform = EachFrame([AUGMENTS['RandomResizedCrop']])
    np.random.seed(0)
    first, second = (transform(loaded([frame] * 3))['frames'][0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_different_frames_stay_different():
    frames = sliding_frames(4)
    flipped = EachFrame([dict(type='RandomFlip', prob=1.0)])(loaded(frames))['frames']
    assert all(np.array_equal(a[:, ::-1], b) for a, b in zip(frames, flipped, strict=True))


def test_transforms_that_look_at_the_content_are_refused():
    @TRANSFORMS.register_module(name='CropDark', force=True)
    class CropDark:
        def __call__(self, results):
            return {**results, 'img': results['img'][: 2 + int(results['img'][0, 0, 0])]}

    frames = [np.full((8, 8, 3), value, np.uint8) for value in (1, 3)]
    with pytest.raises(ArgumentError, match='different sizes after EachFrame'):
        EachFrame([dict(type='CropDark')])(loaded(frames))
    TRANSFORMS.module_dict.pop('CropDark')


def test_loading(video):
    whole = decode_whole(video)
    results = LoadVideo(num_frames=8, stride=4, num_clips=3)(dict(video_path=str(video)))
    indices = np.array(results['frame_indices'])
    assert indices.shape == (3, 8) and len(results['frames']) == 24
    for index, frame in zip(indices.flatten(), results['frames'], strict=True):
        assert np.array_equal(frame, whole[index])
    assert results['num_frames'] == 8 and results['img_shape'] == (48, 64)
    with pytest.raises(UnreadableVideoError):
        LoadVideo()(dict(video_path=f'{video}.none'))


@pytest.mark.parametrize('shape', [(30, 50), (50, 30)])
def test_crops_go_from_one_end_to_the_other(shape):
    height, width = shape
    image = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3)
    clips = [image + 10**5 * clip + 10**4 * t for clip in range(2) for t in range(4)]
    results = SpatialCrops(size=30, num_crops=3)(loaded(clips, clips=2))
    assert len(results['frames']) == 2 * 3 * 4 and results['num_frames'] == 4
    corners = [(0, x) if width > height else (x, 0) for x in (0, 10, 20)]
    expected = [
        clips[4 * clip + t][y : y + 30, x : x + 30]
        for clip in range(2)
        for y, x in corners
        for t in range(4)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(results['frames'], expected, strict=True))
    (middle,) = SpatialCrops(30, 1)(loaded([image]))['frames']
    y, x = corners[1]
    assert np.array_equal(middle, image[y : y + 30, x : x + 30])
    with pytest.raises(ArgumentError, match='smaller than a crop of 40x40'):
        SpatialCrops(40)(loaded([image]))


def test_packing():
    frames = [np.full((6, 8, 3), t, np.uint8) for t in range(12)]
    clip = PackClips()(dict(loaded(frames), gt_label=3, video_path='a.mp4'))
    assert clip['inputs'].shape == (12, 3, 6, 8) and clip['inputs'].dtype == torch.uint8
    assert clip['inputs'][:, 0, 0, 0].tolist() == list(range(12))
    assert clip['data_samples'].gt_label.tolist() == [3]
    assert clip['data_samples'].video_path == 'a.mp4'
    views = PackClips()(loaded(frames, clips=3))['inputs']
    assert views.shape == (3, 4, 3, 6, 8) and views[2, 1, 0, 0, 0] == 9


@pytest.mark.parametrize('views', [(), (3,)])
def test_preprocessing_normalises_as_of_images(views):
    samples = [torch.randint(256, (*views, 4, 3, 6, 8), dtype=torch.uint8) for _ in range(2)]
    inputs = ClipPreprocessor(MEAN, STD)(dict(inputs=samples))['inputs']
    rgb = torch.stack(samples).flip(-3).double()
    expected = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert inputs.shape == (2, *views, 4, 3, 6, 8)
    torch.testing.assert_close(inputs.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', ['Mixup', 'CutMix'])
def test_mixing_is_alike_in_all_frames(kind):
    """The clip of ones gets the same box, or the same weight, in every frame, and its label accordingly."""
    preprocessor = ClipPreprocessor(
        mean=[0.0] * 3,
        std=[1.0] * 3,
        num_classes=2,
        batch_augments=dict(augments=[dict(type=kind, alpha=1.0)]),
    )
    packed = [
        PackClips()(dict(loaded([np.full((16, 20, 3), value, np.uint8)] * 4), gt_label=value))
        for value in (0, 1)
    ]
    shares = set()
    for seed in range(12):
        np.random.seed(seed)
        torch.manual_seed(seed)
        data = dict(
            inputs=[sample['inputs'] for sample in packed],
            data_samples=[sample['data_samples'].clone() for sample in packed],
        )
        batch = preprocessor(data, training=True)
        for clip, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            assert torch.equal(clip, clip[:1].expand_as(clip))
            assert clip.mean().item() == pytest.approx(sample.gt_score[1].item(), abs=1e-5)
            shares.add(round(clip.mean().item(), 3))
    assert len(shares) > 4
    unmixed = preprocessor(data, training=False)
    assert torch.equal(unmixed['inputs'][1], torch.ones(4, 3, 16, 20))
