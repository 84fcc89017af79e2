"""The classifier of all modalities: mmpretrain's, with a bridge in front of the backbone (§3.3).

A modality makes its data a (B, C', H, W) map, and the backbone sees nothing but that map. What comes after
it (neck, head, losses, batch augmentations) is mmpretrain's.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError


@MODELS.register_module()
class ModalityClassifier(ImageClassifier):
    """`ImageClassifier` with an embedding in front of its backbone.

    Parameters are those of the embedding (`embedding.*`), then the classifier's: an image classifier's
    checkpoint fits one whose embedding has none.

    Tools take the shape of one sample, as the data preprocessor gives it to the embedding and without the
    batch, from `input_shape` of the config: (T, F) of audio, (frames, 3, h, w) of video.

    Args:
        embedding: config of a module (B, ...) -> (B, C', H, W), or the module.
        backbone: takes (B, C', H, W): `UniRepLKNet` with `in_channels=C'`, or any of mmpretrain.
        train_cfg: with `augments` of batches, and their `probs`. It and `data_preprocessor` are copied:
            mmpretrain writes into both, and a config is built more than once.
        data_preprocessor: config, or module.
        named: `neck`, `head`, `pretrained`, `init_cfg` of mmpretrain's `ImageClassifier`.

    Raises:
        ArgumentError: when it runs, the embedding's map is no (B, C', H, W), or of other channels than the
            backbone takes.

    Example::

        model = dict(
            type='ModalityClassifier',
            embedding=dict(type='SpectrogramMap'),
            backbone=dict(type='UniRepLKNet', arch='s', in_channels=1, ...),
            head=dict(type='LinearClsHead', num_classes=35, in_channels=768))
    """

    def __init__(
        self,
        embedding: dict | nn.Module,
        backbone: dict | nn.Module,
        *,
        train_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        **named: Any,
    ):
        if isinstance(data_preprocessor, dict):
            data_preprocessor = copy.deepcopy(data_preprocessor)
        super().__init__(
            backbone,
            train_cfg=copy.deepcopy(train_cfg),
            data_preprocessor=data_preprocessor,
            **named,
        )
        self.embedding = embedding if isinstance(embedding, nn.Module) else MODELS.build(embedding)

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> Tensor | Sequence[Tensor]:
        """As mmpretrain's, of (B, ...) inputs: 'backbone', 'neck' or 'pre_logits' is what comes out."""
        return super().extract_feat(self.embed(inputs), stage)

    def embed(self, inputs: Tensor) -> Tensor:
        """The (B, C', H, W) map that the backbone sees."""
        maps = self.embedding(inputs)
        channels = getattr(self.backbone, 'in_channels', None)
        if maps.dim() != 4 or (isinstance(channels, int) and maps.shape[1] != channels):
            wanted = channels if isinstance(channels, int) else "C'"
            raise ArgumentError(
                f'{type(self.embedding).__name__} makes {tuple(maps.shape)} of an input '
                f'{tuple(inputs.shape)}, but {type(self.backbone).__name__} takes (B, {wanted}, H, W)'
            )
        return maps

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """mmpretrain's convention: the layer of a parameter and their number; the embedding is in layer 0."""
        layer, num_layers = super().get_layer_depth(param_name)
        return (0 if param_name.startswith('embedding.') else layer), num_layers


class ViewsClassifier(ModalityClassifier):
    """`ModalityClassifier` that in testing also takes V views of each sample, (B, V, ...).

    The views go through the network one after the other, so they need no more memory than one, and their
    probabilities are averaged.

    Attributes:
        sample_dims: dimensions of a sample without views; a batch has one more.
    """

    sample_dims: ClassVar[int]

    def predict(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, **arguments
    ) -> list[DataSample]:
        if inputs.dim() == self.sample_dims + 1:
            return super().predict(inputs, data_samples, **arguments)
        of_views = [
            super(ViewsClassifier, self).predict(view, None, **arguments)
            for view in inputs.unbind(1)
        ]
        merged = data_samples or [DataSample() for _ in range(len(inputs))]
        for sample, *views in zip(merged, *of_views, strict=True):
            score = torch.stack([view.pred_score for view in views]).mean(0)
            sample.set_pred_score(score).set_pred_label(score.argmax(0, keepdim=True))
        return merged
