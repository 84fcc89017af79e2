"""Classifiers: images to scores; and those of other modalities, whose input their embedding takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unireplknet_mm.export.deployable import (
    Arrays,
    Deployable,
    inherits,
    register,
    relative_difference,
)
from unireplknet_mm.export.images import ImagePreprocessing, random_images

# Of probabilities, relative to the best class's.
SCORE_LIMITS = dict(fp32=1e-4, fp16=2e-2, bf16=1e-1, int8=2.5e-1)


@register
class ImageClassifierFile(Deployable):
    """mmpretrain's image classifiers: `images` -> `scores`, (N, classes).

    They are softmax's, or of heads with several labels sigmoid's.

    Args:
        model: an mmpretrain `ImageClassifier`.
    """

    task = 'image classification'
    output_names = ('scores',)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.preprocessing = ImagePreprocessing(model.data_preprocessor, self.channels)
        self.is_multi_label = inherits(model.head, 'MultiLabelClsHead')
        self.dtype = torch.float32

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        return inherits(model, 'ImageClassifier') and not inherits(model, 'ModalityClassifier')

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.score(self.preprocessing(images)),)

    def score(self, x: Tensor) -> Tensor:
        logits = self.model.head(self.model.extract_feat(x.to(self.dtype))).float()
        return logits.sigmoid() if self.is_multi_label else logits.softmax(-1)

    def to_precision(self, dtype: torch.dtype) -> None:
        self.model.backbone.to(dtype)
        for part in ('neck', 'head'):
            if getattr(self.model, part, None) is not None:
                getattr(self.model, part).to(dtype)
        self.dtype = dtype

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        return random_images(batch_size, shape)

    def from_pipeline(self, inputs: Tensor) -> Tensor:
        return self.preprocessing.from_pipeline(inputs)

    def describe(self) -> dict[str, Any]:
        return dict(
            input=self.preprocessing.describe(),
            outputs=dict(scores='(N, classes), probability of each class'),
        )

    @torch.no_grad()
    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        batch = self.model.data_preprocessor(dict(inputs=self.preprocessing.to_pipeline(inputs)))
        samples = self.model.predict(batch['inputs'])
        return dict(scores=torch.stack([sample.pred_score for sample in samples]).cpu().numpy())

    def differences(self, reference: Arrays, exported: Arrays) -> dict[str, float]:
        return dict(scores=relative_difference(reference['scores'], exported['scores']))

    def limits(self, precision: str) -> dict[str, float]:
        return dict(scores=SCORE_LIMITS[precision])

    def fill(self, outputs: Arrays, samples: list[Any]) -> list[Any]:
        for sample, score in zip(samples, torch.from_numpy(outputs['scores']), strict=True):
            sample.set_pred_score(score)
            if not self.is_multi_label:
                sample.set_pred_label(score.argmax(0, keepdim=True))
        return samples
