"""From a config and a checkpoint to a file that runs elsewhere: what is behind `tools/export.py`."""

import contextlib
import copy
import errno
import inspect
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor, nn

from unireplknet_mm.configuration import innermost_datasets, type_name
from unireplknet_mm.errors import UserError
from unireplknet_mm.export import (
    FORMATS,
    PRECISIONS,
    Comparison,
    Deployable,
    ExportError,
    Format,
    Runtime,
    find_deployable,
    find_format,
)
from unireplknet_mm.export.comparison import compare
from unireplknet_mm.export.deployable import Arrays
from unireplknet_mm.export.errors import first_line
from unireplknet_mm.export.formats import Settings
from unireplknet_mm.export.rewriting import (
    open_pools,
    record_pixel_decoders,
    wrap_convolutions,
    write_pointwise,
)
from unireplknet_mm.files import check_replaceable, create_folder, in_words, no_space_error
from unireplknet_mm.launch import folding, predicting
from unireplknet_mm.launch.mistakes import explain_mistakes
from unireplknet_mm.launch.preflight import check_data
from unireplknet_mm.launch.runner import build_runner, test
from unireplknet_mm.modalities.inputs import find_inputs, find_kind
from unireplknet_mm.models.whole_model import find_backbones
from unireplknet_mm.version import __version__

# Options of a kind's class, as the tool calls them.
MEANT_FOR = dict(
    logits='--logits is for segmenters',
    letterbox='--letterbox is for detectors',
    pasted_masks='--paste-masks is for detectors with masks',
)
WAYS_OUT = dict(
    letterbox=' Such models never saw padding: fit pictures in front of the file, as test_pipeline of the '
    'config does, or leave their size open with --dynamic size.',
)
Sample = tuple[str, Tensor]  # a name for messages, and an input as the file takes it, of one sample
# Inputs that ranges are measured on for int8; NNCF's own default is 300, which changed nothing here.
CALIBRATION_INPUTS = 64
WEIGHT_SIZES = dict(fp32=4, fp16=2, bf16=2, int8=1)  # in bytes; OpenVINO's bf16 are twice as many
GRAPH_SIZE = 2**23  # bytes that a graph, or its compiled code, may have besides


@dataclass
class Order:
    """What is to be written, and how.

    Attributes:
        format, precision, dynamic: of the file.
        path: of the file.
        shape: of one sample as the file takes it; where the size is open, of the one it is recorded with.
        folds: whether the re-parameterization is folded first.
        count: of inputs that are compared.
        forced: whether the file stays where it disagrees.
    """

    format: Format
    precision: str
    dynamic: Collection[str]
    path: Path
    shape: tuple[int, ...]
    folds: bool = True
    count: int = 20
    forced: bool = False


