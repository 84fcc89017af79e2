"""Clips become normalised float tensors, where mixup and cutmix are done."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from mmpretrain.models import ClsDataPreprocessor


@MODELS.register_module()
class ClipPreprocessor(ClsDataPreprocessor):
    """mmpretrain's preprocessor of images, for inputs (N_F, 3, H, W) or (V, N_F, 3, H, W).

    Mixup and cutmix mix frames with frames, before they are laid out, as the published code does: cutmix
    pastes the same box into every frame. On the finished grid it would replace whole frames of a video by
    those of another, and cut the others in two.

    Args:
        mean, std: of the channels, in the order that the model gets them in, from 0 to 255.
        to_rgb: whether the frames are turned from BGR to RGB first.
        arguments: `num_classes`, `to_onehot`, `batch_augments` of mmpretrain's `ClsDataPreprocessor`.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], to_rgb: bool = True, **arguments: Any
    ):
        super().__init__(
            **arguments
        )  # which would take the dimension of the frames for the channels
        self.reverse = to_rgb
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        inputs = self.cast_data(data['inputs'])
        clips = inputs if isinstance(inputs, torch.Tensor) else torch.stack(list(inputs))
        clips = clips.flip(-3) if self.reverse else clips
        clips = (clips.float() - self.mean) / self.std
        # mmpretrain mixes images (B, C, H, W): all frames are channels of one.
        batch = super().forward({**data, 'inputs': clips.flatten(1, -3)}, training)
        batch['inputs'] = batch['inputs'].view_as(clips)
        return batch
