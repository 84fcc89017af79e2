"""What the original was made for and the new network is not: tiny images, a head on a frozen backbone.

Nothing of it is changed: whether the swap makes sense is for the user to say, who is told.
"""

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.swapping.maps import trained_parameters
from unireplknet_mm.swapping.swap import STRIDES, Swap

# Sides of the images of data sets that are classified as they are, in pixels.
SIDES = dict(CIFAR10=32, CIFAR100=32, MNIST=28, FashionMNIST=28)
SIZES = ('crop_size', 'scale')  # arguments of the transforms that set the size
SMALLEST = 2 * STRIDES[-1]  # below it the last map is a single pixel
MANY_STAGES = 3  # frozen ones, from which on all of the backbone may be


def tell_of_the_purpose(swap: Swap) -> None:
    """Warn about a classifier of images that are too small, and about a backbone that did not train."""
    side = _side_of_images(swap) if swap.task == 'cls' else None
    if side and side < SMALLEST:
        swap.warn(
            f'images of {side}×{side} have a last map of 1×1, and its large kernels see padding alone: add '
            "dict(type='Resize', scale=128) or more to the pipelines, or keep the original, which is made "
            'for such images'
        )
    may_be_whole = (swap.old_backbone.get('frozen_stages') or 0) >= MANY_STAGES
    if may_be_whole and not any(trained_parameters(swap.old_backbone, swap.scope).values()):
        swap.warn(
            f'the original trains its head alone, on a frozen {swap.old_type}; here the whole network '
            "trains, with the head's schedule. For the same with this backbone, give it --pretrained and set "
            f'model.backbone.frozen_stages={len(STRIDES)}'
        )


def _side_of_images(swap: Swap) -> int | None:
    """The shorter side of the images that are trained with, in pixels; None where it is not stated."""
    side = None
    for part in find_dicts(swap.config.get('train_dataloader')):
        side = SIDES.get(
            type_name(part), side
        )  # outer before inner: the data set, then its transforms
        for key in SIZES:
            value = part.get(key)
            sides = [value] if isinstance(value, int) else value
            if isinstance(sides, list | tuple) and all(isinstance(x, int) for x in sides):
                side = min(sides, default=side)
    return side
