"""Models by name, to be measured: the suite's, timm's, mmpretrain's, two large-kernel peers, any config's.

    unireplknet_t                      a classifier of that arch; of the suite
    replknet_31b, slak_t               `peers.py`
    convnext_tiny                      timm, where it is installed
    swin-tiny_16xb64_in1k              mmpretrain
    timm:NAME, mmpretrain:NAME         that library's, whoever else has the name
    path/to/FILE.py:NAME               what the function NAME of a Python file returns: networks of no library

Weights are random, and drawn so that every layer matters: a fresh network's layer scale of 1e-6 and its
neutral norms would hide a branch or a factor that is wrong.
"""

import copy
import difflib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from unireplknet_mm.configuration import drop_pretrained
from unireplknet_mm.errors import ArgumentError, MissingPackageError
from unireplknet_mm.measuring.peers import PEERS
from unireplknet_mm.measuring.tasks import (
    Classifier,
    Detector,
    MMPretrainClassifier,
    Segmenter,
    Task,
)
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.architecture import ARCHITECTURES
from unireplknet_mm.models.whole_model import leading_shape

OWN_PREFIX = 'unireplknet_'
HOW_TO_GET_TIMM = 'timm is not installed: pip install timm'

Build = Callable[[], Task]


class UniRepLKNetClassifier(nn.Module):
    """A backbone of the suite with a linear head: (N, 3, H, W) -> (N, num_classes).

    Args:
        arch: as in `UniRepLKNet`.
        num_classes: outputs of the head.
        settings: of the backbone.
    """

    def __init__(self, arch: str | dict, num_classes: int = 1000, **settings: Any):
        super().__init__()
        self.backbone = UniRepLKNet(arch, out_indices=(3,), gap_before_final_norm=True, **settings)
        self.head = nn.Linear(self.backbone.out_channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[0])


def find_model(name: str, *, pretrained: bool = False, **settings: Any) -> Build:
    """What builds the model of a name; called again, it builds the same one with the same weights.

    Args:
        name: as at the top.
        pretrained: with the weights that timm or mmpretrain has for it, which they download.
        settings: of the backbone, for models of the suite: `branches`, `drop_path_rate`, ...

    Raises:
        ArgumentError: nobody has a model of that name; the file is missing, fails or has no such function;
            weights are asked for of a file's model or of one of the suite's own.
        MissingPackageError: the name asks for timm, which is not installed.
    """
    library, _, bare = name.rpartition(':')
    is_file = library.endswith('.py')
    if not is_file and library not in ('', 'timm', 'mmpretrain'):
        raise ArgumentError(
            f'unknown library {library!r} in {name!r}: choose timm, mmpretrain or a Python file'
        )
    arch = bare.removeprefix(OWN_PREFIX)
    if pretrained and (is_file or (not library and is_own(bare))):
        raise ArgumentError(f'{name} has no weights by itself: name a file, or a published one')
    if not library and is_own(bare) and arch in ARCHITECTURES:
        return classifier(lambda: UniRepLKNetClassifier(arch, **settings))
    if settings:
        raise ArgumentError(f'{name} takes no settings of the backbone, got {", ".join(settings)}')
    if is_file:
        return classifier(_function_of_file(Path(library), bare))
    if not library and is_own(bare):
        return classifier(PEERS[bare])
    timm = _import_timm()
    if library == 'timm' and timm is None:
        raise MissingPackageError(f'{name}: {HOW_TO_GET_TIMM}')
    if library in ('', 'timm') and timm is not None and timm.is_model(bare):
        return classifier(lambda: timm.create_model(bare, pretrained=pretrained), pretrained)
    if library in ('', 'mmpretrain') and bare in _mmpretrain_names():
        return classifier(lambda: _build_mmpretrain(bare, pretrained), pretrained)
    raise ArgumentError(_unknown(name, bare, timm))


def is_own(name: str) -> bool:
    """Whether the suite itself builds the model, with no other library."""
    has_arch = name.startswith(OWN_PREFIX) and name.removeprefix(OWN_PREFIX) in ARCHITECTURES
    return has_arch or name in PEERS


def has_timm() -> bool:
    return _import_timm() is not None


