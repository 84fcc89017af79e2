"""A trained model as a file takes it: one function from a plain tensor to plain tensors.

The toolboxes' models take lists of images with their meta data and return samples; here the same layers run
from the pixels of a batch to tensors of fixed names. A kind of model has one subclass of `Deployable`,
registered in `DEPLOYABLES` (by the modules that `unireplknet_mm.export` imports, none of which needs a
toolbox to be imported).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from unireplknet_mm.export.errors import ExportError

DYNAMIC = ('batch', 'size')
SIZE_AXES = ('height', 'width')
Arrays = Mapping[str, np.ndarray]

DEPLOYABLES: list[type['Deployable']] = []


class Deployable(nn.Module):
    """A trained model with what stands before and behind it; `forward` is the function of the file.

    Subclasses say which models they take, and how two results are compared. Where `forward` returns several
    tensors, they are in the order of `output_names`.

    Args:
        model: in the form that is to be exported; it is put into evaluation and needs no gradient any more.

    Attributes:
        task: in a word, for messages and meta data.
        input_name, output_names: of the file's tensors.
        input_axes: what each axis of the input is; 'batch' comes first.
        dynamic: which of `DYNAMIC` the model allows to be left open.
        usual_size: height and width of images, where nobody asks for another one.
        exact_operators: of OpenVINO, by type, that int8 leaves in floating point, beside those that it never
            rounds.
    """

    task: ClassVar[str]
    input_name: ClassVar[str] = 'images'
    input_axes: ClassVar[tuple[str, ...]] = ('batch', 'channels', 'height', 'width')
    dynamic: ClassVar[tuple[str, ...]] = DYNAMIC
    usual_size: ClassVar[tuple[int, int]] = (224, 224)
    exact_operators: ClassVar[tuple[str, ...]] = ()
    output_names: tuple[str, ...]

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        return int(getattr(getattr(self.model, 'backbone', self.model), 'in_channels', 3))

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        """Whether this is the kind for a model."""
        raise NotImplementedError

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        """An input to record the function with, (batch_size, *shape): noise."""
        raise NotImplementedError

    def sample_shape(self, stated: Sequence[int]) -> tuple[int, ...]:
        """The shape of one sample as the file takes it, where the config states that of `inputs`."""
        return tuple(stated)

    def kept_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of a picture that is made to fit a scale of the pipeline and keeps its ratio."""
        return height, width

    def describe(self) -> dict[str, Any]:
        """What a user of the file has to know of its tensors, in words and numbers that JSON takes."""
        raise NotImplementedError

    def from_sample(self, sample: Mapping[str, Any]) -> Tensor:
        """A sample, as the config's pipeline packs it, as a batch of one for the file."""
        return self.from_pipeline(sample['inputs'])

    def from_pipeline(self, inputs: Tensor) -> Tensor:
        """The same of its `inputs` alone, where a file takes nothing else."""
        raise NotImplementedError

    def fill(self, outputs: Arrays, samples: list[Any]) -> list[Any]:
        """Write what the file gave into the toolbox's samples, as the model itself would have done.

        That is how the metrics of the config judge a file.
        """
        raise NotImplementedError

    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        """What the toolbox's own code makes of the inputs, as arrays of the names of `output_names`.

        It is what `tools/test.py` would judge, so that a comparison with it covers this class as well.
        """
        raise NotImplementedError

    def differences(self, reference: Arrays, exported: Arrays) -> dict[str, float]:
        """How far a result is from another one, by what is compared; 0 is equal."""
        raise NotImplementedError

    def count_found(self, reference: Arrays) -> int | None:
        """How many detections there are in a result; None of models that are no detectors."""
        return None

    def limits(self, precision: str) -> dict[str, float]:
        """The largest of each of `differences` that counts as agreement."""
        raise NotImplementedError

    def to_precision(self, dtype: torch.dtype) -> None:
        """Compute in another floating-point type; inputs and outputs keep theirs."""
        raise ExportError(f'{self.task} is exported in fp32 only, not in {dtype}.')

    def dynamic_shapes(self, dynamic: Collection[str]) -> tuple[dict[int, Any]]:
        """The axes that are left open, as `torch.export` and `torch.onnx.export` take them.

        Raises:
            ExportError: the model does not allow one of them.
        """
        for name in dynamic:
            if name not in self.dynamic:
                allowed = ' and '.join(self.dynamic) or 'neither batch nor size'
                raise ExportError(
                    f'--dynamic {name}: the model allows that for {allowed} only ({self.task}).'
                )
        axes = {}
        for axis, name in enumerate(self.input_axes):
            is_open = ('size' if name in SIZE_AXES else name) in dynamic
            if is_open:
                axes[axis] = Dim.DYNAMIC
        return (axes,)


def register(kind: type[Deployable]) -> type[Deployable]:
    """Make a kind known to `deployable`; of several that take a model, the one registered last is chosen."""
    DEPLOYABLES.append(kind)
    return kind


def deployable(model: nn.Module, **options: Any) -> Deployable:
    """A model as one function, with its pre- and postprocessing.

    Args:
        model: a classifier, detector, segmenter or backbone, with its weights.
        options: of its kind's class.

    Raises:
        ExportError: no kind takes the model.
    """
    return find_deployable(model)(model, **options)


def find_deployable(model: nn.Module) -> type[Deployable]:
    """The kind that takes a model.

    Raises:
        ExportError: there is none.
    """
    for kind in reversed(DEPLOYABLES):
        if kind.takes(model):
            return kind
    raise ExportError(
        f'a {type(model).__name__} cannot be exported: classifiers, detectors and segmenters of the '
        'toolboxes can, and backbones.'
    )


def inherits(model: nn.Module, *names: str) -> bool:
    """Whether a class of one of these names is among a model's, without importing the toolbox that has it."""
    return any(base.__name__ in names for base in type(model).__mro__)


def written_in(model: nn.Module, method: str) -> str | None:
    """The name of the class that a model has a method from."""
    return next((base.__name__ for base in type(model).__mro__ if method in vars(base)), None)


def as_arrays(names: Sequence[str], tensors: Tensor | Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Named outputs."""
    tensors = (tensors,) if isinstance(tensors, Tensor) else tensors
    return {
        name: tensor.detach().cpu().numpy() for name, tensor in zip(names, tensors, strict=True)
    }


def largest_difference(reference: np.ndarray, exported: np.ndarray) -> float:
    """The largest of two arrays' differences; infinite where shapes differ or anything is not a number."""
    if reference.shape != exported.shape:
        return float('inf')
    if reference.size == 0:
        return 0.0
    difference = float(np.abs(reference.astype(np.float64) - exported.astype(np.float64)).max())
    return difference if difference == difference else float('inf')


def relative_difference(reference: np.ndarray, exported: np.ndarray) -> float:
    """`largest_difference` over the largest value of the reference."""
    scale = float(np.abs(reference).max()) if reference.size else 0.0
    return largest_difference(reference, exported) / (scale or 1.0)
