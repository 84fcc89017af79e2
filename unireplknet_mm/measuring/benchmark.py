"""Throughput, latency and peak memory of models, taken in turn in one process.

The variants of a group are built, compared with their plain form, warmed up and then called once a round
each, so that whatever slows the machine down for a while slows all of them down. A variant that computes
something else than its plain form is reported as wrong and compared with nothing.
"""

import contextlib
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TextIO

import torch
from torch import Tensor

from unireplknet_mm.errors import UserError
from unireplknet_mm.measuring.catalogue import Build
from unireplknet_mm.measuring.memory import peak_of_call
from unireplknet_mm.measuring.variants import (
    Prepared,
    Variant,
    difference,
    smallest_norm,
    tolerance,
)
from unireplknet_ops.measure import in_turn, thread_count, timed_call


class Group(NamedTuple):
    """Variants that take turns, and are compared with the first of them.

    Threads and device are the same for all.
    """

    title: str
    variants: tuple[Variant, ...]


@dataclass
class Result:
    """What was measured of a variant.

    `seconds` of each call, in order; `first_seconds` those of the first, which compiles; `peak_memory` in
    bytes, weights and optimizer state included; `difference` from the plain form, relative; `left_out`
    tells why there are no times.
    """

    group: str
    variant: Variant
    parameters: int | None = None
    seconds: list[float] = field(default_factory=list)
    first_seconds: float | None = None
    peak_memory: int | None = None
    difference: float | None = None
    left_out: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether it computes what its plain form does, as far as rounding lets it."""
        return self.difference is not None and self.difference <= tolerance(self.variant)

    @property
    def is_wrong(self) -> bool:
        return self.difference is not None and not self.agrees

    @property
    def median(self) -> float | None:
        return percentile(self.seconds, 50) if self.seconds else None

    @property
    def p95(self) -> float | None:
        return percentile(self.seconds, 95) if self.seconds else None

    @property
    def spread(self) -> float | None:
        """The middle half of the times, over their median."""
        if not self.seconds:
            return None
        return (percentile(self.seconds, 75) - percentile(self.seconds, 25)) / self.median

    @property
    def throughput(self) -> float | None:
        """Images a second, by the median."""
        return self.variant.batch_size / self.median if self.seconds else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two neighbours, in proportion."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def speed_up(result: Result, baseline: Result) -> float | None:
    """How many times more images a second than another one; None where either is missing or wrong."""
    if not (result.agrees and baseline.agrees and result.seconds and baseline.seconds):
        return None
    return result.throughput / baseline.throughput


def keep_better_layouts(results: Iterable[Result]) -> list[Result]:
    kept: dict[tuple, Result] = {}
    for result in results:
        key = (result.group, result.variant._replace(layout=''))
        other = kept.get(key)
        if other is None or _rank(result) > _rank(other):
            kept[key] = result
    return list(kept.values())


def _rank(result: Result) -> tuple[bool, float]:
    return result.agrees, result.throughput or 0.0


class Progress:
    """One line that tells what is done and how long the rest will take.

    Args:
        stream: written to; on a terminal the line is overwritten, elsewhere there is one every ten seconds.
    """

    def __init__(self, stream: TextIO = sys.stderr):
        self.stream = stream
        self.rewrites = stream.isatty()
        self.start = self.last = time.monotonic()

    def __call__(self, text: str, seconds_left: float | None = None) -> None:
        now = time.monotonic()
        if not self.rewrites and now - self.last < 10:
            return
        self.last = now
        left = f', about {duration(seconds_left)} left' if seconds_left is not None else ''
        line = f'[{duration(now - self.start)}] {text}{left}'
        self.stream.write(f'\r\033[K{line}' if self.rewrites else f'{line}\n')
        self.stream.flush()

    def close(self) -> None:
        if self.rewrites:
            self.stream.write('\r\033[K')
            self.stream.flush()


def duration(seconds: float) -> str:
    """'40 s', '12 min', '2 h 05 min'."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60:02d} min'