class Steps:
    """Says what is done and how long each step took.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.say(f'{name} ...')
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start

    def line(self) -> str:
        return 'Time: ' + ', '.join(f'{name} {took:.1f} s' for name, took in self.seconds.items())


def check_order(path: Path, format: Format, precision: str) -> None:
    """See that a file can be written there and in this format, before anything is built.

    Raises:
        UserError: it cannot.
    """
    longer = [other.suffix for other in FORMATS.values() if other.suffix.endswith(format.suffix)]
    others = ''.join(f', not {suffix}' for suffix in longer if suffix != format.suffix)
    if not str(path).endswith(format.suffix) or find_format(path) is not format:
        raise ExportError(
            f'--out {path}: a file of --format {format.name} ends with {format.suffix}{others}.'
        )
    format.check(precision)
    for part in format.parts(path):
        check_replaceable(part)
    create_folder(path.parent, '--out')


def load_deployable(
    cfg: Config, checkpoint: str, config: str, folds: bool, only_backbone: bool, **options: Any
) -> tuple[Deployable, dict[str, Any]]:
    """The model as one function, and what a file says of it.

    Args:
        config: the path of the config, for messages.
        folds: fold the re-parameterization, and see that nothing changes.
        only_backbone: its features alone.
        options: of the model's `Deployable`.

    Raises:
        UserError: the checkpoint does not fit, or there is no function of such a model.
    """
    model, meta = predicting.load_model(cfg, checkpoint, deploy=False)
    if folds and any(
        not getattr(network, 'deploy', False) for network in find_backbones(model).values()
    ):
        folding.fold(model, cfg, config)
    labels = predicting.find_labels(cfg, meta)
    metadata = dict(
        model=type(model).__name__,
        config=os.path.basename(config),
        checkpoint=os.path.basename(checkpoint),
        epoch=meta.get('epoch'),
        classes=labels.names,
        test_pipeline=described_pipeline(cfg),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        versions=dict(unireplknet_mm=__version__, torch=str(torch.__version__)),
    )
    seen = meta.get('dataset_meta') or {}
    if 'deviation' in seen:  # of a series: what its values were standardised with
        metadata['columns'] = {
            name: dict(mean=mean, deviation=deviation)
            for name, mean, deviation in zip(
                seen['columns'], seen['mean'], seen['deviation'], strict=True
            )
        }
    if only_backbone:
        if not hasattr(model, 'backbone'):
            raise ExportError(f'a {type(model).__name__} has no backbone to export alone.')
        if hasattr(model, 'embedding'):
            raise ExportError(
                f'the backbone of a {type(model).__name__} takes what its embedding makes, no images: leave '
                'out --backbone, to export the whole model.'
            )
        options['preprocessor'] = model.data_preprocessor
        model = model.backbone
    kind = find_deployable(model)
    for name in options:
        if name not in inspect.signature(kind).parameters:
            way_out = WAYS_OUT.get(name, '') if 'size' in kind.dynamic else ''
            raise ExportError(f'{MEANT_FOR[name]}, not for {kind.task}.{way_out}')
    return kind(model, **options), metadata


def described_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """The test pipeline, for which the user of a file stands in; of configs without one (series) none."""
    datasets = innermost_datasets(cfg.test_dataloader.dataset)
    if not any(dataset.get('pipeline') for dataset in datasets):
        return []
    return [
        {**transform, 'type': type_name(transform)} for transform in predicting.test_pipeline(cfg)
    ]


class Samples:
    """Inputs as a file takes them, of files or of the config's test data.

    Args:
        deployable: which turns what pipelines give into what files take.
        order: for the size that is fitted to, where it is not open.

    Attributes:
        unread: of files that were to be read and could not, why.
    """

    def __init__(self, deployable: Deployable, order: Order):
        self.deployable = deployable
        self.order = order
        self.unread: dict[Path, str] = {}

    def of_files(self, cfg: Config, arguments: Sequence[str]) -> Iterator[Sample]:
        """What the config's test pipeline makes of files.

        Those that cannot be read are left out, and stand in `unread`.

        Raises:
            UserError: there are none, or the config reads no single files, as of series.
        """
        pipeline = predicting.test_pipeline(cfg)
        try:
            kind = find_kind(pipeline)
        except UserError:
            raise ExportError(
                f'--images: config {cfg.filename} reads no single files: leave it out, to compare on the '
                'test data of the config, or on demo data.'
            ) from None
        paths = [path for path, _ in find_inputs(arguments, kind, recursive=True)[0]]
        dataset = predicting.InputDataset(paths, kind, pipeline, cfg)

        def samples() -> Iterator[Sample]:
            for path, sample in zip(paths, dataset, strict=False):
                if isinstance(sample, predicting.Divided):  # a long recording: its first part
                    yield path.name, self.fit(dict(inputs=sample.inputs[0]))
                elif isinstance(sample, predicting.Failure):
                    self.unread[path] = sample.reason
                else:
                    yield path.name, self.fit(sample)

        return samples()

    def of_data(self, cfg: Config) -> Iterator[Sample]:
        """The config's test samples."""
        with explain_mistakes(cfg):
            dataset = DATASETS.build(cfg.test_dataloader.dataset)

        def samples() -> Iterator[Sample]:
            for index in range(len(dataset)):
                yield f'test sample {index}', self.fit(dataset[index])

        return samples()

    def left_out(self, named: Sequence[str]) -> list[str]:
        """Lines on what could not be read: the number, and of files named by the user which, and why.

        Args:
            named: files and folders as the user gave them.
        """
        if not self.unread:
            return []
        files = [path for path in map(Path, named) if path in self.unread]
        line = f'Files left out, since they cannot be read: {len(self.unread)}.'
        return [line, *(f'{path}: {self.unread[path]}' for path in files)]

    def fit(self, sample: Mapping[str, Any]) -> Tensor:
        """A batch for the file; images of another size than it takes are stretched to it."""
        batch = self.deployable.from_sample(sample)
        wanted = tuple(self.order.shape)
        is_image = self.deployable.input_axes[-2:] == ('height', 'width')
        if 'size' in self.order.dynamic or not is_image or tuple(batch.shape[1:]) == wanted:
            return batch
        resized = F.interpolate(batch.float(), wanted[-2:], mode='bilinear', antialias=True)
        if batch.dtype == torch.uint8:
            resized = resized.round().clamp(0, 255)
        return resized.to(batch.dtype)


