"""What a model of each task is run on: random images, and the targets that its loss needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError


class Task:
    """A model with its inference and its loss, on a batch of images.

    Args:
        model: on the CPU, in float32, with the weights that it is measured with.
        leading: what stands before height and width in the shape of a sample: the channels of an image.
    """

    def __init__(self, model: nn.Module, leading: Sequence[int] = (3,)):
        self.model = model
        self.leading = tuple(leading)

    def make_batch(self, batch_size: int, size: tuple[int, int], device: str) -> Any:
        """Random images of height × width, always the same ones, and targets, on the device."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch_size, *self.leading, *size, generator=generator)
        return images.to(device)

    def convert(self, batch: Any, **options: Any) -> Any:
        """The batch with its images in another dtype or memory format, the options of `Tensor.to`."""
        return batch.to(**options)

    def infer(self, model: nn.Module, batch: Any) -> Any:
        """What a user gets from the model."""
        return model(batch)

    def outputs(self, model: nn.Module, batch: Any) -> list[Tensor]:
        """Tensors that the model computes, to be compared between two forms of it."""
        return flatten(self.infer(model, batch))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        raise NotImplementedError


class Classifier(Task):
    """A module from images to logits."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch)
        labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        return F.cross_entropy(logits.float(), labels)


class MMPretrainClassifier(Classifier):
    """An `ImageClassifier`, whose data preprocessor is left out."""

    def infer(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch, mode='tensor')

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch, mode='tensor')
        labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        return F.cross_entropy(logits.float(), labels)


class Segmenter(Task):
    """An `EncoderDecoder`: logits at the resolution of its head; loss on random labels."""

    def infer(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch, mode='tensor')

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        count, _, height, width = batch.shape
        generator = torch.Generator().manual_seed(0)
        classes = model.decode_head.num_classes
        shape = (count, 1, height, width)
        labels = torch.randint(classes, shape, generator=generator).to(batch.device)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
        return model.parse_losses(model(batch, samples, mode='loss'))[0]


class Detector(Task):
    """An mmdet detector: boxes and masks; loss on ten random objects an image."""

    def make_batch(self, batch_size: int, size: tuple[int, int], device: str) -> dict:
        from mmdet.testing import demo_mm_inputs
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        shapes = [(*self.leading, *size)] * batch_size
        # RTMDet, which learns boxes alone, would take masks for those of its variant that learns them.
        with_mask = any(hasattr(self.model, f'{part}_head') for part in ('roi', 'mask', 'panoptic'))
        batch = demo_mm_inputs(
            batch_size, image_shapes=shapes, num_items=[10] * batch_size, with_mask=with_mask
        )
        self.model.data_preprocessor.to(device)
        return self.model.data_preprocessor(batch, training=True)

    def convert(self, batch: dict, **options: Any) -> dict:
        return batch | {'inputs': batch['inputs'].to(**options)}

    def infer(self, model: nn.Module, batch: dict) -> Any:
        return model(**batch, mode='predict')

    def outputs(self, model: nn.Module, batch: dict) -> list[Tensor]:
        """The maps that the heads see: rounding may turn one box into another."""
        return flatten(model.extract_feat(batch['inputs']))

    def loss(self, model: nn.Module, batch: dict) -> Tensor:
        return model.parse_losses(model(**batch, mode='loss'))[0]


def flatten(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts.

    Raises:
        ArgumentError: there is something else in them.
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        raise ArgumentError(f'a {type(value).__name__} among the outputs is no tensor')
    return [tensor for part in value for tensor in flatten(part)]
