"""Loading what fits into a whole model, and saying in a table what did and what did not."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

NAMES_SHOWN = 3


@dataclass(frozen=True)
class WeightReport:
    """By name, what became of a model's and a file's weights; counters of BatchNorms do not count.

    `reshaped` has the shapes in the file and in the model. `missing` and `reshaped` kept what they had,
    `unused` has no place in the model.
    """

    loaded: list[str]
    missing: list[str]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: list[str]

    @property
    def is_complete(self) -> bool:
        return not (self.missing or self.reshaped or self.unused)

    def describe_reshaped(self) -> str:
        """In words: `head.fc.weight (1000, 768) in the file, (10, 768) in the model`, and so on."""
        return _some(
            f'{name} {found} in the file, {wanted} in the model'
            for name, (found, wanted) in self.reshaped.items()
        )

    def table(self) -> str:
        """A line for each part of the model or the file, and examples of what was not loaded."""
        columns = {
            'loaded': self.loaded,
            'missing': self.missing,
            'other shape': list(self.reshaped),
            'not used': self.unused,
        }
        parts = dict.fromkeys(part_of(name) for names in columns.values() for name in names)
        width = max(len('part'), *map(len, parts))
        rows = [f'{"part":{width}}  ' + '  '.join(f'{title:>11}' for title in columns)]
        for part in parts:
            counts = (sum(part_of(name) == part for name in names) for names in columns.values())
            rows.append(f'{part:{width}}  ' + '  '.join(f'{count:>11}' for count in counts))
        if self.missing:
            rows.append(f'Not in the file, initialised anew: {_some(self.missing)}.')
        if self.reshaped:
            rows.append(f'Of another shape, initialised anew: {self.describe_reshaped()}.')
        if self.unused:
            rows.append(f'In the file, not in the model: {_some(self.unused)}.')
        return '\n'.join(rows)


def part_of(name: str) -> str:
    """What the name begins with, up to the part of a head that has parts: `neck`, `roi_head.bbox_head`."""
    return re.match(r'((?:roi_head\.)?[^.]*)', name)[1]


def load_what_fits(model: nn.Module, weights: Mapping[str, Tensor]) -> WeightReport:
    """Load the weights that `model` has a place for; parts of the toolboxes take former names as well.

    Args:
        model: without wrappers.
        weights: by the model's names.

    Raises:
        RuntimeError: one that has a former name is of another shape.
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if _counts(name)}
    reshaped = {
        name: (tuple(value.shape), own[name])
        for name, value in weights.items()
        if name in own and tuple(value.shape) != own[name]
    }
    fitting = OrderedDict((name, value) for name, value in weights.items() if name not in reshaped)
    if hasattr(weights, '_metadata'):  # versions of modules, by which they tell former names
        fitting._metadata = weights._metadata
    missing, unused = model.load_state_dict(fitting, strict=False)
    missing = [name for name in missing if _counts(name) and name not in reshaped]
    lacking = {*missing, *reshaped}
    return WeightReport(
        loaded=[name for name in own if name not in lacking],
        missing=missing,
        reshaped=reshaped,
        unused=[name for name in unused if _counts(name)],
    )


def _counts(name: str) -> bool:
    return not name.endswith('num_batches_tracked')


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - NAMES_SHOWN
    return ', '.join(names[:NAMES_SHOWN]) + (f' and {more} more' if more > 0 else '')