def run_in_batches(runtime: Runtime, dynamic: Collection[str]) -> Callable[[np.ndarray], Arrays]:
    """The file's function of any number of samples, one by one where its batch is not open."""

    def run(inputs: np.ndarray) -> Arrays:
        if 'batch' in dynamic or len(inputs) == 1:
            return runtime(inputs)
        parts = [runtime(inputs[i : i + 1]) for i in range(len(inputs))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return run


def form_for(deployable: Deployable, order: Order) -> Deployable:
    """A copy with layers in the form that the format's runtime takes well, in the file's precision."""
    copied = copy.deepcopy(deployable)
    if 'size' in order.dynamic:
        open_pools(copied)
    wrap_convolutions(copied)
    record_pixel_decoders(copied)
    write_pointwise(copied, order.format.pointwise, by_rows=order.precision != 'int8')
    dtype = PRECISIONS[order.precision]
    if not order.format.lowers_precision and dtype not in (None, torch.float32):
        copied.to_precision(dtype)
    return copied


@contextlib.contextmanager
def staged(order: Order) -> Iterator[Path]:
    """A path to write to; on leaving, the files written take the place of the order's, the last one last.

    An exception in between leaves what was there.
    """
    folder = Path(
        tempfile.mkdtemp(prefix=f'.{order.path.name}.', suffix='.partial', dir=order.path.parent)
    )
    try:
        path = folder / order.path.name
        yield path
        for part, target in zip(
            order.format.parts(path), order.format.parts(order.path), strict=True
        ):
            os.replace(part, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def naming_disk(order: Order, needed: int) -> Iterator[None]:
    """See that so many bytes fit on the disk; where not much more does, any error is one of a full disk.

    The libraries that write raise errors of many classes, or leave half of a file.

    Raises:
        NoSpaceError: the disk is full.
    """
    room = shutil.disk_usage(order.path.absolute().parent).free
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if room < needed:
        raise no_space_error(full, order.path, f'about {in_words(needed)}')
    try:
        yield
    except Exception as error:
        if room < needed + GRAPH_SIZE:
            raise no_space_error(full, order.path, f'more than {in_words(needed)}') from error
        raise


def write(
    deployable: Deployable,
    order: Order,
    metadata: dict[str, Any],
    samples: Sequence[Sample],
    calibration: list[Tensor],
    steps: Steps,
    judge: Callable[[Callable[[np.ndarray], Arrays]], dict[str, Any]] = lambda run: {},
    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = iter,
) -> Comparison:
    """Write the file, read it back, compare it with the model, and only then put it in its place.

    Args:
        samples: that are compared; the file takes the type of number that they have.
        judge: from the file's function to more meta data, such as scores.
        progress: wraps the samples while they are compared, as `tqdm.tqdm` does.

    Raises:
        ExportError: it cannot be written, or disagrees and is not forced.
    """
    batch_size = 2 if 'batch' in order.dynamic else 1
    example = deployable.example(batch_size, order.shape).to(samples[0][1].dtype)
    tools = {name: import_module(name).__version__ for name in order.format.packages}
    metadata = dict(metadata, versions={**metadata['versions'], **tools})
    settings = Settings(order.precision, order.dynamic, metadata, calibration)
    weights = sum(weight.numel() for weight in deployable.parameters())
    with staged(order) as path:
        with naming_disk(order, WEIGHT_SIZES[order.precision] * weights):
            with steps('recording and writing'):
                order.format.write(form_for(deployable, order), example, path, settings)
            with steps('loading'):
                runtime = load_written(path, order)
        run = run_in_batches(runtime, order.dynamic)
        with steps('comparing'):
            comparison = compare(deployable, run, progress(samples), order.precision)
        if not comparison.agrees and not order.forced:
            raise ExportError(
                '\n'.join(comparison.lines())
                + f'\n{order.path} was not written: it '
                + ('was not compared' if comparison.found == 0 else 'disagrees')
                + ' with the model. --force writes it.'
            )
        found = dict(comparison=comparison.summary(), **judge(run))
        with naming_disk(order, path.stat().st_size):
            order.format.restate(path, dict(runtime.metadata, **found))
    return comparison


def load_written(path: Path, order: Order) -> Runtime:
    """Read the file that was just written.

    Raises:
        ExportError: its runtime cannot run it.
    """
    try:
        return order.format.load(path)
    except ExportError as error:
        reason = first_line(error.__cause__ or error)
        raise ExportError(
            f'{order.format.name} does not run the model in {order.precision}: {reason}\n'
            'Choose another --precision or --format.'
        ) from error


class FileModel(nn.Module):
    """A file in the place of a model, for the test loop and the metrics of a config.

    Args:
        run: the file's function.
        samples: how samples become its inputs.
    """

    def __init__(self, run: Callable[[np.ndarray], Arrays], samples: Samples):
        super().__init__()
        self.run = run
        self.samples = samples

    def __getattr__(self, name: str) -> Any:
        """What hooks ask a model for: that of the model itself."""
        return getattr(self.samples.deployable.model, name)

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        results = []
        for values in zip(*data.values(), strict=True):
            packed = dict(zip(data, values, strict=True))
            batch = self.samples.fit(packed)
            outputs = self.run(batch.numpy())
            sample = packed['data_samples']
            sample.set_metainfo(dict(file_size=tuple(batch.shape[-2:])))
            results += self.samples.deployable.fill(outputs, [sample])
        return results


def score(cfg: Config, model: nn.Module) -> dict[str, float]:
    """What the config's metrics say of a model, or of a file in its place, on its test data."""
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume, cfg.log_level = None, False, 'ERROR'
    # The toolboxes' visualizers outlive a runner, and would write to the folder of the first.
    cfg.visualizer = dict(type='mmengine.Visualizer', name='score', vis_backends=[])
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
        runner.model = model
        return {key: float(value) for key, value in test(runner).items() if is_number(value)}


def is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number)


def sample_shape(
    cfg: Config, deployable: Deployable, size: Sequence[int] | None
) -> tuple[int, ...]:
    """The shape of one sample as the file takes it.

    Args:
        size: height and width that the user asked for.

    Raises:
        ExportError: the input has no height and width.
    """
    shape = tuple(cfg.get('input_shape') or ())
    if deployable.input_axes[-2:] != ('height', 'width'):
        if size or not shape:
            raise ExportError(
                f'the input of {deployable.task} is no image: the config says its shape with input_shape.'
            )
        return deployable.sample_shape(shape)
    channels = shape[0] if shape else deployable.channels
    return (channels, *(size or shape[1:] or tested_size(cfg, deployable)))


def tested_size(cfg: Config, deployable: Deployable) -> tuple[int, int]:
    """Height and width of what the config's test pipeline makes of pictures; without one, what is usual.

    Of pictures that keep their ratio, it is that of a kind's `kept_size`.
    """
    size = deployable.usual_size
    for transform in predicting.test_pipeline(cfg) if cfg.get('test_dataloader') else []:
        name = type_name(transform)
        stated = transform.get('crop_size' if name == 'CenterCrop' else 'scale')
        if name not in ('CenterCrop', 'Resize') or stated is None:
            continue
        width, height = (stated, stated) if isinstance(stated, int) else stated
        keeps_ratio = name == 'Resize' and transform.get('keep_ratio')
        size = deployable.kept_size(width, height) if keeps_ratio else (height, width)
    return size


def add_test_pipeline(cfg: Config) -> None:
    """Give a config that is never tested, such as those of ImageNet-22K, test data, in place.

    They are those of its training, resized to what that crops pictures to. Other configs stay as they are.
    """
    if cfg.get('test_dataloader') is not None or cfg.get('train_dataloader') is None:
        return
    loader = copy.deepcopy(cfg.train_dataloader)
    for dataset in innermost_datasets(loader.dataset):
        pipeline = dataset.get('pipeline') or []
        crop = next((step for step in pipeline if type_name(step) == 'RandomResizedCrop'), None)
        if crop is None:
            return
        size = crop['scale']  # height and width, which `Resize` takes the other way round
        scale = size if isinstance(size, int) else tuple(size[::-1])
        kept = {key: crop[key] for key in ('backend', 'interpolation') if key in crop}
        resize = dict(type='Resize', scale=scale, **kept)
        dataset['pipeline'] = [pipeline[0], resize, pipeline[-1]]
    cfg.test_dataloader = loader


def without_fitting(cfg: Config) -> tuple[Config, dict[str, Any] | None]:
    """A config whose test pipeline leaves resizing and padding to the file, and the settings of its `Pad`.

    These are None, where it has no `Pad`.

    Raises:
        ExportError: it resizes or pads more than once, or resizes what it has padded.
    """
    cfg = copy.deepcopy(cfg)
    found = None
    for dataset in innermost_datasets(cfg.test_dataloader.dataset):
        pipeline = dataset.get('pipeline') or []
        names = [type_name(step) for step in pipeline]
        fitting = [name for name in names if name in ('Resize', 'Pad')]
        if fitting not in ([], ['Resize'], ['Pad'], ['Resize', 'Pad']):
            raise ExportError(
                '--letterbox resizes and pads once, and the test pipeline of the config does not: '
                f'{", ".join(names)}. Leave it out, and fit pictures in front of the file.'
            )
        if 'Pad' in names:
            found = dict(pipeline[names.index('Pad')])
        dataset['pipeline'] = [step for step in pipeline if type_name(step) not in fitting]
    return cfg, found


def check_scored(cfg: Config) -> None:
    """See that a config has metrics.

    Raises:
        UserError: it has none.
    """
    if cfg.get('test_evaluator') is None or cfg.get('test_cfg') is None:
        raise UserError(
            f'--score: config {cfg.filename} has no test_evaluator or no test_cfg: leave it out.'
        )


def has_test_data(cfg: Config) -> bool:
    """Whether what the config is tested on is there."""
    try:
        check_data(cfg, 'test')
    except UserError:
        return False
    return any(True for _ in innermost_datasets(cfg.test_dataloader.dataset))
