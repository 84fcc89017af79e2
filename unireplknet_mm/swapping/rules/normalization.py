"""Mean, standard deviation and channel order: those that the published weights were trained with.

They stand in the data preprocessor, and again in pipelines that paint borders or erased parts in the mean
colour. Caffe's ResNets take BGR images with a deviation of 1, YOLOX takes images as they are: with such
inputs pretrained weights train, but badly, and nothing says so.

Configs from the days of mmdet 2 leave the preprocessor without numbers and normalise in their pipelines, by
`Normalize`. There it is that transform which takes the new ones: images are normalised once.
"""

from collections.abc import Iterator, Sequence

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.swapping.recipes import NORMALIZATION
from unireplknet_mm.swapping.swap import Swap

MEAN, STD = NORMALIZATION['mean'], NORMALIZATION['std']
ORDERS = dict(det='bgr_to_rgb', seg='bgr_to_rgb', cls='to_rgb')  # the name of the argument
ORDER_KEYS = ('bgr_to_rgb', 'to_rgb', 'rgb_to_bgr')  # of which one turns the channels
PREPROCESSORS = ('DataPreprocessor', 'DataPreProcessor')
WHY = 'as the published weights were trained'
WHY_REPEATED = 'the numbers of the normalisation, which it repeats'
# Arguments of transforms that hold one colour, in the order of the image, which is loaded as BGR.
COLOURS = ('pad_val', 'fill_color', 'fill_val', 'img_fill_val', 'border_value')
DEVIATIONS = ('fill_std',)  # of noise around the colour


IN_PIPELINES = 'the pipelines normalise the images, by Normalize, and turn them to RGB'


def adapt_normalization(swap: Swap) -> None:
    """Set the numbers of what normalises, and of every transform that repeats the original's.

    Raises:
        SwapError: there is no data preprocessor, some pipelines normalise and others do not, or images are
            normalised twice.
    """
    normalize = _normalize_of_pipelines(swap)
    if normalize and _has_other_channels(swap, 'Normalize', normalize['mean']):
        return
    old_mean, old_std, is_rgb = None, None, False
    for place, preprocessor in _preprocessors(swap):
        mean, std = preprocessor.get('mean'), preprocessor.get('std')
        is_rgb = bool(preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb'))
        if _has_other_channels(swap, place, mean):
            return
        old_mean, old_std = mean, std
        if normalize is None:
            _set_preprocessor(swap, place, preprocessor)
            continue
        if mean is not None and not _is_neutral(preprocessor):
            swap.refuse(
                f'its images are normalised twice, by Normalize in the pipelines and by {place}: take one of '
                'the two out'
            )
        for key in ORDER_KEYS:
            if preprocessor.get(key):
                swap.set(place, preprocessor, key, False, IN_PIPELINES)
    if normalize is not None:
        old_mean, old_std = normalize['mean'], normalize['std']
        is_rgb = normalize.get('to_rgb', True)
    for key, value in swap.config.items():
        if key not in ('model', 'data_preprocessor'):
            for transform in find_dicts(value):
                _adapt_transform(swap, key, transform, old_mean, old_std, is_rgb)


def _has_other_channels(swap: Swap, place: str, mean: Sequence[float] | None) -> bool:
    """Whether the images are not of three channels, whose numbers stay, with a warning."""
    if mean is None or len(mean) == len(MEAN):
        return False
    swap.warn(
        f'{place} normalises {len(mean)} channels, and keeps its numbers: the published weights are for 3'
    )
    return True


def _normalize_of_pipelines(swap: Swap) -> dict | None:
    """A `Normalize` of the pipelines that load images, as it is in the original; None where there is none.

    One that changes nothing, with a mean of 0 and a deviation of 1, does not count.
    """
    config = swap.config
    loaders = [key for key in config if key.endswith('_dataloader') and config[key]]
    places = loaders or [key for key in config if key.endswith('_pipeline')]
    found = {
        place: [part for part in find_dicts(config[place]) if _normalizes(part)] for place in places
    }
    normalizing = [place for place, parts in found.items() if parts]
    if not normalizing:
        return None
    if len(normalizing) < len(places):
        others = ', '.join(place for place in places if place not in normalizing)
        swap.refuse(
            f'Normalize is in {", ".join(normalizing)} and not in {others}: put it into all of them, or let '
            'the data preprocessor normalise, by its mean and std'
        )
    first = found[normalizing[0]][0]
    if max(first['mean']) <= 1:
        swap.refuse(
            f'{first["type"]} in {normalizing[0]} is for images from 0 to 1: let the data preprocessor '
            'normalise, by its mean and std in units of 0 to 255'
        )
    return dict(first)


def _normalizes(part: dict) -> bool:
    is_normalize = type_name(part).rpartition('/')[2] == 'Normalize'  # 'torchvision/Normalize' too
    return is_normalize and not _changes_nothing(part)


def _changes_nothing(normalize: dict) -> bool:
    return _is_neutral(normalize) and not normalize.get('to_rgb', True)


def _is_neutral(numbers: dict) -> bool:
    return set(numbers['mean']) == {0} and set(numbers['std']) == {1}


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
    order = next((key for key in ORDER_KEYS[:2] if key in preprocessor), None)
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
    if name.endswith(PREPROCESSORS) or (is_normalize and _changes_nothing(transform)):
        return
    if 'mean' in transform and (is_normalize or _equal(transform['mean'], old_mean)):
        why = WHY if is_normalize else WHY_REPEATED
        swap.set(at, transform, 'mean', list(MEAN), why)
        if 'std' in transform and (is_normalize or _equal(transform['std'], old_std)):
            swap.set(at, transform, 'std', list(STD), why)
        swap.set(at, transform, 'to_rgb', True, why)
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
