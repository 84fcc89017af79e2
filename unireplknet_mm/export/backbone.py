"""Backbones: images to the feature maps of their stages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unireplknet_mm.export.deployable import (
    Arrays,
    Deployable,
    as_arrays,
    inherits,
    register,
    relative_difference,
)
from unireplknet_mm.export.errors import ExportError
from unireplknet_mm.export.images import ImagePreprocessing, random_images

# With which a classifier's backbone gives its last map, normalised without the trained scale and shift.
MAP = 'model.backbone.gap_before_final_norm=False model.neck.type=GlobalAveragePooling'
# Relative to the largest value of a map.
FEATURE_LIMITS = dict(fp32=1e-4, fp16=2e-2, bf16=1e-1, int8=3e-1)


@register
class BackboneFile(Deployable):
    """A backbone alone: `images` -> `stage0`, ..., (N, C, H/s, W/s) of each of its `out_indices`.

    With `gap_before_final_norm`, as in classifiers, the last is the mean of its map instead, (N, C).

    Args:
        model: a module (N, C, H, W) -> a tuple of maps, with `out_indices`.
        preprocessor: the data preprocessor of the model that it is the backbone of, which then becomes a part
            of the file; without one, the input is what the backbone itself takes, in float32.
    """

    task = 'backbone features'

    def __init__(self, model: nn.Module, preprocessor: nn.Module | None = None):
        super().__init__(model)
        self.is_normalized = preprocessor is None
        self.preprocessing = (
            nn.Identity()
            if preprocessor is None
            else ImagePreprocessing(preprocessor, self.channels)
        )
        self.output_names = tuple(f'stage{index}' for index in model.out_indices)
        self.dtype = torch.float32

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        return hasattr(model, 'out_indices') and not inherits(model, 'BaseModel')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.float() for x in self.model(self.preprocessing(images).to(self.dtype)))

    def to_precision(self, dtype: torch.dtype) -> None:
        self.model.to(dtype)
        self.dtype = dtype

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        images = random_images(batch_size, shape)
        return (images.float() - 127.5) / 64 if self.is_normalized else images

    def from_pipeline(self, inputs: Tensor) -> Tensor:
        if self.is_normalized:
            raise ExportError('a backbone without a data preprocessor has no pipeline.')
        return self.preprocessing.from_pipeline(inputs)

    def describe(self) -> dict[str, Any]:
        values = dict(values='float32, normalised as in the training')
        return dict(
            input=values if self.is_normalized else self.preprocessing.describe(),
            outputs=dict(zip(self.output_names, self._shapes(), strict=True)),
        )

    def _shapes(self) -> list[str]:
        """What stands in the meta data of each output."""
        shapes = ['(N, channels, height, width)'] * len(self.output_names)
        if getattr(self.model, 'gap_before_final_norm', False):
            shapes[-1] = (
                f'(N, channels), the mean over the map, normalised; the map: --cfg-options {MAP}'
            )
        return shapes

    @torch.no_grad()
    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        return as_arrays(self.output_names, self.model(self.preprocessing(inputs)))

    def differences(self, reference: Arrays, exported: Arrays) -> dict[str, float]:
        return {
            name: relative_difference(reference[name], exported[name]) for name in self.output_names
        }

    def limits(self, precision: str) -> dict[str, float]:
        return dict.fromkeys(self.output_names, FEATURE_LIMITS[precision])
