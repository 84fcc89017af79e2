"""Videos (§3.3, Eq. 5): frames laid out as one image. Importing this registers what `configs/video` names."""

from unireplknet_mm.modalities.video.classifier import VideoClassifier
from unireplknet_mm.modalities.video.datasets import (
    ReportUnreadableHook,
    TooManyUnreadableError,
    VideoFolder,
    VideoList,
)
from unireplknet_mm.modalities.video.frame_grid import FrameGrid, grid_shape
from unireplknet_mm.modalities.video.prediction import Videos, draw_clip
from unireplknet_mm.modalities.video.preprocessor import ClipPreprocessor
from unireplknet_mm.modalities.video.reading import UnreadableVideoError, VideoReader, open_video
from unireplknet_mm.modalities.video.samplers import RepeatedSampler
from unireplknet_mm.modalities.video.transforms import (
    EachFrame,
    LoadVideo,
    PackClips,
    SpatialCrops,
)

__all__ = [
    'ClipPreprocessor',
    'EachFrame',
    'FrameGrid',
    'LoadVideo',
    'PackClips',
    'RepeatedSampler',
    'ReportUnreadableHook',
    'SpatialCrops',
    'TooManyUnreadableError',
    'UnreadableVideoError',
    'VideoClassifier',
    'VideoFolder',
    'VideoList',
    'VideoReader',
    'Videos',
    'draw_clip',
    'grid_shape',
    'open_video',
]
