"""UniRepLKNet in place of the backbone of any mmdet, mmseg or mmpretrain config.

    from unireplknet_mm.swapping import swap_backbone
    swap_backbone('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', arch='t', out='my_retinanet.py')

`swap.py` holds a swap under way, `rules/` what it changes, one file a concern, `maps.py` measures what
backbones and necks put out, `writing.py` writes the config, `trial.py` runs its model.
"""

from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from unireplknet_mm.errors import ExistingFileError
from unireplknet_mm.files import write_text
from unireplknet_mm.swapping.config_files import locate_config, read_config
from unireplknet_mm.swapping.rules import RULES
from unireplknet_mm.swapping.swap import Change, Swap, SwapError, summarise
from unireplknet_mm.swapping.trial import Trial, same_obstacle, try_model
from unireplknet_mm.swapping.writing import base_references, with_file_name, write_config

__all__ = [
    'Change',
    'Swap',
    'SwapError',
    'Swapped',
    'Trial',
    'locate_config',
    'plan_swap',
    'read_original',
    'swap_backbone',
    'try_swap',
    'write_swap',
]


class Swapped(NamedTuple):
    """A backbone that was swapped."""

    config: Config
    changes: list[Change]
    warnings: list[str]
    trial: Trial
    text: str


def read_original(config: str | Path) -> tuple[Path, Config]:
    """The file of a config, and what is in it; arguments and errors are those of `swap_backbone`."""
    path = locate_config(config)
    return path, read_config(path)


def plan_swap(
    cfg: Config,
    arch: str | dict = 't',
    *,
    pretrained: str | None = None,
    layer_decay: bool | float | None = None,
    output_stride: int | None = None,
    keep_optimizer: bool = False,
) -> Swap:
    """Swap the backbone in a copy of a config; `Swap.config` is the result, untried.

    Arguments and errors are those of `swap_backbone`.
    """
    swap = Swap(cfg, arch, pretrained, layer_decay, output_stride, keep_optimizer)
    for rule in RULES:
        rule(swap)
    return swap


def swap_backbone(
    config: str | Path,
    arch: str | dict = 't',
    *,
    out: str | Path,
    pretrained: str | None = None,
    layer_decay: bool | float | None = None,
    output_stride: int | None = None,
    keep_optimizer: bool = False,
) -> Swapped:
    """Write a config that inherits another and has UniRepLKNet as its backbone, once its model was tried.

    Everything that depends on the backbone is adapted; the file's docstring says what was changed and why.
    The model is built with random weights, predicts, and gives a loss with finite gradients in the whole
    backbone, before the file is left in place.

    Args:
        config: a config of mmdet, mmseg or mmpretrain in MMEngine's text style: a path, or
            `mmdet::FOLDER/NAME.py` for one of an installed package.
        arch: a, f, p, n, t, s, b, l, xl or h, or a dict, as the backbone takes it.
        out: the file to write, which ends in .py and must not exist.
        pretrained: weights to start from: a published name, a path, a URL or hf://; None for random ones.
            Of a local file the architecture is checked.
        layer_decay: rate of layer-wise learning rates, in (0, 1]; True for the published one.
        output_stride: 8 or 16 for segmenters whose last stages are to keep the resolution; default: 32.
        keep_optimizer: leave SGD and its learning rate as they are.

    Raises:
        SwapError: the backbone cannot be swapped, the model does not work with the new one, `out` does not
            end in .py, or the weights do not exist or fit.
        ExistingFileError: `out` exists.
    """
    out = Path(out)
    if out.suffix != '.py':
        raise SwapError(
            f'--out {out} does not end in .py: a config is written as Python, name it so.'
        )
    if out.exists():
        raise ExistingFileError(f'{out} exists: name another file with --out, or remove it.')
    path, original = read_original(config)
    swap = plan_swap(
        original,
        arch,
        pretrained=pretrained,
        layer_decay=layer_decay,
        output_stride=output_stride,
        keep_optimizer=keep_optimizer,
    )
    trial = try_swap(swap, original)
    text, written = write_swap(swap, original, base_references(config, path, out), out, trial)
    return Swapped(written, swap.changes, swap.warnings, trial, text)


def try_swap(swap: Swap, original: Config) -> Trial:
    """Run the model of a swap on random images, as `trial.py` says.

    Raises:
        SwapError: it does not work, and that of the original does not fail in the same way.
    """
    try:
        return try_model(swap.config)
    except Exception as error:  # whatever the code of a toolbox, or of the user, raises
        trial = same_obstacle(original._cfg_dict, error)
        if trial is not None:
            return trial
        raise SwapError(
            f'the backbone {swap.old_type} cannot be swapped: the model with {swap.title} does not work, '
            f'{summarise(error)}'
        ) from error


def write_swap(
    swap: Swap, original: Config, bases: list[str], out: Path, trial: Trial
) -> tuple[str, Config]:
    """Write the config of a swap; its text, and what MMEngine reads of it.

    Args:
        bases: what `_base_` may say; the first that MMEngine finds is taken.
    """
    try:
        for base in bases:
            text = write_config(swap, original, base, [str(trial)])
            write_text(out, text)
            try:
                written = Config.fromfile(out)
            except (
                Exception
            ):  # MMEngine has many ways to say that it does not find a package's configs
                if base == bases[-1]:
                    raise
                continue
            break
        planned = _without_scope(swap.config)
        if isinstance(planned.get('work_dir'), str):
            planned['work_dir'] = with_file_name(planned['work_dir'], out)
        if _without_scope(written._cfg_dict) != planned:
            raise RuntimeError(f'{out} would not say what was planned for {swap.old_type}')
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return text, written


def _without_scope(value: object) -> object:
    """Without the scopes that MMEngine notes in what it inherits from another package."""
    if isinstance(value, dict):
        return {key: _without_scope(part) for key, part in value.items() if key != '_scope_'}
    if isinstance(value, list | tuple):
        return type(value)(_without_scope(part) for part in value)
    return value
