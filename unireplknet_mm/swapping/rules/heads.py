"""Heads, decoders and pixel decoders that read the backbone's maps themselves.

Segmentation heads say which maps they read (`in_index`); detection heads without a neck are found by their
channels; classifiers read the last stage, pooled.
"""

from collections.abc import Iterator

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.swapping.maps import measure_neck
from unireplknet_mm.swapping.rules.necks import first_neck
from unireplknet_mm.swapping.swap import FeatureMap, Swap

READS_MAPS = ('CSRAClsHead',)  # classification heads that pool themselves
WHY = 'the channels of the stages that it reads'
WHY_INDEX = 'its place among the outputs; those that nothing reads are left out'


def adapt_heads(swap: Swap) -> None:
    """Set the channels, strides and indices of the heads that read the backbone, or what stands before them.

    Raises:
        SwapError: a head does not say how many channels it takes.
    """
    if swap.task == 'cls':
        _adapt_classifier(swap)
    elif swap.task == 'seg':
        _adapt_segmenter(swap)
    elif first_neck(swap) is None:
        _adapt_detector(swap)


# Segmentation


def segmentation_heads(swap: Swap) -> Iterator[tuple[str, dict]]:
    """Every head that reads maps, with its path in the config."""
    for name in ('decode_head', 'auxiliary_head'):
        heads = swap.model.get(name)
        several = isinstance(heads, list | tuple)
        for i, head in enumerate(heads if several else [heads]):
            if not isinstance(head, dict):
                continue
            place = f'model.{name}[{i}]' if several else f'model.{name}'
            if 'kernel_generate_head' in head:  # K-Net's iterations start from it
                place, head = f'{place}.kernel_generate_head', head['kernel_generate_head']
            yield place, head


def indices_of_head(head: dict, count: int) -> list[int]:
    """Which of `count` maps a head reads."""
    index = head.get('in_index')
    if index is None and isinstance(head.get('in_channels'), list | tuple):
        return list(range(len(head['in_channels'])))
    indices = [-1 if index is None else index] if not isinstance(index, list | tuple) else index
    if type_name(head) == 'EncHead' and not head.get('add_lateral'):
        indices = indices[-1:]  # it takes the others and leaves them aside
    return [i % count for i in indices]


def read_indices(swap: Swap) -> list[int]:
    """The outputs of the original backbone that some head reads, of a segmenter without a neck."""
    count = len(swap.old_maps)
    read = set()
    for _, head in segmentation_heads(swap):
        read.update(indices_of_head(head, count))
        if head.get('c1_in_channels'):  # DeepLabV3+ takes the first map by itself
            read.add(0)
    return sorted(read)


def _adapt_segmenter(swap: Swap) -> None:
    neck = first_neck(swap)
    if neck is None:
        maps = {index: swap.new_map(index) for index in swap.stage_of}
        index_of = {index: swap.index_of(index) for index in swap.stage_of}
        count = len(swap.old_maps)
        _drop_equal_auxiliary_heads(swap)
    else:  # what the neck puts out, with the new channels; its rule comes later
        old, new = _maps_behind_neck(swap, neck)
        count = len(old)
        maps = dict(enumerate(new))
        index_of = {index: index for index in maps}
    for place, head in segmentation_heads(swap):
        indices = indices_of_head(head, count)
        read = [maps[index] for index in indices]
        _set_channels(swap, place, head, read)
        if head.get('c1_in_channels'):
            swap.set(place, head, 'c1_in_channels', maps[0].channels, WHY)
        index = head.get('in_index')
        if index is not None:
            new_indices = [index_of[i] for i in indices]
            several = isinstance(index, list | tuple)
            if several or index >= 0:
                new_index = type(index)(new_indices) if several else new_indices[0]
                swap.set(place, head, 'in_index', new_index, WHY_INDEX)


def _maps_behind_neck(swap: Swap, neck: dict) -> tuple[list[FeatureMap], list[FeatureMap]]:
    """What the neck puts out before and after the swap."""
    old = measure_neck(neck, swap.scope, swap.old_maps)
    swapped = {**neck, 'in_channels': type(neck['in_channels'])(m.channels for m in swap.new_maps)}
    if 'start_level' in neck:
        swapped['start_level'] = 0
    new = measure_neck(type(neck)(swapped), swap.scope, swap.new_maps)
    if len(new) != len(old):
        swap.refuse(
            f'its neck {type_name(neck)} puts out {len(new)} maps after it, {len(old)} before'
        )
    return old, new


