"""The classifier of point clouds: of several turned copies of a cloud, the mean of their scores counts."""

from mmpretrain.registry import MODELS

from unireplknet_mm.modalities.classifier import ViewsClassifier


@MODELS.register_module()
class PointCloudClassifier(ViewsClassifier):
    """`ViewsClassifier` of clouds (B, P, 3), in testing also of V turned copies of each, (B, V, P, 3)."""

    sample_dims = 2
