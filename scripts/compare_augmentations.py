"""What each augmentation of the spoken digits brings to strangers: short trainings with and without each.

python scripts/compare_augmentations.py --data-root data/spoken_digits/recordings --out augmentations.jsonl

A training is on four of the five speakers, and is tested on the fifth, whom it has not heard. Every variant
is trained for each stranger with the same seeds, so that what differs between strangers drops out of the
differences to the config as it is. Each accuracy is written to a line of `--out` at once, and what
is there is not trained again: stop it whenever you like, and call it again to go on. Prints the table of what
is there.
"""

import argparse
import copy
import functools
import json
import logging
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from unireplknet_mm.configuration import type_name

CONFIG = (
    Path(__file__).resolve().parents[1] / 'configs/custom/unireplknet_spoken_digits_stranger.py'
)
SPEAKERS = ('george', 'jackson', 'lucas', 'nicolas', 'theo')
STEPS = dict(
    speed=('RandomSpeed',),
    pitch=('RandomPitch',),
    formants=('RandomFormants',),
    noise=('RandomNoise',),
    gain=('RandomGain',),
    masks=('MaskFrequencies', 'MaskFrames'),
)
ALL = 'all'
LEFT_OUT = {
    ALL: (),
    'none of the six': sum(STEPS.values(), ()),
    **{f'without {name}': steps for name, steps in STEPS.items()},
}
WITH_FILTER = 'with RandomFilter'
WITH_MIXUP = 'with mixup'
MIXUP = dict(augments=[dict(type='Mixup', alpha=0.4)], probs=[0.5])
VARIANTS = (*LEFT_OUT, WITH_FILTER, WITH_MIXUP)

Run = tuple[str, str, int, int]  # variant, stranger, seed, epochs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data-root', default='data/spoken_digits/recordings')
    parser.add_argument('--out', type=Path, required=True, help='JSON lines, one a training')
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--strangers', nargs='+', choices=SPEAKERS, default=SPEAKERS)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument(
        '--variants', nargs='+', choices=VARIANTS, default=VARIANTS, metavar='VARIANT'
    )
    parser.add_argument('--most', type=int, metavar='TRAININGS', help='then stop')
    parser.add_argument('--workers', type=int, default=0, help='processes of the loader')
    return parser.parse_args()


@functools.cache
def read_config() -> Config:
    return Config.fromfile(CONFIG)


def configure(run: Run, data_root: str, workers: int = 0) -> Config:
    """The config of a training: of a variant, tested on a speaker whom it has not heard."""
    variant, stranger, seed, epochs = run
    cfg = copy.deepcopy(read_config())
    cfg.pop('val_dataloader'), cfg.pop('val_evaluator'), cfg.pop('val_cfg')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.update(num_workers=workers, persistent_workers=workers > 0)
        loader.dataset.data_root = data_root
    cfg.train_dataloader.dataset['without'] = dict(speaker=[stranger])
    cfg.test_dataloader.dataset['only'] = dict(speaker=[stranger])
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs)
    cfg.param_scheduler[1].T_max = epochs
    cfg.default_hooks.checkpoint = None
    cfg.randomness = dict(seed=seed)
    cfg.log_level = 'ERROR'
    change(cfg, variant)
    return cfg


def change(cfg: Config, variant: str) -> None:
    """Leave out of a config what a variant does, or add it."""
    dataset = cfg.train_dataloader.dataset
    left_out = LEFT_OUT.get(variant, ())
    dataset.pipeline = [step for step in dataset.pipeline if type_name(step) not in left_out]
    if variant == WITH_FILTER:
        place = [type_name(step) for step in dataset.pipeline].index('RandomNoise')
        dataset.pipeline.insert(place, dict(type='RandomFilter', prob=0.8))
    elif variant == WITH_MIXUP:
        cfg.model.train_cfg = MIXUP


def train_and_test(cfg: Config, name: str) -> float:
    """The accuracy on the stranger, in percent, of the weights after the last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.experiment_name = name
        runner = Runner.from_cfg(cfg)
        runner.train()
        scores = runner.test()
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    return scores['accuracy/top1']


def read(path: Path) -> dict[Run, float]:
    """The accuracies that are there."""
    accuracies = {}
    for line in path.read_text('utf-8').splitlines() if path.is_file() else ():
        kept = json.loads(line)
        run = (kept['variant'], kept['stranger'], kept['seed'], kept['epochs'])
        accuracies[run] = kept['accuracy']
    return accuracies


def append(path: Path, run: Run, accuracy: float) -> None:
    variant, stranger, seed, epochs = run
    line = dict(variant=variant, stranger=stranger, seed=seed, epochs=epochs, accuracy=accuracy)
    with open(path, 'a', encoding='utf-8') as stream:
        stream.write(json.dumps(line) + '\n')


def wanted(args: argparse.Namespace) -> Iterator[Run]:
    """All variants of a stranger one after the other, so that what is there can be compared at any time."""
    for seed in args.seeds:
        for stranger in args.strangers:
            for variant in args.variants:
                yield variant, stranger, seed, args.epochs


def compared(
    accuracies: Mapping[Run, float], variant: str, epochs: int
) -> list[tuple[str, float, float]]:
    """Of each training that `all` has too: the stranger, the accuracy, how much better it is."""
    found = []
    for (name, stranger, seed, of_epochs), accuracy in accuracies.items():
        reference = accuracies.get((ALL, stranger, seed, epochs))
        if (name, of_epochs) == (variant, epochs) and reference is not None:
            found.append((stranger, accuracy, accuracy - reference))
    return found


def difference(found: Sequence[tuple[str, float, float]]) -> tuple[float, float]:
    """The mean over strangers, of which seeds are repetitions, and its standard error; NaN of one."""
    by_stranger = defaultdict(list)
    for stranger, _, better in found:
        by_stranger[stranger].append(better)
    means = [statistics.mean(values) for values in by_stranger.values()]
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else float('nan')
    return statistics.mean(means), error


def table(accuracies: Mapping[Run, float], epochs: int) -> list[str]:
    """Lines in Markdown."""
    lines = [
        '| variant | trainings | accuracy | difference to all | standard error |',
        '|---|---|---|---|---|',
    ]
    for variant in VARIANTS:
        found = compared(accuracies, variant, epochs)
        if not found:
            continue
        accuracy = statistics.mean(accuracy for _, accuracy, _ in found)
        mean, error = difference(found)
        differs = '| | |' if variant == ALL else f'| {mean:+.1f} | {error:.1f} |'
        lines.append(f'| {variant} | {len(found)} | {accuracy:.1f} {differs}')
    return lines


def main() -> None:
    args = parse_args()
    accuracies = read(args.out)
    for run in islice((run for run in wanted(args) if run not in accuracies), args.most):
        cfg = configure(run, args.data_root, args.workers)
        accuracy = train_and_test(cfg, '_'.join([*run[0].split(), run[1], str(run[2])]))
        append(args.out, run, accuracy)
    print('\n'.join(table(read(args.out), args.epochs)), flush=True)


if __name__ == '__main__':
    main()
