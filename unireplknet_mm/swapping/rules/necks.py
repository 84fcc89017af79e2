"""Necks: the channels that they take, and which of the backbone's outputs they read."""

from unireplknet_mm.configuration import type_name
from unireplknet_mm.swapping.swap import Swap

WHY = 'the channels of the stages that it reads'
WHY_WIDTH = f'{WHY}, which are its widths inside as well; what it puts out stays'
WIDE_INSIDE = ('CSPNeXtPAFPN', 'YOLOXPAFPN')


def first_neck(swap: Swap) -> dict | None:
    """The config of the neck that reads the backbone, where `neck` is one or several; None for none.

    A neck without `in_channels`, such as a pooling, passes the backbone's channels on and is not meant.
    """
    neck = swap.model.get('neck')
    neck = neck[0] if isinstance(neck, list | tuple) and neck else neck
    return neck if isinstance(neck, dict) and 'in_channels' in neck else None


def indices_read_by_neck(swap: Swap) -> list[int]:
    """The indices of the outputs that the neck, or in a detector without one the heads, read.

    Raises:
        SwapError: the neck was made for other channels than those of the original backbone.
    """
    neck, count = first_neck(swap), len(swap.old_maps)
    if neck is None:
        return list(range(count))
    if isinstance(neck['in_channels'], int):
        return [count - 1]
    channels = [feature.channels for feature in swap.old_maps]
    if list(neck['in_channels']) not in (channels, channels[::-1]):
        swap.refuse(
            f'its neck {type_name(neck)} has in_channels={list(neck["in_channels"])}, but it gives {channels}'
        )
    return list(range(neck.get('start_level') or 0, count))


def adapt_neck(swap: Swap) -> None:
    """Set `in_channels`, without levels that the neck skips, which then begins at the first."""
    neck = first_neck(swap)
    if neck is None:
        return
    place = 'model.neck' if isinstance(swap.model['neck'], dict) else 'model.neck[0]'
    old, new = neck['in_channels'], [feature.channels for feature in swap.new_maps]
    if isinstance(old, int):
        swap.set(place, neck, 'in_channels', new[-1], WHY)
        return
    if list(old) != [feature.channels for feature in swap.old_maps]:
        new = new[::-1]  # YOLOV3Neck begins with the deepest
    skipped = len(old) - len(new)
    why = WHY_WIDTH if type_name(neck) in WIDE_INSIDE else WHY
    swap.set(place, neck, 'in_channels', type(old)(new), why)
    if skipped:
        why = 'the levels that it skipped are no longer put out: their norms would get no gradient'
        swap.set(place, neck, 'start_level', 0, why)
        if neck.get('end_level', -1) > 0:
            swap.set(place, neck, 'end_level', neck['end_level'] - skipped, why)
    if type_name(neck) == 'SSDNeck':  # passes the backbone's maps on, in front of its own
        for owner, key in ((neck, 'out_channels'), (swap.model['bbox_head'], 'in_channels')):
            at = place if owner is neck else 'model.bbox_head'
            swap.set(at, owner, key, type(owner[key])([*new, *owner[key][len(new) :]]), WHY)
