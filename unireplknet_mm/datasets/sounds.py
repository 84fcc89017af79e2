"""Sounds that a label can be heard from, computed, and wav files; what demo data of audio are made of."""

import wave
from pathlib import Path

import numpy as np

HARMONICS = 8


def draw_sound(
    rng: np.random.Generator, label: int, seconds: float, sample_rate: int
) -> np.ndarray:
    """A tone of harmonics that glides and beats, over faint noise: (samples,) numbers from -1 to 1.

    The label decides from which pitch to which it glides and how fast it beats; phase, loudness, timbre and
    the noise are drawn.
    """
    count = round(seconds * sample_rate)
    time = np.arange(count) / sample_rate
    first, last = 150 * 2 ** (label % 7 / 7), 150 * 2 ** (label // 7 % 7 / 7)
    pitch = np.linspace(first, last, count)  # Hz
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    tone = sum(
        rng.uniform(0.5, 1) / k * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
        for k in range(1, HARMONICS + 1)
    )
    beat = 1 + 0.5 * np.sin(2 * np.pi * (2 + label % 5) * time + rng.uniform(0, 2 * np.pi))
    sound = tone * beat + 0.05 * rng.standard_normal(count)
    return rng.uniform(0.2, 0.8) * sound / np.abs(sound).max()


def draw_noise(rng: np.random.Generator, seconds: float, sample_rate: int) -> np.ndarray:
    return 0.1 * rng.uniform(-1, 1, round(seconds * sample_rate))


def write_wav(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """(samples,) or (samples, channels) numbers from -1 to 1, as 16-bit PCM."""
    values = np.round(np.clip(samples, -1, 1) * 32767).astype('<i2')
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(values.tobytes())
