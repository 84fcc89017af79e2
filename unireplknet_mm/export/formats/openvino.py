"""OpenVINO's intermediate representation: a `.xml` file with the graph and a `.bin` file with the weights."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from torch import Tensor

from unireplknet_mm.export.deployable import Deployable
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
from unireplknet_mm.export.formats.onnx import Onnx
from unireplknet_mm.export.formats.recording import explained
from unireplknet_mm.files import replacing


class OpenVino(Format):
    """Converted from ONNX; int8 by NNCF, which measures the ranges on the calibration inputs.

    fp16 stores weights in 16 bits and computes in 32. bf16 stores 32 bits and computes in bfloat16 on
    processors that do. No file can say so: OpenVINO computes as its INFERENCE_PRECISION_HINT says, which is
    bfloat16 on processors that have it, and `load` sets it as the precision is.
    """

    name = 'openvino'
    suffix = '.xml'
    packages = ('openvino', 'onnx', 'onnxscript')
    extra = 'openvino'
    precisions = ('fp32', 'fp16', 'bf16', 'int8')
    pointwise = 'convolution'
    lowers_precision = True
    computes_in = dict(fp32='f32', fp16='f32', bf16='bf16', int8='f32')

    def check(self, precision: str) -> None:
        super().check(precision)
        if precision == 'int8':
            self.check_packages(('nncf',))

    def parts(self, path: Path) -> list[Path]:
        return [path.with_suffix('.bin'), path]

    def advice(self, precision: str) -> str:
        hint = dict(INFERENCE_PRECISION_HINT=self.computes_in[precision])
        return (
            f"Load it as it was compared, compile_model(path, 'CPU', {hint}): by itself OpenVINO computes in "
            'bf16 where the processor has it.'
        )

    def write(
        self, deployable: Deployable, example: Tensor, path: Path, settings: Settings
    ) -> None:
        import openvino

        model = self.convert(deployable, example, settings)
        if settings.precision == 'int8':
            model = quantize(model, settings, deployable.exact_operators)
        write_arg_max(model)  # quantized, it would compare rounded values with each other
        metadata = complete_metadata(deployable, example, settings)
        model.set_rt_info(encode(metadata), [METADATA_KEY])
        openvino.save_model(model, path, compress_to_fp16=settings.precision == 'fp16')

    def convert(self, deployable: Deployable, example: Tensor, settings: Settings) -> Any:
        import openvino

        program = Onnx().convert(deployable, example, settings)
        with explained(settings), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.onnx'
            program.save(path)
            return openvino.convert_model(path)

    def load(self, path: Path, threads: int | None = None) -> Runtime:
        self.check_packages(('openvino',))
        for part in self.parts(path):
            self.check_file(part)
        import openvino
        from openvino import properties

        core = openvino.Core()
        try:
            model = core.read_model(path)
            metadata = decode(_rt_info(model))
            hint = self.computes_in[metadata.get('precision', 'fp32')]
            config = {
                properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
                properties.hint.inference_precision(): hint,
            }
            if threads:
                config[properties.inference_num_threads()] = threads
            compiled = core.compile_model(model, 'CPU', config)
        except RuntimeError as error:
            raise damaged(path, error) from error
        request = compiled.create_infer_request()
        names = [output.get_any_name() for output in compiled.outputs]

        def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
            request.infer([inputs], share_inputs=True)
            return {
                name: request.get_output_tensor(index).data.copy()
                for index, name in enumerate(names)
            }

        return Runtime(metadata, run)

    def restate(self, path: Path, metadata: Mapping[str, Any]) -> None:
        graph = ElementTree.parse(path)
        entry = graph.getroot().find(f'rt_info/{METADATA_KEY}')
        assert entry is not None
        entry.set('value', encode(metadata))
        with replacing(path, keep_extension=True) as partial:
            graph.write(partial, encoding='utf-8', xml_declaration=True)


def _rt_info(model: Any) -> str | None:
    return (
        model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else None
    )


def write_arg_max(model: Any) -> None:
    """Let an arg max be found by two maxima, in place: OpenVINO's TopK takes a tenth of a segmenter's time.

    The first of equal values counts, as in PyTorch.
    """
    import openvino
    from openvino import opset13 as ops

    for node in model.get_ops():
        if node.get_type_name() != 'TopK' or node.output(0).get_target_inputs():
            continue
        x, index = node.input_value(0), node.output(1)
        mode = node.get_attributes()['mode']
        axis = node.get_attributes()['axis'] % len(x.get_partial_shape())
        is_one = index.get_partial_shape()[axis] == openvino.Dimension(1)
        if mode != 'max' or not is_one or x.get_partial_shape()[axis].is_dynamic:
            continue
        count = x.get_partial_shape()[axis].get_length()
        shape = [-1 if i == axis else 1 for i in range(len(x.get_partial_shape()))]
        ranks = np.arange(count, 0, -1, dtype=np.float32).reshape(shape)  # count at index 0
        axes = np.array([axis])
        largest = ops.reduce_max(x, axes, keep_dims=True)
        is_largest = ops.convert(ops.greater_equal(x, largest), 'f32')
        rank = ops.reduce_max(ops.multiply(is_largest, ranks), axes, keep_dims=True)
        found = ops.convert(ops.subtract(np.float32(count), rank), index.get_element_type())
        for user in index.get_target_inputs():
            user.replace_source_output(found.output(0))
    model.validate_nodes_and_infer_types()


def quantize(model: Any, settings: Settings, exact: Sequence[str] = ()) -> Any:
    """A model with int8 convolutions and products, their ranges measured on the calibration inputs.

    Args:
        exact: types of operators whose inputs are not rounded.
    """
    import nncf

    inputs = [one.numpy() for one in settings.calibration]
    with explained(settings):
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(types=list(exact), validate=False),
            subset_size=len(inputs),
        )
