"""From a config, a checkpoint and files to predictions: what is behind `tools/predict.py`.

Files go through the very pipeline, batches and model that `tools/test.py` tests with, and so get the same
predictions; only annotations are left out.
"""

import functools
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.registry import DATASETS, FUNCTIONS
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from unireplknet_mm.configuration import classes_of_heads, innermost_datasets, type_name
from unireplknet_mm.engine.loading import load_for_test
from unireplknet_mm.errors import UserError
from unireplknet_mm.launch.channels import check_channels
from unireplknet_mm.launch.folding import build_model
from unireplknet_mm.launch.mistakes import explain_mistakes
from unireplknet_mm.launch.preflight import input_channels
from unireplknet_mm.modalities import images  # noqa: F401  (registers them)
from unireplknet_mm.modalities.inputs import InputKind
from unireplknet_mm.modalities.predictions import (
    InstancePrediction,
    Labels,
    Part,
    Prediction,
    Span,
    mean_of_parts,
    prediction_type,
)
from unireplknet_mm.models.whole_model import switch_to_deploy
from unireplknet_mm.weights.reading import CheckpointError, load_checkpoint

DEFAULT_SCORE_THR = 0.3  # of boxes; what the toolboxes draw from


class Failure(NamedTuple):
    """An input of which nothing came, and why, in a line."""

    path: Path
    reason: str


class Result(NamedTuple):
    """An input, what the test pipeline made of it, and what the model returned, on the CPU; and its parts."""

    path: Path
    inputs: Tensor
    sample: Any
    parts: Sequence[Part] = ()


class Divided(NamedTuple):
    """Parts of one input, each predicted: where they lie, their inputs, stacked, and what else they have.

    One tensor of all: of each that comes from a worker process a file remains open.
    """

    spans: Sequence[Span]
    inputs: Tensor
    samples: Sequence[dict[str, Any]]


def test_pipeline(cfg: Config) -> list[dict]:
    """The test pipeline of a config without the transforms that load annotations.

    Raises:
        UserError: the config's test data set has no pipeline.
    """
    datasets = innermost_datasets(cfg.test_dataloader.dataset)
    pipeline = next((dataset['pipeline'] for dataset in datasets if dataset.get('pipeline')), None)
    if pipeline is None:
        raise UserError(f'the test data set of {cfg.filename} has no pipeline to read files with.')
    return [transform for transform in pipeline if not _loads_annotations(transform)]


def _loads_annotations(transform: dict) -> bool:
    name = type_name(transform)
    return name.startswith('Load') and 'Annotation' in name


def load_model(cfg: Config, checkpoint: str, deploy: bool) -> tuple[nn.Module, Mapping[str, Any]]:
    """The model of a config with the weights of a checkpoint, ready to predict, and the checkpoint's meta.

    Args:
        deploy: fold the re-parameterization; a checkpoint in the deploy form is folded anyway.

    Raises:
        UserError: the checkpoint cannot be read, does not fit, or leaves a part of the model with random
            weights; or weights are not finite.
    """
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = build_model(cfg)
    check_channels(model, input_channels(cfg, model), cfg.model)
    content = load_checkpoint(checkpoint)
    try:
        load_for_test(model, content)
        check_finite(model)
    except CheckpointError as error:
        raise CheckpointError(f'checkpoint {checkpoint}: {error}') from None
    if deploy:
        switch_to_deploy(model)
    return model.to(get_device()).eval(), content.get('meta') or {}


def check_finite(model: nn.Module) -> None:
    """See that the weights of a model are numbers, without which its predictions are none.

    Raises:
        CheckpointError: they are not.
    """
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise CheckpointError(
                f'{name} has values that are not finite (NaN or infinite): its training went wrong, take an '
                'earlier checkpoint.'
            )


def find_labels(cfg: Config, meta: Mapping[str, Any]) -> Labels:
    """The classes: as the checkpoint names them, else the config, else the data set's class; else none.

    Names that are not as many as the head has classes are of something else.
    """
    counts = classes_of_heads(cfg.model)
    for source in _label_sources(cfg, meta):
        names = source.get('classes')
        if isinstance(names, list | tuple) and names and (not counts or len(names) in counts):
            palette = source.get('palette')
            if palette is None or isinstance(palette, str):  # mmdet's 'random'
                return Labels(list(names))
            return Labels(list(names), [tuple(map(int, color)) for color in palette])
    return Labels()


