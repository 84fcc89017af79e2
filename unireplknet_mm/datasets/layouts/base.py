"""What a layout of data sets is: all that the suite knows about how such a data set lies on the disk."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from unireplknet_mm.errors import ArgumentError

SPLITS = ('train', 'val')
MANIFEST = 'demo_data.json'  # beside demo data: the parameters and sources that they were made with

Progress = Callable[[list], Iterable]  # wraps the list of what is to be made, as `tqdm.tqdm` does


class Layout(ABC):
    """Folders, annotations, where to get the data, demo data, and how a config is pointed at them.

    A layout is one object, the `LAYOUT` of a module in this package. It may be of any kind of data: nothing
    here is about images.

    Attributes:
        name: what users call it, in `make_demo_data(name, ...)`.
        dataset_types: the `type` of the data sets in configs that read it, without a scope.
        samples: what the data set consists of, in the plural: 'images', 'clips'.
        files: the files and folders below its root.
        title: the public data set of this layout, such as 'COCO 2017'; '' where each user has their own.
        source: the address of that data set.
        version: to be raised when the same parameters give other demo data; older ones are replaced.
        defaults: the parameters of the demo data, but for the number of samples, with their defaults.
        run_samples: how many samples for training and for validation a config runs on.
        small_config: a config that shows the same in seconds on a CPU, which with inputs of full size takes
            many minutes.
    """

    name: str
    dataset_types: tuple[str, ...]
    samples: str
    files: tuple[str, ...]
    title: str = ''
    source: str = ''
    version: int = 1
    defaults: dict[str, Any]
    run_samples: tuple[int, int] = (4, 2)
    small_config: str = ''

    # The real data

    def where_to_get(self, root: str) -> list[str]:
        """How to get the real data to `root`, in lines; none where each user has their own."""
        if not self.title:
            return []
        expected = ' and '.join(f'{root}/{file}' for file in self.files)
        return [
            f'{self.title} is at {self.source}; expected are {expected}',
            f'A copy elsewhere can be linked: ln -s /path/to/it {root}',
        ]

    # The demo data

    @abstractmethod
    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add a command-line option for each of the `defaults`; one that is not given is None."""

    def complete(self, given: dict[str, Any]) -> dict[str, Any]:
        """All parameters, as JSON has them: those given, the defaults of those that are None or left out.

        Raises:
            ArgumentError: one is unknown or out of range.
        """
        unknown = sorted(given.keys() - self.defaults.keys())
        if unknown:
            raise ArgumentError(
                f'demo data of the layout {self.name} have no {", ".join(unknown)}; '
                f'they have {", ".join(self.defaults)}'
            )
        parameters = {}
        for name, default in self.defaults.items():
            value = default if given.get(name) is None else given[name]
            parameters[name] = list(value) if isinstance(value, tuple) else value
        self.check(parameters)
        return parameters

    @abstractmethod
    def check(self, parameters: dict[str, Any]) -> None:
        """Raise `ArgumentError` for parameters, complete ones, that are out of range."""

    @abstractmethod
    def check_sources(self) -> None:
        """Raise `UserError` where something is missing that the demo data are made of."""

    @abstractmethod
    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        """Write demo data to the empty folder `root`.

        Args:
            parameters: complete ones; `images` and `val_images` are the numbers of samples.
            progress: to wrap the list of samples to be made with.

        Returns:
            What they were made of, as JSON has it, by split; it goes into the manifest.
        """

    # Configs

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        """The parameters of the demo data that fit a config, as far as they are not the defaults.

        Args:
            model: the config of the model, or None.
            datasets: the configs of its data sets, all of this layout.

        Raises:
            ArgumentError: no demo data of this layout fit.
        """
        return {}

    @abstractmethod
    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """What the config of a data set says, besides its `data_root`, to read a split of demo data.

        Args:
            parameters: what `parameters_for` returned.
        """

    def point_config(self, cfg: Config, root: Path) -> list[str]:
        """Change in place what else in a config depends on the data: evaluators, thresholds.

        Returns:
            What the user should know of it, in sentences.
        """
        return []