def classifier(make: Callable[[], nn.Module], pretrained: bool = False) -> Build:
    """What builds a classifier from images to logits, each time with the same weights."""

    def build() -> Task:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make()
            if not isinstance(model, nn.Module):
                raise ArgumentError(f'no torch.nn.Module was built, but {model!r:.80}')
            return Classifier(model if pretrained else with_weights(model))

    return build


def find_config_model(cfg: Config) -> Build:
    """What builds the model of a config: a classifier, detector or segmenter, without its weights.

    Raises:
        ArgumentError: the config has no model, or one of another task.
    """
    kinds = {'mmpretrain': MMPretrainClassifier, 'mmdet': Detector, 'mmseg': Segmenter}
    scope = cfg.get('default_scope')
    if 'model' not in cfg or scope not in kinds:
        known = ', '.join(kinds)
        raise ArgumentError(
            f'{cfg.filename}: cannot be measured: it needs a model and a default_scope of '
            f'{known}, got {scope!r}'
        )
    cfg = cfg.copy()
    drop_pretrained(cfg.model, lambda name: True)

    def build() -> Task:
        with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng():
            torch.manual_seed(0)
            model = MODELS.build(copy.deepcopy(cfg.model))  # DINO writes into it
            model = revert_sync_batchnorm(model)
        return kinds[scope](with_weights(model), leading_shape(model, cfg.get('input_shape')))

    return build


def with_weights(model: nn.Module) -> nn.Module:
    """Fill a model's parameters and statistics by a rule that depends on their names alone, in place.

    Means 0.1 z, variances 0.5 to 1.5, norm weights 1 + 0.1 z, layer scale 0.5 + 0.1 z, biases and GRN 0.1
    z, weights of convolutions and products z / sqrt(inputs), with z standard normal; what else there is
    stays as the network drew it. Drop path and dropout are switched off: they would make a step random.
    """
    for module in model.modules():
        for name in ('drop_prob', 'p'):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            z = torch.randn(tensor.shape, generator=generator)
            if name.endswith('running_mean'):
                value = 0.1 * z
            elif name.endswith('running_var'):
                value = 0.5 + torch.rand(tensor.shape, generator=generator)
            elif not isinstance(tensor, nn.Parameter):
                continue
            elif tensor.dim() == 1 and name.endswith('gamma'):
                value = 0.5 + 0.1 * z
            elif name.endswith(('.bias', '.gamma', '.beta')):
                value = 0.1 * z
            elif tensor.dim() == 1 and name.endswith('weight'):
                value = 1 + 0.1 * z
            elif tensor.dim() > 1 and name.endswith('weight'):
                value = z / tensor[0].numel() ** 0.5
            else:
                continue
            tensor.copy_(value)
    return model


def _function_of_file(path: Path, name: str) -> Callable[[], nn.Module]:
    """The function of that name, from a Python file, which is run as if it had been imported."""
    if not path.is_file():
        raise ArgumentError(f'there is no file {path}')
    spec = importlib.util.spec_from_file_location(f'measured_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # timm's register_model looks there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ArgumentError(f'{path} fails: {type(error).__name__}: {error}') from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(f'{path} has no function {name!r}')
    return function


def _import_timm() -> Any:
    """The module, or None where it is not installed."""
    try:
        import timm
    except ImportError:
        return None
    return timm


def _mmpretrain_names() -> list[str]:
    from mmpretrain import list_models

    return list_models()


def _build_mmpretrain(name: str, pretrained: bool) -> nn.Module:
    from mmpretrain import get_model

    return revert_sync_batchnorm(get_model(name, pretrained=pretrained))


def _unknown(name: str, bare: str, timm: Any) -> str:
    known = [f'{OWN_PREFIX}{arch}' for arch in ARCHITECTURES] + [*PEERS, *_mmpretrain_names()]
    if timm is not None:
        known += timm.list_models()
    close = difflib.get_close_matches(bare, known, n=3)
    text = f'unknown model {name!r}: it is no config file, and no name of the suite'
    text += ', timm or mmpretrain.' if timm is not None else f' or mmpretrain; {HOW_TO_GET_TIMM}.'
    return f'{text}\nDid you mean {" or ".join(close)}?' if close else text