def _set_channels(swap: Swap, place: str, head: dict, read: list[FeatureMap]) -> None:
    channels = [feature.channels for feature in read]
    old = head.get('in_channels')
    if old is None:
        swap.refuse(f'{type_name(head)}, {place}, does not say how many channels it takes')
    new = type(old)(channels) if isinstance(old, list | tuple) else channels[0]
    swap.set(place, head, 'in_channels', new, WHY)
    if head.get('num_convs') == 0 and 'channels' in head and isinstance(new, int):
        swap.set(place, head, 'channels', new, 'the head has no convolution to change their number')
    for key in ('strides', 'feature_strides'):
        if isinstance(head.get(key), list | tuple) and len(head[key]) == len(read):
            strides = type(head[key])(feature.stride for feature in read)
            swap.set(place, head, key, strides, 'those of the maps that it reads')


def _drop_equal_auxiliary_heads(swap: Swap) -> None:
    """Of auxiliary heads that were on maps of a transformer and now read one stage, keep the last."""
    heads = swap.model.get('auxiliary_head')
    if not isinstance(heads, list | tuple) or len(heads) < 2:
        return
    count = len(swap.old_maps)
    by_stage = {
        tuple(swap.stage_of[i] for i in indices_of_head(head, count)): head for head in heads
    }
    if len(by_stage) < len(heads):
        kept = list(by_stage.values())
        swap.model['auxiliary_head'] = kept if len(kept) > 1 else kept[0]
        swap.report(
            'model.auxiliary_head',
            f'{len(kept)} instead of {len(heads)}',
            'the others would read the same stage',
        )


# Detection


def _adapt_detector(swap: Swap) -> None:
    """Heads of a detector without a neck: what has the channels of the original backbone's maps.

    Several maps are recognised by the list of their channels; one map by its number, in `in_channels` and
    in the `out_channels` of RoI extractors.
    """
    old, new = [m.channels for m in swap.old_maps], [m.channels for m in swap.new_maps]
    old_strides, new_strides = ([m.stride for m in maps] for maps in (swap.old_maps, swap.new_maps))
    heads = {key: value for key, value in swap.model.items() if key.endswith('head')}
    found = False
    for place, head in _dicts_with_places(heads, 'model'):
        for key in ('in_channels', 'out_channels'):
            value = head.get(key)
            if isinstance(value, list | tuple) and list(value) == old:
                swap.set(place, head, key, type(value)(new), WHY)
                found = True
            elif len(old) == 1 and isinstance(value, int) and value == old[0]:
                swap.set(place, head, key, new[0], WHY)
                found = True
        strides = head.get('strides')
        if isinstance(strides, list | tuple) and list(strides) == old_strides:
            why = 'those of the maps that it reads'
            swap.set(place, head, 'strides', type(strides)(new_strides), why)
    if not found:
        swap.refuse(f'no head has the channels {old} that it gives')


def _dicts_with_places(value: object, place: str) -> Iterator[tuple[str, dict]]:
    """Every dict in a nested config, with its path."""
    if isinstance(value, dict):
        yield place, value
        for key, part in list(value.items()):
            yield from _dicts_with_places(part, f'{place}.{key}')
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _dicts_with_places(part, f'{place}[{i}]')


# Classification


def reads_maps(swap: Swap) -> bool:
    """Whether the head of a classifier pools maps by itself."""
    return any(type_name(part) in READS_MAPS for part in find_dicts(swap.model.get('head')))


def _adapt_classifier(swap: Swap) -> None:
    channels = swap.channels[-1]
    neck = swap.model.get('neck')
    necks = neck if isinstance(neck, list | tuple) else [neck]
    if neck and not reads_maps(swap):
        if type_name(necks[-1]) != 'GlobalAveragePooling':
            names = ', '.join(type_name(part) for part in necks)
            swap.refuse(f'its neck {names} is made for its outputs')
        swap.set(
            'model',
            swap.model,
            'neck',
            None,
            'the backbone pools by itself, in front of its last norm, as its published weights want it',
        )
    heads = [part for part in find_dicts(swap.model.get('head')) if 'in_channels' in part]
    if not heads:
        swap.refuse(
            f'its head {type_name(swap.model.get("head") or {})} has no in_channels: the classifier is a '
            'part of the backbone'
        )
    for head in heads:
        swap.set('model.head', head, 'in_channels', channels, 'the channels of the last stage')
