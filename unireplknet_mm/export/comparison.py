"""A file against the model that it was made of, input by input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from unireplknet_mm.export.deployable import Arrays, Deployable


@dataclass
class Comparison:
    """The largest differences over all inputs, and what of them is too much.

    Attributes:
        limits: what counts as agreement, by what is compared.
        largest: the largest difference seen of each, and in which input.
        count: of inputs.
    """

    limits: Mapping[str, float]
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    count: int = 0

    def add(self, name: str, differences: Mapping[str, float]) -> None:
        self.count += 1
        for key, value in differences.items():
            value = float('inf') if value != value else value
            if key not in self.largest or value > self.largest[key][0]:
                self.largest[key] = (value, name)

    @property
    def agrees(self) -> bool:
        """Whether there was anything to compare, and nothing differs by more than it may."""
        return self.count > 0 and all(
            value <= self.limits[key] for key, (value, _) in self.largest.items()
        )

    def lines(self) -> list[str]:
        """What was found, a line for each that is compared."""
        return [
            f'{key}: differs by {value:.1e} at most ({name}), {self.limits[key]:.2g} is allowed'
            + ('' if value <= self.limits[key] else ': TOO MUCH')
            for key, (value, name) in self.largest.items()
        ]

    def record(self) -> dict[str, float]:
        """The largest differences, for the meta data of the file."""
        return {key: value for key, (value, _) in self.largest.items()}


def compare(
    deployable: Deployable,
    run: Callable[[np.ndarray], Arrays],
    inputs: Iterable[tuple[str, Tensor]],
    precision: str,
) -> Comparison:
    """Run the toolbox's own code and a file on the same inputs.

    Args:
        deployable: of the model, in float32.
        run: the file's function.
        inputs: names for messages, and batches as the file takes them.
        precision: of the file, on which depends what may differ.
    """
    comparison = Comparison(deployable.limits(precision))
    for name, batch in inputs:
        reference = deployable.reference(batch)
        comparison.add(name, deployable.differences(reference, run(batch.numpy())))
    return comparison
