"""Demo data on the disk: written once, whole or not at all, reused, never over anything else.

`make_demo_data` gives a folder a manifest of the parameters that it was made with, and puts it in place in
one rename. What the data are and how they lie in the folder is up to the layout (`layouts/`).
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from unireplknet_mm.datasets.layouts import LAYOUTS, Layout
from unireplknet_mm.datasets.layouts.base import MANIFEST, Progress
from unireplknet_mm.errors import ArgumentError, ExistingFileError, FileError, UserError
from unireplknet_mm.files import NO_SPACE, in_words, no_space_error

STALE_AFTER_SECONDS = 24 * 3600


def make_demo_data(
    layout: str,
    out: str | os.PathLike,
    images: int,
    val_images: int | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = iter,
    **parameters: Any,
) -> Path:
    """Write a demo data set, or return at once when `out` already holds the very same one.

    The files are written to a hidden folder beside `out` that is renamed at the end, so `out` is complete
    whenever it exists. The same parameters give the same files; what an older version of the layout wrote
    with them is replaced.

    Args:
        layout: 'coco', 'ade20k', 'imagenet' or another of `layouts.LAYOUTS`.
        out: folder of the data set, the `data_root` of a config.
        images: number of training samples, which are images in most layouts.
        val_images: number of validation samples; a fifth of `images` when left out.
        overwrite: replace other demo data at `out`. Anything else there is never replaced.
        progress: wraps the list of samples to be made, for example `tqdm.tqdm`.
        parameters: what else the layout takes, its `defaults` where left out. For drawn images:
            `size` (width, height) in pixels; `seed`; `num_classes`; `digits_per_image` (least, most);
            `digit_size` (least, most), heights as fractions of the image's shorter side; for COCO
            `mask_format`, 'polygon' or 'rle', both exact.

    Returns:
        `out` as a path.

    Raises:
        ArgumentError: the layout or a parameter is unknown or out of range.
        ExistingFileError: `out` holds something else.
        FileError: `out` cannot be written.
        NoSpaceError: they do not fit on the disk.
        MissingPackageError: scikit-learn or scikit-image is not installed.
    """
    if layout not in LAYOUTS:
        raise ArgumentError(f'unknown layout {layout!r}; known are {", ".join(LAYOUTS)}')
    writer = LAYOUTS[layout]
    counts = dict(
        images=images, val_images=max(1, images // 5) if val_images is None else val_images
    )
    for name, count in counts.items():
        if count < 1:
            raise ArgumentError(f'{name} must be at least 1, not {count}')
    wanted = dict(version=writer.version, layout=layout, **counts, **writer.complete(parameters))
    target = Path(out).resolve()
    if _is_reusable(target, wanted, overwrite):
        return Path(out)
    writer.check_sources()  # before anything is written
    partial = target.parent / f'.{target.name}.partial-{secrets.token_hex(4)}'
    try:
        partial.mkdir(parents=True)
        _remove_stale(target)
        _write(partial, writer, wanted, progress)
        _put_in_place(partial, target, wanted)
    except UserError:
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            written = 512 * sum(path.stat().st_blocks for path in partial.rglob('*'))
            shutil.rmtree(partial, ignore_errors=True)  # what is free then is what there was
            raise no_space_error(error, out, f'more than {in_words(written)}') from error
        raise FileError(f'cannot write demo data to {out}: {error.strerror or error}') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Path(out)


def _write(root: Path, writer: Layout, parameters: dict, progress: Progress) -> None:
    sources = writer.write_demo(root, parameters, progress)
    manifest = dict(parameters=parameters, sources=sources)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding='utf-8')


def _read_parameters(out: Path) -> dict | None:
    """The parameters of the complete data set at `out`; None where there is no such thing."""
    try:
        return json.loads((out / MANIFEST).read_text(encoding='utf-8'))['parameters']
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_reusable(out: Path, parameters: dict, overwrite: bool) -> bool:
    """Whether `out` already holds what is asked for; raises when it must not be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    existing = _read_parameters(out)
    if existing is None:
        raise ExistingFileError(f'{out} exists and is not demo data; choose another folder')
    if existing == parameters:
        return True
    if overwrite or existing | dict(version=parameters['version']) == parameters:
        return False
    names = [name for name in parameters if existing.get(name) != parameters[name]]
    differences = ', '.join(f'{name}={existing.get(name)}' for name in names)
    raise ExistingFileError(
        f'{out} holds other demo data ({differences}); '
        'ask for overwrite (--overwrite) or choose another folder'
    )


def _remove_stale(out: Path) -> None:
    """Remove what killed runs left beside `out` a day ago or earlier."""
    for path in out.parent.glob(f'.{out.name}.partial-*'):
        if time.time() - path.stat().st_mtime > STALE_AFTER_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(partial: Path, out: Path, parameters: dict) -> None:
    """Rename the finished folder; an older data set at `out` is first moved aside, then deleted.

    Several processes may generate the same data at once: the first wins, the others keep its data.
    """
    old = partial.with_name(partial.name + '-old')
    if _read_parameters(out) not in (None, parameters):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        if _read_parameters(out) != parameters:
            raise
    shutil.rmtree(old, ignore_errors=True)
