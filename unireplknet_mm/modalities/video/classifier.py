"""The classifier of videos: of several views of a video, the mean of their scores counts."""

from mmpretrain.registry import MODELS

from unireplknet_mm.modalities.classifier import ViewsClassifier


@MODELS.register_module()
class VideoClassifier(ViewsClassifier):
    """`ViewsClassifier` of clips (B, N_F, C, H, W), in testing also of V views, (B, V, N_F, C, H, W)."""

    sample_dims = 4