def _label_sources(cfg: Config, meta: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    former = {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}  # of mmcv 1
    yield {str(key).lower(): value for key, value in (meta.get('dataset_meta') or former).items()}
    dataset = next(innermost_datasets(cfg.test_dataloader.dataset))
    yield dataset.get('metainfo') or {}
    try:
        yield DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True}).metainfo
    except Exception:  # it looks for its files; what it knows without them, its class knows
        yield getattr(DATASETS.get(dataset['type']), 'METAINFO', {})


class InputDataset(Dataset):
    """Samples of files by a test pipeline; of a file that cannot be read, a `Failure`.

    What is longer than the network's input may be `Divided`, if its kind knows how.

    Raises:
        UserError: the pipeline misspells a transform or an argument.
    """

    def __init__(
        self, paths: Sequence[Path], kind: InputKind, pipeline: Sequence[dict], cfg: Config
    ):
        self.paths = paths
        self.kind = kind
        with explain_mistakes(cfg):
            self.transforms = kind.unfold(Compose(pipeline).transforms)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any] | Divided | Failure:
        path = self.paths[index]
        if not os.access(path, os.R_OK):
            problem = 'may not be read' if path.exists() else 'leads to nothing'
            return Failure(path, f'it {problem}')
        if not path.is_dir() and not path.is_file():
            return Failure(path, 'it is no file')
        if path.is_file() and path.stat().st_size == 0:
            return Failure(path, 'the file is empty')
        try:
            damage = self.kind.find_damage(path)
            sample = self.kind.sample(path, index)
        except UserError as error:
            damage = str(error)
        if damage:
            return Failure(path, f'it cannot be read: {damage}')
        for number, transform in enumerate(self.transforms):
            if parts := self.kind.divide(sample, transform):
                rest = self.transforms[number:]
                samples = [self._apply(path, part, rest) for _, part in parts]
                failures = [sample for sample in samples if isinstance(sample, Failure)]
                if failures:
                    return failures[0]
                inputs = torch.stack([sample.pop('inputs') for sample in samples])
                return Divided([span for span, _ in parts], inputs, samples)
            sample = self._apply(path, sample, [transform])
            if isinstance(sample, Failure):
                return sample
        return sample

    def _apply(
        self, path: Path, sample: dict[str, Any], transforms: Sequence[Callable]
    ) -> dict[str, Any] | Failure:
        for transform in transforms:
            try:
                sample = transform(sample)
            except UserError as error:
                return Failure(path, summarize(error))
            except Exception as error:  # whatever a library says of a damaged file
                return Failure(path, f'{type(transform).__name__} fails on it: {summarize(error)}')
            if sample is None:
                return Failure(path, f'{type(transform).__name__} makes nothing of it')
        if transforms[-1] is self.transforms[-1] and not all(
            part.isfinite().all() for part in _tensors(sample['inputs'])
        ):
            return Failure(path, 'it holds values that are not finite (NaN or infinite)')
        return sample


