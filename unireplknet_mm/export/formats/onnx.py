"""ONNX, written by `torch.onnx.export(dynamo=True)` and run by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unireplknet_mm.export.deployable import Deployable
from unireplknet_mm.export.errors import ExportError
from unireplknet_mm.export.formats.base import (
    METADATA_KEY,
    Format,
    Runtime,
    Settings,
    complete_metadata,
    damaged,
    decode,
    encode,
)
from unireplknet_mm.export.formats.recording import explained, record
from unireplknet_mm.files import replacing

OPSET = 18  # what onnxscript writes without converting
LARGEST = 2 * 2**30  # bytes: what protobuf takes


class Onnx(Format):
    """ONNX files of one part, of the operators of the standard alone."""

    name = 'onnx'
    suffix = '.onnx'
    packages = ('onnx', 'onnxscript', 'onnxruntime')
    extra = 'onnx'
    precisions = ('fp32', 'fp16')

    def write(
        self, deployable: Deployable, example: Tensor, path: Path, settings: Settings
    ) -> None:
        size = sum(p.numel() * p.element_size() for p in deployable.parameters())
        if size >= LARGEST:
            smaller = '' if settings.precision == 'fp16' else '--precision fp16 or '
            raise ExportError(
                f'{size / 2**30:.1f} GiB of weights do not fit into an ONNX file of one part (2 GiB): '
                f'use {smaller}--format openvino.'
            )
        program = self.convert(deployable, example, settings)
        program.model.metadata_props[METADATA_KEY] = encode(
            complete_metadata(deployable, example, settings)
        )
        with replacing(path, keep_extension=True) as partial:
            program.save(partial, external_data=False)

    def convert(self, deployable: Deployable, example: Tensor, settings: Settings) -> Any:
        """The ONNX program, in memory."""
        program = record(deployable, example, settings)
        with explained(settings):
            program = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[deployable.input_name],
                output_names=list(deployable.output_names),
                opset_version=OPSET,
                custom_translation_table={torch.ops.aten.sort.stable: _sort},
                optimize=False,
                verbose=False,
            )
            _compute_once(program.model)
            program.optimize()
            return program

    def load(self, path: Path, threads: int | None = None) -> Runtime:
        self.check_packages(('onnxruntime',))
        self.check_file(path)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it logs what it also raises
        if threads:
            options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # its classes are many, and none is documented
            raise damaged(path, error) from error
        metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        input_name = session.get_inputs()[0].name
        names = [output.name for output in session.get_outputs()]

        def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, {input_name: inputs}), strict=True))

        return Runtime(decode(metadata), run)

    def restate(self, path: Path, metadata: Mapping[str, Any]) -> None:
        import onnx

        model = onnx.load(path)
        (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
        entry.value = encode(metadata)
        with replacing(path, keep_extension=True) as partial:
            onnx.save(model, partial)


def _sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """`aten::sort.stable`, which torch's table lacks: TopK, too, keeps the order of equal values."""
    from onnxscript import opset18 as op

    size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


def _compute_once(model: Any) -> None:
    """Make one node of those that compute the same, before the optimizer of onnxscript runs.

    It names the bounds of nested clamps that it joins after what is clamped, and where that is clamped
    twice, as by mmdet's `inverse_sigmoid`, loses one of the bounds.
    """
    from onnx_ir.passes import Sequential
    from onnx_ir.passes.common import (
        CommonSubexpressionEliminationPass,
        DeduplicateInitializersPass,
    )

    Sequential(DeduplicateInitializersPass(), CommonSubexpressionEliminationPass())(model)
