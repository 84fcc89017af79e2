"""Segmenters: images to the class of every pixel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.export.deployable import (
    Arrays,
    Deployable,
    inherits,
    register,
    relative_difference,
)
from unireplknet_mm.export.errors import ExportError
from unireplknet_mm.export.images import ImagePreprocessing, random_images

# Logits: relative to the largest. Labels: the share of the pixels whose class is another one, which happens
# where two classes score alike.
LOGIT_LIMITS = dict(fp32=1e-4, fp16=2e-2, bf16=1e-1, int8=3e-1)
LABEL_LIMITS = dict(fp32=1e-3, fp16=1e-2, bf16=5e-2, int8=1e-1)


@register
class SegmenterFile(Deployable):
    """mmseg's segmenters: `images` -> `labels`, (N, H, W) uint8 or int64, the arg max over the classes.

    Args:
        model: an mmseg `EncoderDecoder` that tests images whole.
        logits: whether the file also gives `logits`, (N, classes, H, W) before the arg max.

    Raises:
        ExportError: the model tests in sliding windows.
    """

    task = 'semantic segmentation'
    usual_size = (512, 512)

    def __init__(self, model: nn.Module, logits: bool = False):
        super().__init__(model)
        if model.test_cfg.get('mode', 'whole') != 'whole':
            raise ExportError(
                'the model is tested in sliding windows, and a file holds one: export with --cfg-options '
                'model.test_cfg.mode=whole, and slide the window outside of it.'
            )
        if inherits(model.decode_head, 'Mask2FormerHead'):  # whose shapes are numbers in the graph
            self.dynamic = ('batch',)
        self.preprocessing = ImagePreprocessing(model.data_preprocessor, self.channels)
        self.gives_logits = logits
        self.output_names = ('labels', 'logits') if logits else ('labels',)
        self.dtype = torch.float32

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        return inherits(model, 'EncoderDecoder')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        x = self.preprocessing(images)
        meta = dict(img_shape=x.shape[-2:], pad_shape=x.shape[-2:])
        logits = self.model.encode_decode(x.to(self.dtype), [meta]).float()
        logits = logits[..., :height, :width]  # padding goes again
        labels = self._labels(logits)
        return (labels, logits) if self.gives_logits else (labels,)

    def _labels(self, logits: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return (logits.sigmoid() > self.model.decode_head.threshold).squeeze(1).to(torch.uint8)
        labels = logits.argmax(1)
        return labels.to(torch.uint8) if logits.shape[1] <= 256 else labels

    def to_precision(self, dtype: torch.dtype) -> None:
        for part in ('backbone', 'neck', 'decode_head'):
            if getattr(self.model, part, None) is not None:
                getattr(self.model, part).to(dtype)
        self.dtype = dtype

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        return random_images(batch_size, shape)

    def from_pipeline(self, inputs: Tensor) -> Tensor:
        return self.preprocessing.from_pipeline(inputs)

    def kept_size(self, width: int, height: int) -> tuple[int, int]:
        """A square of the shorter edge, which is what crops of the training are."""
        return min(width, height), min(width, height)

    def describe(self) -> dict[str, Any]:
        outputs = dict(labels='(N, height, width), the number of the class of each pixel')
        if self.gives_logits:
            outputs['logits'] = '(N, classes, height, width)'
        return dict(input=self.preprocessing.describe(), outputs=outputs)

    @torch.no_grad()
    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        from mmseg.structures import SegDataSample

        size = tuple(inputs.shape[-2:])
        metas = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
        data = dict(
            inputs=self.preprocessing.to_pipeline(inputs),
            data_samples=[SegDataSample(metainfo=metas) for _ in inputs],
        )
        samples = self.model.test_step(data)
        labels = torch.stack([sample.pred_sem_seg.data[0] for sample in samples])
        results = dict(labels=labels.cpu().numpy())
        if self.gives_logits:
            logits = torch.stack([sample.seg_logits.data for sample in samples])
            results['logits'] = logits.cpu().numpy()
        return results

    def differences(self, reference: Arrays, exported: Arrays) -> dict[str, float]:
        if reference['labels'].shape != exported['labels'].shape:
            return dict(labels=float('inf'))
        differences = dict(labels=float((reference['labels'] != exported['labels']).mean()))
        if self.gives_logits:
            logits = exported['logits']
            if logits.shape[1] == 1:  # of which mmseg's samples have the probability
                logits = 1 / (1 + np.exp(-logits))
            differences['logits'] = relative_difference(reference['logits'], logits)
        return differences

    def limits(self, precision: str) -> dict[str, float]:
        limits = dict(labels=LABEL_LIMITS[precision])
        if self.gives_logits:
            limits['logits'] = LOGIT_LIMITS[precision]
        return limits

    def fill(self, outputs: Arrays, samples: list[Any]) -> list[Any]:
        """Labels in the size of the file's input, enlarged to the image's own by the nearest neighbour.

        The model itself enlarges logits, which is finer at the borders of objects.
        """
        from mmengine.structures import PixelData

        labels = torch.from_numpy(outputs['labels']).long()
        for sample, one in zip(samples, labels, strict=True):
            size = tuple(sample.ori_shape)
            enlarged = F.interpolate(one[None, None].double(), size, mode='nearest')
            sample.pred_sem_seg = PixelData(data=enlarged[0].long())
        return samples
