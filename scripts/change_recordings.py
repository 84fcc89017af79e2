"""How well a classifier of recordings bears what other speakers, rooms and recorders do to them.

python scripts/change_recordings.py CONFIG CHECKPOINT --cfg-options test_dataloader.dataset.data_root=DIR

Prints a row of a table a change, with the accuracy.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.registry import DATASETS, TRANSFORMS
from torch import Tensor, nn

from unireplknet_mm.launch import load_config
from unireplknet_mm.launch.predicting import load_model
from unireplknet_mm.modalities.audio.voices import shift_formants, shift_pitch, stretch
from unireplknet_mm.modalities.audio.waveforms import add_at_ratio, change_length

BATCH_SIZE = 50
Change = Callable[[Tensor, int], Tensor]  # of a waveform and its sample rate


def noise(length: int, exponent: float) -> Tensor:
    """Noise whose power falls as 1 / f**exponent."""
    spectrum = np.fft.rfft(np.random.standard_normal(length))
    spectrum *= np.arange(1, len(spectrum) + 1) ** (-exponent / 2)
    return torch.from_numpy(np.fft.irfft(spectrum, length).astype(np.float32))


def filtered(waveform: Tensor, gains: Callable[[np.ndarray], np.ndarray], rate: int) -> Tensor:
    """With a gain in decibels of each frequency in Hz."""
    hertz = np.fft.rfftfreq(len(waveform), 1 / rate)
    spectrum = np.fft.rfft(waveform.numpy()) * 10 ** (gains(hertz) / 20)
    return torch.from_numpy(np.fft.irfft(spectrum, len(waveform)).astype(np.float32))


def tilted(waveform: Tensor, rate: int, slope: float) -> Tensor:
    return filtered(waveform, lambda hertz: slope * np.log2(hertz.clip(50) / 1000), rate)


def by_telephone(waveform: Tensor, rate: int) -> Tensor:
    return filtered(waveform, lambda f: np.where((f < 300) | (f > 3400), -30.0, 0.0), rate)


def silent(rate: int, seconds: float) -> Tensor:
    return 1e-4 * noise(round(rate * seconds), 0.0)


def resampled(waveform: Tensor, rate: int, other: int) -> Tensor:
    """At another rate and back."""
    between = change_length(waveform, round(len(waveform) * other / rate))
    return change_length(between, len(waveform))


CHANGES: dict[str, Change] = {
    'none': lambda x, rate: x,
    '20 dB softer': lambda x, rate: 0.1 * x,
    '20 dB louder, clipped': lambda x, rate: (10 * x).clamp(-1, 1),
    'a second of silence before it': lambda x, rate: torch.cat([silent(rate, 1), x]),
    'a second of silence on either side': lambda x, rate: torch.cat(
        [silent(rate, 1), x, silent(rate, 1)]
    ),
    'pink noise, 20 dB': lambda x, rate: add_at_ratio(x, noise(len(x), 1.0), 20),
    'pink noise, 10 dB': lambda x, rate: add_at_ratio(x, noise(len(x), 1.0), 10),
    'white noise, 10 dB': lambda x, rate: add_at_ratio(x, noise(len(x), 0.0), 10),
    'treble raised, 3 dB an octave': lambda x, rate: tilted(x, rate, 3),
    'treble lowered, 3 dB an octave': lambda x, rate: tilted(x, rate, -3),
    'telephone, 300 to 3400 Hz': by_telephone,
    'recorded at 6 kHz': lambda x, rate: resampled(x, rate, 6000),
    'pitch of 1.5 times': lambda x, rate: shift_pitch(x, 1.5, rate),
    'pitch of 0.8 times': lambda x, rate: shift_pitch(x, 0.8, rate),
    'formants of 1.15 times': lambda x, rate: shift_formants(x, 1.15, rate),
    'formants of 0.87 times': lambda x, rate: shift_formants(x, 0.87, rate),
    'pitch of 1.7, formants of 1.17 times': lambda x, rate: shift_formants(
        shift_pitch(x, 1.7, rate), 1.17, rate
    ),
    '1.4 times as fast': lambda x, rate: stretch(x, round(len(x) / 1.4), rate),
    '1.4 times as slow': lambda x, rate: stretch(x, round(len(x) * 1.4), rate),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE')
    return parser.parse_args()


@torch.no_grad()
def accuracy(model: nn.Module, change: Change, loaded: Sequence[dict], rest: Sequence) -> float:
    """In percent, of `loaded` recordings, each changed before the `rest` of the test pipeline."""
    np.random.seed(0)
    hits = 0
    for start in range(0, len(loaded), BATCH_SIZE):
        inputs, samples = [], []
        for results in loaded[start : start + BATCH_SIZE]:
            changed = change(results['waveform'], results['sample_rate'])
            packed = {**results, 'waveform': changed}
            for transform in rest:
                packed = transform(packed)
            inputs.append(packed['inputs'])
            samples.append(packed['data_samples'])
        for sample in model.test_step(dict(inputs=inputs, data_samples=samples)):
            hits += int(sample.pred_label == sample.gt_label)
    return 100 * hits / len(loaded)


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    model, _ = load_model(cfg, args.checkpoint, deploy=False)
    load, *rest = (TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline)
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': []})
    loaded = [load(dataset.get_data_info(index)) for index in range(len(dataset))]
    print('| change | accuracy |\n|---|---|', flush=True)
    for name, change in CHANGES.items():
        print(f'| {name} | {accuracy(model, change, loaded, rest):.1f} |', flush=True)


if __name__ == '__main__':
    main()
