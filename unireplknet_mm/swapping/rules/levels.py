"""Which stage takes the place of which output of the original backbone, and at which resolution.

Both networks are compared by the strides of their maps, measured, not by names or arguments. Outputs that
nothing reads are left out: the norm of such an output would never get a gradient, which distributed
training refuses.
"""

from typing import NoReturn

from unireplknet_mm.configuration import type_name
from unireplknet_mm.swapping.maps import measure_backbone, measure_neck
from unireplknet_mm.swapping.rules.heads import (
    indices_of_head,
    read_indices,
    segmentation_heads,
)
from unireplknet_mm.swapping.rules.necks import indices_read_by_neck
from unireplknet_mm.swapping.swap import STRIDES, FeatureMap, Swap

LAST_STAGE = 3
AUXILIARY_STAGE = 2  # where mmseg's auxiliary heads stand
# Necks of mmseg that make a pyramid of a plain transformer's maps, all of one stride.
PYRAMID_MAKERS = ('Feature2Pyramid', 'MultiLevelNeck')


def match_levels(swap: Swap) -> None:
    """Fill `old_maps`, `stage_of` and `output_stride`.

    Raises:
        SwapError: a map of a stride that no stage has, or an output stride that does not suit the model.
    """
    if swap.task == 'cls':
        if swap.output_stride not in (None, STRIDES[-1]):
            swap.refuse('--output-stride is for segmentation; a classifier pools the last map')
        swap.output_stride = STRIDES[-1]
        swap.stage_of = {0: LAST_STAGE}
        return
    in_channels = swap.old_backbone.get('in_channels', 3)
    swap.old_maps = measure_backbone(swap.old_backbone, swap.scope, in_channels)
    if swap.task == 'det':
        _match_detector(swap)
    else:
        _match_segmenter(swap)


def _match_detector(swap: Swap) -> None:
    deepest = max(feature.stride for feature in swap.old_maps)
    if swap.output_stride not in (None, deepest):
        swap.refuse(
            f'the anchors and RoIs of the config are made for maps up to stride {deepest}: leave '
            '--output-stride out, which is for segmentation'
        )
    if deepest not in STRIDES[1:]:
        _refuse_stride(swap, deepest)
    swap.output_stride = deepest
    if deepest != STRIDES[-1]:
        swap.report(
            'model.backbone.output_stride',
            str(deepest),
            f"the deepest map of the original has stride {deepest}, and the heads' anchors count on it",
        )
    for index in indices_read_by_neck(swap):
        swap.stage_of[index] = _stage_of_stride(swap, swap.old_maps[index].stride)
    if len(set(swap.stage_of.values())) < len(swap.stage_of):
        swap.refuse('its heads read several maps of one stride, of which UniRepLKNet has one')


def _match_segmenter(swap: Swap) -> None:
    neck = swap.model.get('neck')
    maps = swap.old_maps
    if isinstance(neck, dict) and type_name(neck) in PYRAMID_MAKERS:
        # From here on as if the original backbone had made the pyramid.
        maps = swap.old_maps = measure_neck(neck, swap.scope, maps)
        swap.set(
            'model',
            swap.model,
            'neck',
            None,
            f'{type_name(neck)} makes maps of strides {_strides(maps)} of those of a transformer, which '
            'the stages have by themselves',
        )
        neck = None
    indices = indices_read_by_neck(swap) if neck else read_indices(swap)
    if is_plain(maps) and not neck:
        _match_plain(swap, indices)
    elif len({feature.stride for feature in maps}) < len(maps):  # dilated: by position
        for index in indices:
            swap.stage_of[index] = LAST_STAGE + 1 - len(maps) + index
            if swap.stage_of[index] < 0:
                swap.refuse(f'it has {len(maps)} outputs, more than UniRepLKNet has stages')
    else:
        for index in indices:
            stride = maps[index].stride
            swap.stage_of[index] = (
                STRIDES.index(stride) if stride in STRIDES else _refuse_stride(swap, stride)
            )
    if _needs_one_size(swap):
        _read_one_size(swap)
    elif swap.output_stride is None:
        swap.output_stride = STRIDES[-1]
    elif swap.output_stride != STRIDES[-1]:
        swap.report('model.backbone.output_stride', str(swap.output_stride), 'as asked for')
    _check_depth(swap)


def _needs_one_size(swap: Swap) -> bool:
    """Whether an OCR head meets the map of the head before it, and both were of one size."""
    indices = _indices_of_cascade(swap)
    return (
        any(type_name(head) == 'OCRHead' for _, head in segmentation_heads(swap))
        and len({swap.old_maps[index].stride for index in indices}) == 1
        and len({swap.stage_of[index] for index in indices}) > 1
    )


def _read_one_size(swap: Swap) -> None:
    """Let the stages that the heads read have the stride of the first of them."""
    finest = min(STRIDES[swap.stage_of[index]] for index in _indices_of_cascade(swap))
    if (swap.output_stride or finest) > finest:
        swap.refuse(
            f'OCRHead and the head before it read maps of one size: --output-stride {finest}'
        )
    swap.output_stride = swap.output_stride or finest
    why = 'OCRHead and the head before it read maps of one size'
    swap.report('model.backbone.output_stride', str(swap.output_stride), why)


def _indices_of_cascade(swap: Swap) -> list[int]:
    """The outputs that the decode heads read."""
    count = len(swap.old_maps)
    return [
        index
        for place, head in segmentation_heads(swap)
        if place.startswith('model.decode_head')
        for index in indices_of_head(head, count)
    ]


def is_plain(maps: list[FeatureMap]) -> bool:
    """Whether the maps are those of a plain transformer: of one stride and width, from several depths."""
    return len(set(maps)) == 1


def _match_plain(swap: Swap, indices: list[int]) -> None:
    """The decode head reads the last stage, an auxiliary head the one before it."""
    main = max(indices)
    swap.stage_of = {index: LAST_STAGE if index == main else AUXILIARY_STAGE for index in indices}


def _check_depth(swap: Swap) -> None:
    """Warn where maps become coarser, and see to it that the last stage, which is built, is read."""
    coarser = {
        feature.stride: swap.new_map(index).stride
        for index, feature in enumerate(swap.old_maps)
        if index in swap.stage_of and swap.new_map(index).stride > feature.stride
    }
    if coarser:
        finest = min(coarser)
        ratios = ', '.join(f'{new} instead of {old}' for old, new in coarser.items())
        if finest in STRIDES[1:3]:
            way_out = (
                f' --output-stride {finest} keeps the resolution, at the price of more computation.'
            )
        else:
            way_out = ''
        swap.warn(f'the heads read maps of stride {ratios}.{way_out}')
    if LAST_STAGE not in swap.stage_of.values():
        swap.refuse(
            f'its heads read nothing deeper than stride {max(m.stride for m in swap.old_maps)}, so that the '
            'last stage would be built and never trained'
        )


def _stage_of_stride(swap: Swap, stride: int) -> int:
    """The deepest stage of that stride."""
    stages = [stage for stage in range(LAST_STAGE + 1) if swap.stride_of_stage(stage) == stride]
    return max(stages) if stages else _refuse_stride(swap, stride)


def _refuse_stride(swap: Swap, stride: int) -> NoReturn:
    swap.refuse(
        f'its heads or neck read a map of stride {stride}; those of UniRepLKNet have {_strides(STRIDES)}'
    )


def _strides(maps: list[FeatureMap] | tuple[int, ...]) -> str:
    return ', '.join(str(part.stride if isinstance(part, FeatureMap) else part) for part in maps)
