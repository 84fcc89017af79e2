"""The classifier of videos: of several views of a video, the mean of their scores counts."""

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from unireplknet_mm.modalities.classifier import ModalityClassifier

CLIP_DIMS = 5  # (B, N_F, C, H, W)


@MODELS.register_module()
class VideoClassifier(ModalityClassifier):
    """`ModalityClassifier` of clips (B, N_F, C, H, W), in testing also of V views each, (B, V, N_F, C, H, W).

    The views go through the network one after the other, so they need no more memory than one, and their
    probabilities are averaged.
    """

    def predict(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, **arguments
    ) -> list[DataSample]:
        if inputs.dim() == CLIP_DIMS:
            return super().predict(inputs, data_samples, **arguments)
        of_views = [
            super(VideoClassifier, self).predict(view, None, **arguments)
            for view in inputs.unbind(1)
        ]
        merged = data_samples or [DataSample() for _ in range(len(inputs))]
        for sample, *views in zip(merged, *of_views, strict=True):
            score = torch.stack([view.pred_score for view in views]).mean(0)
            sample.set_pred_score(score).set_pred_label(score.argmax(0, keepdim=True))
        return merged
