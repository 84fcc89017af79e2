"""Models of other data than images: classifiers of recordings, videos and point clouds, and forecasters."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.export.classification import ImageClassifierFile
from unireplknet_mm.export.deployable import (
    Arrays,
    Deployable,
    as_arrays,
    inherits,
    register,
    relative_difference,
)
from unireplknet_mm.export.images import random_images

FORECAST_LIMITS = dict(fp32=1e-4, fp16=2e-2, bf16=1e-1, int8=3e-1)


class SamplePreprocessing(nn.Module):
    """What mmpretrain's preprocessor, or that of clips, does to a batch of samples of any rank.

    Args:
        preprocessor: which may swap channels, which are the third axis from behind, subtract and divide.
    """

    def __init__(self, preprocessor: nn.Module):
        super().__init__()
        self.normalizes = isinstance(getattr(preprocessor, 'mean', None), Tensor)
        # Pipelines read BGR, and the file takes RGB: only a model that does not swap channels needs BGR.
        self.takes_bgr = self.normalizes and not getattr(
            preprocessor, 'reverse', preprocessor.to_rgb
        )
        for name in ('mean', 'std'):
            value = getattr(preprocessor, name).detach().float() if self.normalizes else None
            self.register_buffer(name, value, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        x = samples.float()
        if self.takes_bgr:
            x = x.flip(-3)
        return (x - self.mean) / self.std if self.normalizes else x

    def swap(self, samples: Tensor) -> Tensor:
        """From RGB, which the file takes, to BGR, which pipelines give, or back."""
        return samples.flip(-3) if self.normalizes else samples


@register
class SampleClassifierFile(ImageClassifierFile):
    """Classifiers with an embedding: `inputs` -> `scores`, (N, classes).

    The input is a sample as the config's pipeline packs it: (N, frames, bins) of recordings, and of one view
    of a video (N, frames, 3, h, w), uint8 in RGB, or of a point cloud (N, points, 3).

    Args:
        model: a `ModalityClassifier`.
    """

    task = 'classification of samples'
    input_name = 'inputs'
    input_axes = ('batch',)
    dynamic = ('batch',)

    def __init__(self, model: nn.Module):
        Deployable.__init__(self, model)
        self.preprocessing = SamplePreprocessing(model.data_preprocessor)
        self.is_multi_label = inherits(model.head, 'MultiLabelClsHead')
        self.dtype = torch.float32

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        return inherits(model, 'ModalityClassifier')

    def to_precision(self, dtype: torch.dtype) -> None:
        super().to_precision(dtype)
        self.model.embedding.to(dtype)

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        if self.preprocessing.normalizes:
            return random_images(batch_size, shape)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch_size, *shape, generator=generator)

    def from_pipeline(self, inputs: Tensor) -> Tensor:
        """A batch of one; of a sample in several views, of as many."""
        is_views = inputs.dim() == getattr(self.model, 'sample_dims', inputs.dim()) + 1
        return self.preprocessing.swap(inputs if is_views else inputs[None])

    def fill(self, outputs: Arrays, samples: list[Any]) -> list[Any]:
        """As the model: of several views of one sample, the mean of their scores."""
        scores = outputs['scores']
        if len(samples) == 1:
            scores = scores.mean(0, keepdims=True)
        return super().fill(dict(scores=scores), samples)

    def describe(self) -> dict[str, Any]:
        values = (
            'frames from 0 to 255, RGB; mean and std of the training are in the file'
            if self.preprocessing.normalizes
            else "float32, as the config's test pipeline packs them"
        )
        return dict(
            input=dict(values=values),
            outputs=dict(scores='(N, classes), probability of each class'),
        )

    @torch.no_grad()
    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        data = dict(inputs=list(self.preprocessing.swap(inputs)))
        samples = self.model.predict(self.model.data_preprocessor(data)['inputs'])
        return dict(scores=torch.stack([sample.pred_score for sample in samples]).cpu().numpy())


@register
class ForecasterFile(Deployable):
    """Forecasters: `series`, (N, look_back, variables) -> `forecast`, (N, horizon, variables).

    Values are standardised ones, in and out. Of a model with a calendar, `series` is a table of past and
    future, (N, look_back + horizon, variables + 5): the columns behind the variables are those of
    `calendar_features`, and what the variables are in the rows of the future is not read.

    Args:
        model: a `SeriesModel`.
    """

    task = 'forecasting'
    input_name = 'series'
    input_axes = ('batch',)
    dynamic = ('batch',)
    output_names = ('forecast',)

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        return inherits(model, 'SeriesModel')

    def forward(self, series: Tensor) -> tuple[Tensor]:
        return (self.model.forecast(*self._split(series)),)

    def _split(self, series: Tensor) -> tuple[Tensor, Tensor | None]:
        """What was, and the calendar of past and future."""
        if not self.model.uses_calendar:
            return series, None
        variables = self.model.variables
        return series[:, : self.model.look_back, :variables], series[..., variables:]

    def sample_shape(self, stated: Sequence[int]) -> tuple[int, ...]:
        if not self.model.uses_calendar:
            return tuple(stated)
        from unireplknet_mm.modalities.time_series.series import CALENDAR

        return (self.model.look_back + self.model.horizon, self.model.variables + len(CALENDAR))

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch_size, *shape, generator=generator)

    def from_sample(self, sample: Mapping[str, Any]) -> Tensor:
        past = sample['inputs']
        if not self.model.uses_calendar:
            return past[None]
        table = F.pad(past, (0, 0, 0, self.model.horizon))
        return torch.cat((table, sample['calendar']), dim=1)[None]

    def describe(self) -> dict[str, Any]:
        values = '(N, look_back, variables), standardised as in the training'
        if self.model.uses_calendar:
            from unireplknet_mm.modalities.time_series.series import CALENDAR

            values = (
                '(N, look_back + horizon, variables + 5), rows of past and future: the variables, '
                f'standardised, 0 in the future; {", ".join(CALENDAR)}, each from -0.5 to 0.5'
            )
        return dict(
            input=dict(values=values),
            outputs=dict(forecast='(N, horizon, variables), standardised'),
        )

    @torch.no_grad()
    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        return as_arrays(self.output_names, self.model(*self._split(inputs)))

    def differences(self, reference: Arrays, exported: Arrays) -> dict[str, float]:
        return dict(forecast=relative_difference(reference['forecast'], exported['forecast']))

    def limits(self, precision: str) -> dict[str, float]:
        return dict(forecast=FORECAST_LIMITS[precision])

    def fill(self, outputs: Arrays, samples: list[Any]) -> list[Any]:
        for sample, forecast in zip(samples, outputs['forecast'], strict=True):
            sample.set_data(dict(forecast=torch.from_numpy(forecast)))
        return samples
