"""Recordings, for `tools/predict.py`: read by the config's test pipeline, drawn with their spectrogram."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.modalities.audio.drawing import draw_recording
from unireplknet_mm.modalities.audio.filterbank import STEP_SECONDS
from unireplknet_mm.modalities.audio.recordings import SUFFIXES
from unireplknet_mm.modalities.inputs import INPUT_KINDS, InputKind
from unireplknet_mm.modalities.predictions import ClassPrediction, Prediction


@INPUT_KINDS.register_module()
class Recordings(InputKind):
    """Files of sound, in any format that soundfile reads."""

    name = 'recordings'
    loaders = ('LoadRecording', 'Cached')
    suffixes = SUFFIXES

    def sample(self, path: Path, index: int) -> dict[str, Any]:
        return dict(recording_path=str(path), sample_idx=index)

    def find_restriction(self, prediction: Prediction) -> str | None:
        heard, there_are = len(prediction.inputs), prediction.sample.get('num_frames', 0)
        if heard >= there_are:
            return None
        return (
            f'judged by {heard * STEP_SECONDS:.2f} of its {there_are * STEP_SECONDS:.2f} s, which the test '
            'pipeline leaves of it; cut it into parts to hear the rest'
        )

    def draw(
        self, prediction: ClassPrediction, transforms: Sequence[Any], config: dict
    ) -> np.ndarray:
        load = _find_loader(transforms)
        loaded = load(self.sample(prediction.path, 0))
        return draw_recording(
            loaded['waveform'],
            loaded['sample_rate'],
            prediction.inputs.cpu(),
            prediction.lines(),
            prediction.path.name,
        )


def _find_loader(transforms: Sequence[Any]) -> Any:
    """The transform that reads the recording, which `Cached` may hold."""
    for transform in transforms:
        if type(transform).__name__ == 'LoadRecording':
            return transform
        if type(transform).__name__ == 'Cached':
            return _find_loader(transform.pipeline.transforms)
    raise LookupError('no LoadRecording')  # find_kind has seen one
