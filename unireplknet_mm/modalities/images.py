"""Images, for `tools/predict.py`: read by the config's test pipeline, drawn by the toolboxes' visualizers."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.registry import VISUALIZERS
from mmengine.visualization import Visualizer
from PIL import Image, UnidentifiedImageError

from unireplknet_mm.modalities.inputs import INPUT_KINDS, InputKind
from unireplknet_mm.modalities.predictions import (
    ClassPrediction,
    InstancePrediction,
    MapPrediction,
    Prediction,
)

# By what is predicted: who draws it where the config names nobody who does.
DEFAULT_VISUALIZERS = {
    ClassPrediction: 'mmpretrain.UniversalVisualizer',
    InstancePrediction: 'mmdet.DetLocalVisualizer',
    MapPrediction: 'mmseg.SegLocalVisualizer',
}
SMALLEST_SIDE = 256  # in pixels, of a picture that a class is written on
GOLDEN_RATIO = 0.618034  # steps of the hue that keep colours apart, however many


@INPUT_KINDS.register_module()
class Images(InputKind):
    """Image files of any format that the loading transform reads."""

    name = 'images'
    loaders = ('LoadImageFromFile', 'LoadSingleRSImageFromFile')
    suffixes = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
    picture_suffix = '.jpg'

    def __init__(self):
        self._artist: Visualizer | None = None

    def find_damage(self, path: Path) -> str | None:
        """A truncated file, of which OpenCV makes a whole image, grey where data are missing."""
        try:
            with Image.open(path) as image:
                image.load()
        except (UnidentifiedImageError, Image.DecompressionBombError):
            return None  # of a format that Pillow does not know, or very large: the transform may read it
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise
            return str(error)
        return None

    def sample(self, path: Path, index: int) -> dict[str, Any]:
        """The keys that the data sets of mmpretrain, mmdet and mmseg give their pipelines."""
        return dict(img_path=str(path), sample_idx=index, img_id=index, seg_fields=[])

    def draw(self, prediction: Prediction, transforms: Sequence[Any], config: dict) -> np.ndarray:
        image = self._load(prediction.path, transforms)
        if self._artist is None:
            self._artist = build_visualizer(prediction, config.get('visualizer'))
        artist = self._artist
        artist.dataset_meta = complete_labels(prediction)
        if isinstance(prediction, ClassPrediction):
            resize = SMALLEST_SIDE if min(image.shape[:2]) < SMALLEST_SIDE else None
            return artist.visualize_cls(image, prediction.sample, draw_gt=False, resize=resize)
        if isinstance(prediction, InstancePrediction):  # those that count, whatever the threshold
            sample = prediction.sample.new(pred_instances=prediction.instances)
            artist.add_datasample('', image, sample, draw_gt=False, pred_score_thr=-1)
        else:
            artist.add_datasample('', image, prediction.sample, draw_gt=False)
        return artist.get_image()

    def _load(self, path: Path, transforms: Sequence[Any]) -> np.ndarray:
        """The image in its own size as RGB, as the pipeline's loading transform reads it."""
        load = next(step for step in transforms if type(step).__name__ in self.loaders)
        image = load(self.sample(path, 0))['img']
        image = image[..., None] if image.ndim == 2 else image
        if image.shape[2] < 3:
            image = image[..., :1].repeat(3, axis=2)
        if image.dtype != np.uint8 and image.max() > 255:  # of 16 bits, for instance
            image = image / image.max() * 255
        return mmcv.bgr2rgb(np.ascontiguousarray(image[..., :3].clip(0, 255).astype(np.uint8)))


def build_visualizer(prediction: Prediction, config: dict | None) -> Visualizer:
    """The config's visualizer, or, where it draws no such prediction, the toolbox's."""
    kind = next(kind for kind in DEFAULT_VISUALIZERS if isinstance(prediction, kind))
    method = 'visualize_cls' if kind is ClassPrediction else 'add_datasample'
    if config:
        own = VISUALIZERS.build({'name': 'own', **config, 'vis_backends': None})
        if getattr(type(own), method, None) is not getattr(Visualizer, method, None):
            return own
    return VISUALIZERS.build(dict(type=DEFAULT_VISUALIZERS[kind], name='default'))


def complete_labels(prediction: Prediction) -> dict[str, Any]:
    """What visualizers want to know of the classes: a name and a colour for each that may occur."""
    labels = prediction.labels
    if isinstance(prediction, ClassPrediction):
        highest = len(prediction.scores) - 1
    elif isinstance(prediction, InstancePrediction):
        highest = max(prediction.sample.pred_instances.labels.tolist(), default=0)
    else:
        highest = int(prediction.sample.pred_sem_seg.data.max())
    count = max(highest + 1, len(labels.names or ()))
    palette = [tuple(color) for color in labels.palette or ()]
    if len(palette) < count:
        hues = [(index * GOLDEN_RATIO) % 1 for index in range(count)]
        palette = [
            tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, 0.9)) for hue in hues
        ]
    return dict(classes=[labels.name(label) for label in range(count)], palette=palette)
