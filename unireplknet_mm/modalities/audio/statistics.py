"""What `tools/audio_data.py` measures: mean and deviation of a data set's log-mel values, and its loader."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.audio.filterbank import STEP_SECONDS, LogMel
from unireplknet_mm.modalities.audio.recordings import RecordingError

Progress = Callable[[str], None]
PLAIN = (
    'LoadRecording',
    'TrimSilence',
    'NormalizeLevel',
    'LogMel',
)  # nothing random, nothing padded


class Statistics(NamedTuple):
    """Of log-mel values: `recordings` in number, `seconds` of sound, and how many cannot be used."""

    mean: float
    std: float
    recordings: int
    seconds: float
    unusable: int


class Speed(NamedTuple):
    """Of a loader: `batches` of `recordings` in all, and the sound that they last, in `seconds` of time.

    `cpu_seconds` is what this process computed in them, not its workers.
    """

    batches: int
    recordings: int
    audio_seconds: float
    seconds: float
    cpu_seconds: float


def plain_pipeline(cfg: Config) -> list[dict]:
    """A config's test pipeline from loading to the filterbank, with which statistics are taken.

    Raises:
        ArgumentError: there is none.
    """
    steps = [
        step
        for step in find_dicts(cfg.test_dataloader.dataset.pipeline)
        if type_name(step) in PLAIN
    ]
    names = [type_name(step) for step in steps]
    if names[:1] != [PLAIN[0]] or names[-1:] != [PLAIN[-1]] or len(set(names)) < len(names):
        raise ArgumentError(
            f'{cfg.filename} is not of audio: its test pipeline has not LoadRecording and LogMel, one each'
        )
    return [{**steps[0], 'skip_unusable': False, 'silence_unusable': False}, *steps[1:]]


def measure_statistics(
    cfg: Config, most: int | None = None, progress: Progress = lambda text: None
) -> Statistics:
    """Mean and standard deviation over all values of the training recordings, without padding.

    Recordings that cannot be used are left out, with a warning each.

    Args:
        cfg: a config of audio; its training data are read, without their augmentation.
        most: recordings, evenly spread over the data set; None takes all.

    Raises:
        RecordingError: none can be used.
    """
    pipeline = Compose(plain_pipeline(cfg))
    bank = next(t for t in pipeline.transforms if isinstance(t, LogMel))
    dataset = _build_dataset(cfg)
    count = min(len(dataset), most or len(dataset))
    total = squares = 0.0
    values = frames = unusable = 0
    for i in range(count):
        try:
            results = pipeline(dataset.get_data_info(i * len(dataset) // count))
        except RecordingError as error:
            unusable += 1
            if unusable == count:
                raise
            print_log(f'{error}. It does not count.', logger='current', level=logging.WARNING)
            continue
        log_mel = bank.undo(results['spectrogram']).double()
        total += log_mel.sum().item()
        squares += log_mel.square().sum().item()
        values += log_mel.numel()
        frames += len(log_mel)
        progress(f'{i + 1} of {count} recordings')
    mean = total / values
    std = max(0.0, squares / values - mean**2) ** 0.5
    return Statistics(mean, std, count - unusable, frames * STEP_SECONDS, unusable)


def _build_dataset(cfg: Config) -> Dataset:
    loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    return Runner.build_dataloader(loader).dataset


def measure_speed(
    loader: DataLoader, batches: int, progress: Progress = lambda text: None
) -> Speed:
    """How fast a loader gives batches, once its workers have given the first ones.

    What the workers prepared while the first batch was waited for would count as taken in no time: as many
    batches as they hold are taken before the clock starts.

    Raises:
        ArgumentError: the loader gives no batch.
    """
    prepared = 1 + loader.num_workers * (loader.prefetch_factor or 0)
    taken = recordings = 0
    audio_seconds, start = 0.0, None
    while True:
        before = taken
        for batch in loader:
            taken += 1
            if start is not None:
                recordings += len(batch['inputs'])
                audio_seconds += _seconds(batch['data_samples'])
                progress(f'{taken - prepared} of {batches} batches')
            if taken == prepared:
                start, cpu_start = time.perf_counter(), time.process_time()
            if taken == prepared + batches:
                seconds = time.perf_counter() - start
                cpu_seconds = time.process_time() - cpu_start
                return Speed(batches, recordings, audio_seconds, seconds, cpu_seconds)
        if taken == before:
            raise ArgumentError(
                'the training loader gives no batch: there are fewer recordings than batch_size, and '
                'drop_last=True leaves them out; set a smaller train_dataloader.batch_size'
            )


def _seconds(samples: Sequence) -> float:
    return STEP_SECONDS * sum(sample.num_frames for sample in samples)
