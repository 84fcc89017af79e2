"""AOTInductor: the graph as a compiled library, in a `.aoti.pt2` file that needs libtorch and no Python."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unireplknet_mm.errors import MissingPackageError
from unireplknet_mm.export.deployable import Deployable, as_arrays
from unireplknet_mm.export.formats.archive import check_archive, rewrite_part
from unireplknet_mm.export.formats.base import (
    METADATA_KEY,
    Format,
    Runtime,
    Settings,
    complete_metadata,
    damaged,
    decode,
    encode,
    running_with,
)
from unireplknet_mm.export.formats.recording import explained, record
from unireplknet_mm.files import write_bytes

COMPILERS = ('g++', 'clang++', 'c++')


class AOTInductor(Format):
    """Compiled for the processor of this machine: on another kind it may not run."""

    name = 'aoti'
    suffix = '.aoti.pt2'
    precisions = ('fp32', 'fp16', 'bf16')

    def check(self, precision: str) -> None:
        super().check(precision)
        if not any(map(shutil.which, COMPILERS)):
            raise MissingPackageError(
                '--format aoti compiles C++, and there is no compiler here: apt install g++'
            )

    def write(
        self, deployable: Deployable, example: Tensor, path: Path, settings: Settings
    ) -> None:
        program = record(deployable, example, settings)
        metadata = encode(complete_metadata(deployable, example, settings))
        configs = {'aot_inductor.metadata': {METADATA_KEY: metadata}}
        content = io.BytesIO()  # torch's own writer ends the process where the disk is full
        with explained(settings), torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                program, package_path=content, inductor_configs=configs
            )
        write_bytes(path, content.getbuffer())

    def load(self, path: Path, threads: int | None = None) -> Runtime:
        self.check_file(path)
        check_archive(path)
        try:
            package = torch._inductor.aoti_load_package(str(path))
        except Exception as error:  # whatever unpacking a damaged archive raises
            raise damaged(path, error) from error
        metadata = decode(package.get_metadata().get(METADATA_KEY))

        def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
            with torch.no_grad(), running_with(threads):
                return as_arrays(metadata['outputs'], package(torch.from_numpy(inputs)))

        return Runtime(metadata, run)

    def restate(self, path: Path, metadata: Mapping[str, Any]) -> None:
        def change(text: str) -> str:
            return json.dumps(dict(json.loads(text), **{METADATA_KEY: encode(metadata)}))

        rewrite_part(path, '_metadata.json', change)
