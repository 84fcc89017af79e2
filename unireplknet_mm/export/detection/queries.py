"""DETR and its kin: a fixed number of queries, each of which is a detection or nothing; no suppression.

Transformers and heads are mmdet's own code, called once for the whole batch. Two things in it depend on
values where
a graph needs sizes: the shapes of the maps, which `MapShapes` holds as numbers, and the ranking of an image's
queries, which is written here for the batch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unireplknet_mm.export.deployable import inherits, written_in
from unireplknet_mm.export.detection.results import Detections
from unireplknet_mm.export.detection.suppression import clip, take
from unireplknet_mm.export.errors import ExportError

RULES = ('predict_by_feat', '_predict_by_feat_single')
KNOWN = ('DETRHead', 'DeformableDETRHead')  # whose classes these methods are written in


class MapShapes:
    """Heights and widths of maps, in the place of mmdet's tensor of them.

    mmdet walks over them to cut and reshape, which needs numbers; it checks `[:, i]` against a length,
    which needs numbers as well; and it divides by `[..., i]`, which takes a tensor.
    """

    def __init__(self, sizes: list[tuple[int, int]], device: torch.device):
        self.sizes = sizes
        self.tensor = torch.tensor(sizes, device=device)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: tuple) -> Tensor | np.ndarray:
        return self.tensor[index] if index[0] is Ellipsis else np.array(self.sizes)[index]


class RecordableShapes(TorchFunctionMode):
    """`torch._shape_as_tensor`, which mmdet asks for the shapes of maps, in a form that can be recorded.

    PyTorch's own writes into the memory of a tensor, of which there is none while a graph is recorded.
    Batch and channels, which mmdet does not use, are 0: a tensor of an open batch's size would fix it.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch._shape_as_tensor:
            return torch.tensor((0, 0, *args[0].shape[2:]))
        return function(*args, **(kwargs or {}))


class Queries(nn.Module):
    """Maps of the neck -> detections, of an mmdet `DetectionTransformer`.

    Attributes:
        queries_have_ranks: whether the n-th best place gets a learned query of its own, as in DINO. Of 900
            places some score alike up to rounding; where they change places, all boxes move a little.

    Raises:
        ExportError: its head ranks queries by a rule that is not known here.
    """

    gives_masks = False
    takes_padding = False
    dynamic = ('batch',)
    score_threshold = 0.0

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = [model]  # in a list, since its weights are those of the file already
        self.head = model.bbox_head
        if not {written_in(self.head, rule) for rule in RULES} <= set(KNOWN):
            raise ExportError(
                f'{type(self.head).__name__} cannot be exported: it ranks queries by a rule of its own.'
            )
        self.number = int(self.head.test_cfg.get('max_per_img', model.num_queries))
        is_two_stage = getattr(model, 'as_two_stage', False)
        self.queries_have_ranks = is_two_stage and hasattr(model, 'query_embedding')

    @staticmethod
    def takes(model: nn.Module) -> bool:
        return inherits(model, 'DetectionTransformer')

    def forward(
        self, maps: tuple[Tensor, ...], bounds: Tensor, size: tuple[int, int]
    ) -> Detections:
        logits, boxes = (outputs[-1] for outputs in self.head(**self._transform(maps, size)))
        if self.head.loss_cls.use_sigmoid:
            classes = logits.shape[-1]
            scores, chosen = logits.sigmoid().flatten(1).topk(self.number, dim=1)
            chosen, labels = chosen // classes, chosen % classes
        else:
            scores, labels = logits.softmax(-1)[..., :-1].max(-1)
            scores, chosen = scores.topk(self.number, dim=1)
            labels = take(labels, chosen)
        centre, half = take(boxes, chosen).split(2, dim=-1)
        half = half / 2
        boxes = clip(torch.cat((centre - half, centre + half), dim=-1) * bounds, bounds)
        return Detections.of(boxes, scores, labels)

    def _transform(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> dict[str, Tensor]:
        """mmdet's `forward_transformer`, with the shapes of the maps as numbers."""
        from mmdet.structures import DetDataSample

        (model,) = self.model
        shapes = dict(batch_input_shape=tuple(size), img_shape=tuple(size))
        with RecordableShapes():
            encoder, decoder = model.pre_transformer(maps, [DetDataSample(metainfo=shapes)])
        for inputs in (encoder, decoder):
            if 'spatial_shapes' in inputs:
                sizes = [tuple(level.shape[-2:]) for level in maps]
                inputs['spatial_shapes'] = MapShapes(sizes, maps[0].device)
        further, head = model.pre_decoder(**model.forward_encoder(**encoder))
        # Halves of one tensor have strides that a matrix product compares with the size of the batch.
        further = {
            name: value.contiguous() if torch.is_tensor(value) else value
            for name, value in further.items()
        }
        head.update(_decode(model, {**decoder, **further}))
        return head


def _decode(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """mmdet's `forward_decoder`; that of DINO asks for the number of images, only to add 0 in training."""
    if written_in(model, 'forward_decoder') != 'DINO':
        return model.forward_decoder(**inputs)
    states, references = model.decoder(
        value=inputs.pop('memory'),
        key_padding_mask=inputs.pop('memory_mask'),
        self_attn_mask=inputs.pop('dn_mask'),
        reg_branches=model.bbox_head.reg_branches,
        **inputs,
    )
    return dict(hidden_states=states, references=list(references))
