"""Mean, standard deviation and channel order: those that the published weights were trained with.

They stand in the data preprocessor, and again in pipelines that paint borders or erased parts in the mean
colour. Caffe's ResNets take BGR images with a deviation of 1, YOLOX takes images as they are: with such
inputs pretrained weights train, but badly, and nothing says so.
"""

from collections.abc import Iterator, Sequence

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.swapping.recipes import NORMALIZATION
from unireplknet_mm.swapping.swap import Swap

MEAN, STD = NORMALIZATION['mean'], NORMALIZATION['std']
ORDERS = dict(det='bgr_to_rgb', seg='bgr_to_rgb', cls='to_rgb')  # the name of the argument
PREPROCESSORS = ('DataPreprocessor', 'DataPreProcessor')
WHY = 'as the published weights were trained'
WHY_REPEATED = "the data preprocessor's numbers, which it repeats"
# Arguments of transforms that hold one colour, in the order of the image, which is loaded as BGR.
COLOURS = ('pad_val', 'fill_color', 'fill_val', 'img_fill_val', 'border_value')
DEVIATIONS = ('fill_std',)  # of noise around the colour


def adapt_normalization(swap: Swap) -> None:
    """Set the numbers of the data preprocessor, and of every transform that repeats the original's."""
    old_mean, old_std, is_rgb = None, None, False
    for place, preprocessor in _preprocessors(swap):
        mean, std = preprocessor.get('mean'), preprocessor.get('std')
        is_rgb = bool(preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb'))
        if mean is not None and len(mean) != len(MEAN):
            swap.warn(
                f'{place} normalises {len(mean)} channels, and keeps its numbers: the published weights are '
                'for 3'
            )
            return
        old_mean, old_std = mean, std
        _set_preprocessor(swap, place, preprocessor)
    for key, value in swap.config.items():
        if key not in ('model', 'data_preprocessor'):
            for transform in find_dicts(value):
                _adapt_transform(swap, key, transform, old_mean, old_std, is_rgb)


def _preprocessors(swap: Swap) -> Iterator[tuple[str, dict]]:
    """The data preprocessors that normalise, with their places; the one that counts comes last."""
    outer, inner = swap.config.get('data_preprocessor'), swap.model.get('data_preprocessor')
    if isinstance(outer, dict) and (inner is None or 'mean' in outer):
        yield 'data_preprocessor', outer
    if isinstance(inner, dict):
        yield 'model.data_preprocessor', inner
    if inner is None and outer is None:
        swap.refuse('the config has no data preprocessor, whose mean and deviation are to be set')


def _set_preprocessor(swap: Swap, place: str, preprocessor: dict) -> None:
    was_raw = preprocessor.get('mean') is None
    swap.set(place, preprocessor, 'mean', list(MEAN), WHY)
    swap.set(place, preprocessor, 'std', list(STD), WHY)
    order = next((key for key in ('bgr_to_rgb', 'to_rgb') if key in preprocessor), None)
    swap.set(place, preprocessor, order or ORDERS[swap.task], True, WHY)
    if preprocessor.get('rgb_to_bgr'):
        swap.set(place, preprocessor, 'rgb_to_bgr', False, WHY)
    padding = preprocessor.get('pad_value')
    if was_raw and isinstance(padding, int | float) and padding != 0:
        why = 'images are normalised before they are padded: 0 is the mean colour'
        swap.set(place, preprocessor, 'pad_value', 0, why)


def _adapt_transform(
    swap: Swap,
    place: str,
    transform: dict,
    old_mean: Sequence[float] | None,
    old_std: Sequence[float] | None,
    is_rgb: bool,
) -> None:
    """Replace the original's numbers in one dict of a pipeline.

    Args:
        place: the config's key that it stands under.
        is_rgb: whether old_mean and old_std are in the order RGB.
    """
    name = type_name(transform)
    at = f'{name} in {place}' if name else place  # a variable of the file has no type
    is_normalize = name == 'Normalize'
    if name.endswith(PREPROCESSORS):
        return
    if 'mean' in transform and (is_normalize or _equal(transform['mean'], old_mean)):
        swap.set(at, transform, 'mean', list(MEAN), WHY_REPEATED)
        if 'std' in transform and (is_normalize or _equal(transform['std'], old_std)):
            swap.set(at, transform, 'std', list(STD), WHY_REPEATED)
        swap.set(at, transform, 'to_rgb', True, WHY_REPEATED)
    padding = transform.get('pad_val')  # one colour, or dict(img=..., masks=..., seg=...)
    for owner, key in (*((transform, key) for key in (*COLOURS, *DEVIATIONS)), (padding, 'img')):
        if isinstance(owner, dict):
            old, new = (old_std, STD) if key in DEVIATIONS else (old_mean, MEAN)
            _adapt_colour(swap, at, owner, key, old, new, is_rgb)


def _adapt_colour(
    swap: Swap,
    at: str,
    owner: dict,
    key: str,
    old: Sequence[float] | None,
    new: list[float],
    is_rgb: bool,
) -> None:
    """Replace a colour that is the original's, exactly or rounded, by the new one in the same form."""
    colour = owner.get(key)
    if old is None or set(old) in ({0}, {1}):  # black, or no scale, on purpose
        return
    if not isinstance(colour, list | tuple):
        return
    old_bgr, new_bgr = list(old)[::-1] if is_rgb else list(old), new[::-1]
    rounded = [round(x) for x in old_bgr]
    if _equal(colour, old_bgr):
        swap.set(at, owner, key, type(colour)(new_bgr), WHY_REPEATED)
    elif _equal(colour, rounded):
        swap.set(at, owner, key, type(colour)(round(x) for x in new_bgr), WHY_REPEATED)


def _equal(numbers: Sequence[float] | None, others: Sequence[float] | None) -> bool:
    if numbers is None or others is None:
        return False
    return len(numbers) == len(others) and all(
        abs(a - b) < 1e-3 for a, b in zip(numbers, others, strict=True)
    )
