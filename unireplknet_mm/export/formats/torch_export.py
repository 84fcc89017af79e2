"""The graph of `torch.export`, a `.pt2` file that PyTorch runs without the model's code."""

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unireplknet_mm.export.deployable import Deployable, as_arrays
from unireplknet_mm.export.formats.archive import check_archive, rewrite_part
from unireplknet_mm.export.formats.base import (
    Format,
    Runtime,
    Settings,
    complete_metadata,
    damaged,
    decode,
    encode,
    running_with,
)
from unireplknet_mm.export.formats.recording import record
from unireplknet_mm.files import write_bytes

METADATA_FILE = 'unireplknet_mm.json'


class TorchExport(Format):
    """`torch.export.save`: for PyTorch in Python, also to go on from, as to `torch.compile`."""

    name = 'torch-export'
    suffix = '.pt2'
    precisions = ('fp32', 'fp16', 'bf16')

    def write(
        self, deployable: Deployable, example: Tensor, path: Path, settings: Settings
    ) -> None:
        program = record(deployable, example, settings)
        metadata = complete_metadata(deployable, example, settings)
        content = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.export.save(program, content, extra_files={METADATA_FILE: encode(metadata)})
        write_bytes(path, content.getbuffer())

    def load(self, path: Path, threads: int | None = None) -> Runtime:
        self.check_file(path)
        check_archive(path)
        extra = {METADATA_FILE: ''}
        logger = logging.getLogger('torch.export')
        level = logger.level
        logger.setLevel(logging.CRITICAL)  # it logs what it also raises
        try:
            module = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # whatever unpacking a damaged archive raises
            raise damaged(path, error) from error
        finally:
            logger.setLevel(level)
        metadata = decode(extra[METADATA_FILE])

        def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
            with torch.no_grad(), running_with(threads):
                return as_arrays(metadata['outputs'], module(torch.from_numpy(inputs)))

        return Runtime(metadata, run)

    def restate(self, path: Path, metadata: Mapping[str, Any]) -> None:
        rewrite_part(path, METADATA_FILE, lambda _: encode(metadata))
