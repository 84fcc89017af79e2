"""What the layouts share whose samples are windows of hourly values."""

import argparse
from collections.abc import Sequence
from typing import Any, ClassVar

from unireplknet_mm.datasets.layouts.base import Layout
from unireplknet_mm.errors import ArgumentError

HELP_OF_WINDOWS = dict(
    look_back='rows that a window begins with',
    horizon='rows of a window to forecast',
)


class WindowLayout(Layout):
    """A sample is a window: `look_back` rows and the `horizon` rows that follow."""

    samples = 'windows'
    numbers: ClassVar[dict[str, str]]  # the parameters that are whole numbers, and what they are

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        for name, text in self.numbers.items():
            option = f'--{name.replace("_", "-")}'
            default = f'{text} (default: {self.defaults[name]})'
            parser.add_argument(option, type=int, metavar='N', help=default)

    def check(self, parameters: dict[str, Any]) -> None:
        for name in self.numbers:
            least = 0 if name == 'seed' else 1
            if parameters[name] < least:
                raise ArgumentError(f'{name} must be at least {least}, not {parameters[name]}')

    def check_sources(self) -> None:
        """The demo data are made of nothing but random numbers."""

    def window_of(self, datasets: Sequence[dict]) -> dict[str, int]:
        """`look_back` and `horizon`, which all data sets of a config have to share.

        Raises:
            ArgumentError: they differ.
        """
        sizes = {(dataset['look_back'], dataset['horizon']) for dataset in datasets}
        if len(sizes) > 1:
            raise ArgumentError(
                'the data sets of the config differ in look_back or horizon; the demo data of all of them '
                'are the same'
            )
        look_back, horizon = sizes.pop()
        return dict(look_back=look_back, horizon=horizon)
