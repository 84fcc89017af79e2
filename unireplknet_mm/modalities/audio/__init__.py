"""Audio: recordings -> normalised log-mel spectrograms -> (B, 1, T, F) maps (paper, §3.3, Eq. 3).

Importing it registers its parts in MMEngine's registries. The order of a pipeline:

    LoadRecording          a file, or a part of one, as a mono waveform
    RandomSpeed, ...       what changes the waveform (`waveforms.py`, `voices.py`)
    LogMel                 Kaldi's filterbank, normalised: from here on 0 is the mean of the data set
    FitFrames, ...         what changes the spectrogram (`spectrograms.py`)
    PackRecording          what the classifier takes
"""

from unireplknet_mm.errors import MissingPackageError

try:
    import scipy  # noqa: F401
    import soundfile  # noqa: F401
    import torchaudio  # noqa: F401
except (ImportError, OSError) as error:  # soundfile without its library is an OSError
    raise MissingPackageError(
        f"audio needs scipy, soundfile and torchaudio ({error}): pip install 'unireplknet-mm[audio]'"
    ) from error

from unireplknet_mm.modalities.audio.audioset import AudioSet
from unireplknet_mm.modalities.audio.caching import Cached
from unireplknet_mm.modalities.audio.embedding import SpectrogramMap
from unireplknet_mm.modalities.audio.esc50 import ESC50
from unireplknet_mm.modalities.audio.filterbank import LogMel
from unireplknet_mm.modalities.audio.folder import RecordingFolder
from unireplknet_mm.modalities.audio.levels import NormalizeLevel, TrimSilence
from unireplknet_mm.modalities.audio.prediction import Recordings
from unireplknet_mm.modalities.audio.recordings import LoadRecording, read_recording
from unireplknet_mm.modalities.audio.replaced import ReplacedRecordings
from unireplknet_mm.modalities.audio.sampling import BalancedSampler
from unireplknet_mm.modalities.audio.spectrograms import (
    FitFrames,
    MaskFrames,
    MaskFrequencies,
    PackRecording,
    RandomRoll,
    RandomSpectrogramNoise,
)
from unireplknet_mm.modalities.audio.speech_commands import SpeechCommands
from unireplknet_mm.modalities.audio.voices import RandomFormants, RandomPitch
from unireplknet_mm.modalities.audio.waveforms import (
    CropSegment,
    RandomBackground,
    RandomFilter,
    RandomGain,
    RandomNoise,
    RandomSegment,
    RandomSpeed,
)
from unireplknet_mm.modalities.classifier import ModalityClassifier

__all__ = [
    'ESC50',
    'AudioSet',
    'BalancedSampler',
    'Cached',
    'CropSegment',
    'FitFrames',
    'LoadRecording',
    'LogMel',
    'MaskFrames',
    'MaskFrequencies',
    'ModalityClassifier',
    'NormalizeLevel',
    'PackRecording',
    'RandomBackground',
    'RandomFilter',
    'RandomFormants',
    'RandomGain',
    'RandomNoise',
    'RandomPitch',
    'RandomRoll',
    'RandomSegment',
    'RandomSpectrogramNoise',
    'RandomSpeed',
    'RecordingFolder',
    'Recordings',
    'ReplacedRecordings',
    'SpectrogramMap',
    'SpeechCommands',
    'TrimSilence',
    'read_recording',
]
