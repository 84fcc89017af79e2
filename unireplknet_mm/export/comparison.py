"""A file against the model that it was made of, input by input."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from unireplknet_mm.export.deployable import Arrays, Deployable
from unireplknet_mm.export.errors import ExportError, first_line


@dataclass
class Comparison:
    """The largest differences over all inputs, and what of them is too much.

    Attributes:
        limits: what counts as agreement, by what is compared.
        largest: the largest difference seen of each, and in which input.
        count: of inputs.
        found: detections of the model in them; None of models that are no detectors.
    """

    limits: Mapping[str, float]
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    count: int = 0
    found: int | None = None

    def add(self, name: str, differences: Mapping[str, float], found: int | None = None) -> None:
        self.count += 1
        if found is not None:
            self.found = found + (self.found or 0)
        for key, value in differences.items():
            value = float('inf') if value != value else value
            if key not in self.largest or value > self.largest[key][0]:
                self.largest[key] = (value, name)

    @property
    def agrees(self) -> bool:
        """Whether there was anything to compare, of detectors a detection, and nothing differs too much."""
        return (
            self.count > 0
            and self.found != 0
            and all(value <= self.limits[key] for key, (value, _) in self.largest.items())
        )

    def lines(self) -> list[str]:
        """What was found, a line for each that is compared."""
        lines = [
            f'{key}: differs by {value:.1e} at most ({name}), {self.limits[key]:.2g} is allowed'
            + ('' if value <= self.limits[key] else ': TOO MUCH')
            for key, (value, name) in self.largest.items()
        ]
        if self.found == 0:
            lines.append(
                f'no detections: the model found nothing in {self.inputs()}, so that nothing was compared. '
                'Name pictures of its classes with --images, or lower score_thr of model.test_cfg.'
            )
        return lines

    def inputs(self) -> str:
        """What was compared, as in '20 inputs, 341 detections'."""
        inputs = f'{self.count} input{"" if self.count == 1 else "s"}'
        if not self.found:
            return inputs
        return f'{inputs}, {self.found} detection{"" if self.found == 1 else "s"}'

    def record(self) -> dict[str, float]:
        """The largest differences, by what is compared."""
        return {key: value for key, (value, _) in self.largest.items()}

    def summary(self) -> dict[str, Any]:
        """What a file says of it; JSON takes it."""
        detections = {} if self.found is None else dict(detections=self.found)
        return dict(
            inputs=self.count,
            **detections,
            largest_differences={
                name: float(value) if np.isfinite(value) else None  # JSON has no infinity
                for name, value in self.record().items()
            },
            allowed=dict(self.limits),
            agrees=self.agrees,
        )


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

    Raises:
        ExportError: the toolbox's own code fails on an input.
    """
    comparison = Comparison(deployable.limits(precision))
    for name, batch in inputs:
        try:
            reference = deployable.reference(batch)
        except RuntimeError as error:
            raise ExportError(
                f'{name}: the model itself, in its toolbox, fails on it: {first_line(error)}\n'
                'Leave it out: name other files with --images.'
            ) from error
        differences = deployable.differences(reference, run(batch.numpy()))
        comparison.add(name, differences, deployable.count_found(reference))
    return comparison