class Benchmark:
    """Measures groups of variants.

    Args:
        builds: what builds the model, by the name that variants call it.
        rounds: timed calls of each variant.
        warm_up: calls of each before them, beside those that compare and take the memory.
        memory: whether the peak memory is taken, which costs a profiled call.
        progress: told what is going on and the seconds that are left.
    """

    def __init__(
        self,
        builds: dict[str, Build],
        rounds: int = 20,
        warm_up: int = 2,
        memory: bool = True,
        progress: Callable[[str, float | None], None] = lambda text, left: None,
    ):
        self.builds = builds
        self.rounds = rounds
        self.warm_up = warm_up
        self.memory = memory
        self.progress = progress
        self.results: list[Result] = []
        self.interrupted = False
        self._cost_per_variant: list[float] = []

    def run(self, groups: Sequence[Group]) -> list[Result]:
        """Measure the groups one after the other; Ctrl-C ends it and keeps what there is.

        Returns:
            The results of all variants that were begun, which are in `results` too.
        """
        try:
            for i, group in enumerate(groups):
                start = time.monotonic()
                self._run_group(group, sum(len(later.variants) for later in groups[i + 1 :]))
                self._cost_per_variant.append((time.monotonic() - start) / len(group.variants))
        except KeyboardInterrupt:
            self.interrupted = True
        return self.results

    def _run_group(self, group: Group, variants_later: int) -> None:
        prepared: list[Prepared] = []
        results: list[Result] = []
        with thread_count(group.variants[0].threads):
            expected = _PlainForms(self.builds)
            for variant in group.variants:
                self.progress(f'{group.title}: preparing {describe(variant)}', None)
                result = Result(group.title, variant)
                self.results.append(result)
                try:
                    prepared.append(self._prepare(variant, expected, result))
                    results.append(result)
                except Exception as error:
                    if isinstance(error, UserError) and not isinstance(error, ValueError):
                        raise  # of the config, whose mistake concerns everything
                    result.left_out = _reason(error)
                _release_memory(variant.device)
            expected.clear()
            self._time(group, prepared, results, variants_later)
        prepared.clear()
        _release_memory(group.variants[0].device)

    def _prepare(self, variant: Variant, expected: '_PlainForms', result: Result) -> Prepared:
        """A variant that was compared, measured in memory and warmed up."""
        prepared = Prepared(variant, self.builds[variant.model])
        result.parameters = prepared.parameters
        reference = expected(variant)
        with _nothing_compiled() if variant.compiled else contextlib.nullcontext():
            actual, result.first_seconds = timed_call(prepared.outputs, variant.device)
        result.difference = difference(actual, reference, smallest_norm(variant))
        del actual
        for _ in range(self.warm_up):
            prepared()
        if self.memory:
            prepared.release_gradients()
            resident = prepared.resident_bytes()
            result.peak_memory = resident + peak_of_call(prepared, variant.device)
        return prepared

    def _time(
        self, group: Group, prepared: list[Prepared], results: list[Result], variants_later: int
    ) -> None:
        repeats = [self.rounds] * len(prepared)
        device = group.variants[0].device
        start = time.monotonic()

        def seconds_of(i: int) -> float | None:
            if results[i].left_out is not None:
                return None
            try:
                return timed_call(prepared[i], device)[
                    1
                ]  # and what was computed, which is not kept
            except Exception as error:
                results[i].left_out = _reason(error)
                results[i].seconds.clear()
                return None

        samples = in_turn(range(len(prepared)), repeats, seconds_of)
        for taken, (i, seconds) in enumerate(samples, start=1):
            if seconds is None:
                continue
            results[i].seconds.append(seconds)
            elapsed = time.monotonic() - start
            left = elapsed / taken * (sum(repeats) - taken)
            cost = [*self._cost_per_variant, elapsed / taken * (self.rounds + self.warm_up + 2)]
            left += statistics.mean(cost) * variants_later
            turn = len(results[i].seconds)
            self.progress(f'{group.title}: round {turn} of {self.rounds}', left)


class _PlainForms:
    """What the plain form of a variant computes, kept while a group needs it."""

    def __init__(self, builds: dict[str, Build]):
        self.builds = builds
        self.outputs: dict[Variant, list[Tensor]] = {}

    def __call__(self, variant: Variant) -> list[Tensor]:
        plain = variant.plain()
        if plain not in self.outputs:
            self.outputs[plain] = Prepared(plain, self.builds[plain.model]).outputs()
        return self.outputs[plain]

    def clear(self) -> None:
        self.outputs.clear()


def describe(variant: Variant) -> str:
    """The model, and what is not usual about the way it runs."""
    usual = 'deploy' if variant.mode == 'forward' else 'train'
    parts = [
        f'{variant.form} form' if variant.form != usual else '',
        variant.layout if variant.layout != 'NCHW' else '',
        'compiled' if variant.compiled else '',
        f'depthwise {variant.implementation}' if variant.implementation != 'auto' else '',
        variant.setting,
    ]
    return ', '.join([variant.model, *(part for part in parts if part)])


def _nothing_compiled() -> contextlib.AbstractContextManager:
    """Within it, a first call compiles everything, also where an earlier run left its files."""
    from torch._inductor.utils import fresh_cache  # takes a second to import

    return fresh_cache()


def _release_memory(device: str) -> None:
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    """Why a variant is left out: whatever a model of somebody else's raises, in a line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0][:200] if lines else "no message"}'
