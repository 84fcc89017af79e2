"""Recordings, for `tools/predict.py`: read by the config's test pipeline, drawn with their spectrogram."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unireplknet_mm.modalities.audio.caching import Cached
from unireplknet_mm.modalities.audio.drawing import draw_recording
from unireplknet_mm.modalities.audio.filterbank import STEP_SECONDS
from unireplknet_mm.modalities.audio.recordings import SUFFIXES
from unireplknet_mm.modalities.audio.spectrograms import FitFrames
from unireplknet_mm.modalities.inputs import INPUT_KINDS, InputKind
from unireplknet_mm.modalities.predictions import ClassPrediction, Prediction, Span


@INPUT_KINDS.register_module()
class Recordings(InputKind):
    """Files of sound, in any format that soundfile reads."""

    name = 'recordings'
    loaders = ('LoadRecording', 'Cached')
    suffixes = SUFFIXES

    def sample(self, path: Path, index: int) -> dict[str, Any]:
        return dict(recording_path=str(path), sample_idx=index)

    def unfold(self, transforms: Sequence[Any]) -> list[Any]:
        """`Cached` with `FitFrames` in it as what it holds: the cache has only what `FitFrames` left.

        Other caches stay what they are, and are used.
        """
        unfolded = []
        for transform in transforms:
            held = (
                self.unfold(transform.pipeline.transforms) if isinstance(transform, Cached) else []
            )
            cuts = any(isinstance(part, FitFrames) for part in held)
            unfolded += held if cuts else [transform]
        return unfolded

    def divide(self, sample: dict[str, Any], transform: Any) -> list[tuple[Span, dict[str, Any]]]:
        """A spectrogram longer than `FitFrames` leaves it: as few windows as cover it, evenly spread."""
        if not isinstance(transform, FitFrames):
            return []
        spectrogram, size = sample['spectrogram'], transform.num_frames
        room = len(spectrogram) - size
        if room <= 0:
            return []
        offset = sample.get('offset', 0.0)
        starts = np.linspace(0, room, 1 + math.ceil(room / size)).round().astype(int).tolist()
        return [
            (
                Span(offset + start * STEP_SECONDS, offset + (start + size) * STEP_SECONDS),
                {**sample, 'spectrogram': spectrogram[start : start + size], 'num_frames': size},
            )
            for start in starts
        ]

    def explain(self, prediction: Prediction) -> str | None:
        if not prediction.parts:
            return None
        (start, end), last = prediction.parts[0].span, prediction.parts[-1].span
        return (
            f'longer than the {end - start:.2f} s of an input: the mean of {len(prediction.parts)} parts '
            f'from {start:.2f} to {last.end:.2f} s'
        )

    def draw(
        self, prediction: ClassPrediction, transforms: Sequence[Any], config: dict
    ) -> np.ndarray:
        """Waveform, spectrogram and classes; of parts the whole spectrogram, with the best class of each."""
        loaded = _find_loader(transforms)(self.sample(prediction.path, 0))
        parts, spectrogram = prediction.parts, prediction.inputs.cpu()
        if parts:
            spectrogram = _join([(part.span, part.inputs.cpu()) for part in parts])
        return draw_recording(
            loaded['waveform'],
            loaded['sample_rate'],
            spectrogram,
            prediction.lines(),
            prediction.path.name,
            [(part.span.start, name) for part, name in prediction.best_of_parts()],
        )


def _join(parts: Sequence[tuple[Span, Tensor]]) -> Tensor:
    """The (T, F) whole of which (t, F) windows are parts; where they overlap, the later one counts."""
    beginning, (last, inputs) = parts[0][0].start, parts[-1]
    whole = inputs.new_zeros(round((last.end - beginning) / STEP_SECONDS), inputs.shape[1])
    for span, inputs in parts:
        start = round((span.start - beginning) / STEP_SECONDS)
        whole[start : start + len(inputs)] = inputs
    return whole


def _find_loader(transforms: Sequence[Any]) -> Any:
    """The transform that reads the recording, which `Cached` may hold."""
    for transform in transforms:
        if type(transform).__name__ == 'LoadRecording':
            return transform
        if type(transform).__name__ == 'Cached':
            return _find_loader(transform.pipeline.transforms)
    raise LookupError('no LoadRecording')  # find_kind has seen one