def _tensors(inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def summarize(error: Exception) -> str:
    """An exception in a line: what it says, and of one that nobody raised for users, where it was raised."""
    text = ' '.join(str(error).split())
    text = f'{text[:200]} ...' if len(text) > 200 else text
    if isinstance(error, UserError | OSError) and text:
        return text
    *_, frame = traceback.extract_tb(error.__traceback__)
    place = f'{Path(frame.filename).name}, line {frame.lineno}'
    return (
        f'{type(error).__name__}: {text} ({place})' if text else f'{type(error).__name__} ({place})'
    )


class Predictor:
    """Runs a model over inputs as `tools/test.py` does.

    Args:
        model: on its device, in evaluation mode.
        cfg: its config, of which `test_dataloader` says how samples become batches.
        batch_size: default: the config's.
    """

    def __init__(self, model: nn.Module, cfg: Config, batch_size: int | None = None):
        loader = cfg.test_dataloader
        self.model = model
        self.batch_size = batch_size or loader.get('batch_size') or 1
        self.num_workers = loader.get('num_workers') or 0
        self.collate = _collate_function(loader)
        self.uses_autocast = bool((cfg.get('test_cfg') or {}).get('fp16'))
        # Detectors take images of several sizes in a batch; what others make of them, if they take them,
        # would depend on the other images.
        self.mixes_sizes = cfg.get('default_scope') == 'mmdet'

    def __call__(self, dataset: InputDataset) -> Iterator[Result | Failure]:
        """Results, or failures, in the order of the inputs."""
        workers = min(self.num_workers, (len(dataset) - 1) // self.batch_size)
        samples = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=_unchanged)
        waiting: list[tuple[Path, dict]] = []
        for path, sample in zip(dataset.paths, samples, strict=True):
            if isinstance(sample, Failure | Divided):
                yield from self._predict(waiting)
                waiting = []
                yield self._predict_parts(path, sample) if isinstance(sample, Divided) else sample
                continue
            if waiting and not self.mixes_sizes and _size(waiting[0][1]) != _size(sample):
                yield from self._predict(waiting)
                waiting = []
            waiting.append((path, sample))
            if len(waiting) == self.batch_size:
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    @torch.no_grad()
    def _run(self, samples: list[dict]) -> list[Any]:
        device = get_device().partition(':')[0]
        with torch.autocast(device, enabled=self.uses_autocast):
            return [sample.cpu() for sample in self.model.test_step(self.collate(samples))]

    def _predict(self, batch: list[tuple[Path, dict]]) -> Iterator[Result | Failure]:
        """A batch at once, or where the model does not take all of it, each alone."""
        if not batch:
            return
        try:
            outputs = self._run([sample for _, sample in batch])
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    yield from self._predict([one])
                return
            yield Failure(batch[0][0], f'the model fails on it: {summarize(error)}')
            return
        for (path, sample), output in zip(batch, outputs, strict=True):
            yield Result(path, sample['inputs'], output)

    def _predict_parts(self, path: Path, divided: Divided) -> Result | Failure:
        """The parts of one input, by batches, and their mean."""
        samples = [
            (path, dict(sample, inputs=inputs))
            for sample, inputs in zip(divided.samples, divided.inputs, strict=True)
        ]
        results: list[Result] = []
        for start in range(0, len(samples), self.batch_size):
            for outcome in self._predict(samples[start : start + self.batch_size]):
                if isinstance(outcome, Failure):
                    return outcome
                results.append(outcome)
        mean = mean_of_parts([result.sample for result in results], self.model.head)
        parts = [
            Part(span, result.inputs, result.sample)
            for span, result in zip(divided.spans, results, strict=True)
        ]
        return Result(path, results[0].inputs, mean, parts)


def _unchanged(sample: Any) -> Any:
    return sample


def _collate_function(loader: dict) -> Callable:
    """As MMEngine's runner builds it."""
    config = loader.get('collate_fn') or dict(type='pseudo_collate')
    if not isinstance(config, dict):
        return config
    arguments = {key: value for key, value in config.items() if key != 'type'}
    kind = config['type']
    return functools.partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **arguments)


def _size(sample: dict) -> list[torch.Size]:
    return [part.shape for part in _tensors(sample['inputs'])]


def read_result(
    result: Result, labels: Labels, top: int | None, score_thr: float | None
) -> Prediction | Failure:
    """What a model returned, as a prediction of its kind; NaN, which is none, as a failure.

    Args:
        score_thr: default: 0.3 for boxes, 0 for classes.

    Raises:
        UserError: it is of another kind than is read here.
    """
    kind = prediction_type(result.sample)
    if score_thr is None:
        score_thr = DEFAULT_SCORE_THR if kind is InstancePrediction else 0.0
    prediction = kind(
        result.path, result.inputs, result.sample, labels, top, score_thr, result.parts
    )
    if not prediction.scores.isfinite().all():
        return Failure(result.path, "the model's scores are not finite (NaN or infinite)")
    return prediction
