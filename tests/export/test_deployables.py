"""Models as functions of plain tensors: what stands before the layers, their forms, what is refused."""

import copy
import importlib

import detectors
import numpy as np
import pytest
import torch
from file_models import ROOT, SMALL, build, function_of
from helpers import load_config
from mmengine.model import ImgDataPreprocessor
from torch import nn

from unireplknet_mm.errors import MissingPackageError
from unireplknet_mm.export import FORMATS, ExportError, deployable, find_format, load
from unireplknet_mm.export.comparison import Comparison, compare
from unireplknet_mm.export.deployable import Deployable, largest_difference
from unireplknet_mm.export.errors import first_line
from unireplknet_mm.export.formats import Settings
from unireplknet_mm.export.formats.base import PRECISIONS
from unireplknet_mm.export.images import ImagePreprocessing
from unireplknet_mm.export.rewriting import (
    AveragePool,
    RowwiseResponseNorm,
    RowwiseSqueeze,
    open_pools,
    wrap_convolutions,
    write_pointwise,
)
from unireplknet_mm.launch.exporting import (
    Samples,
    add_test_pipeline,
    sample_shape,
    without_fitting,
)
from unireplknet_mm.models.block_layers import GlobalResponseNorm, SqueezeExcitation
from unireplknet_mm.models.blocks import UniRepLKNetBlock

MEAN, STD = [10.0, 20.0, 30.0], [2.0, 3.0, 4.0]


@pytest.mark.parametrize('swaps', [True, False])
@pytest.mark.parametrize('divisor', [1, 32])
def test_pixels_become_what_the_data_preprocessor_makes_of_them(swaps, divisor):
    preprocessor = ImgDataPreprocessor(
        MEAN, STD, pad_size_divisor=divisor, pad_value=7, bgr_to_rgb=swaps
    )
    preprocessing = ImagePreprocessing(preprocessor)
    images = torch.randint(0, 256, (2, 3, 33, 50), dtype=torch.uint8)
    batch = dict(inputs=preprocessing.to_pipeline(images))
    expected = preprocessor(batch)['inputs']
    torch.testing.assert_close(preprocessing(images), expected, rtol=0, atol=0)


def test_a_pipelines_image_comes_back_from_the_file_s_input():
    preprocessing = ImagePreprocessing(ImgDataPreprocessor(MEAN, STD, bgr_to_rgb=True))
    image = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    batch = preprocessing.from_pipeline(image)
    assert not torch.equal(batch[0], image)
    assert torch.equal(preprocessing.to_pipeline(batch)[0], image)


def test_bytes_that_a_pipeline_holds_in_floats_are_bytes():
    preprocessing = ImagePreprocessing(ImgDataPreprocessor(MEAN, STD, bgr_to_rgb=True))
    image = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    expected = preprocessing.from_pipeline(image)
    assert torch.equal(preprocessing.from_pipeline(image.float()), expected)
    resized = image.float()
    resized[0, 0, :2], image[0, 0, 0], image[0, 0, 1] = torch.tensor([-20.4, 270.2]), 0, 255
    given = preprocessing.from_pipeline(resized)
    assert given.dtype == torch.uint8
    assert torch.equal(given, preprocessing.from_pipeline(image))


@pytest.mark.parametrize('scale', [1 / 255, 257])
def test_pixels_of_another_range_are_refused_with_the_way_out(scale):
    image = torch.randint(1, 255, (3, 5, 4)) * scale
    with pytest.raises(ExportError, match='leave scaling and subtraction to the data preprocessor'):
        ImagePreprocessing(None).from_pipeline(image)
    many = torch.cat((image, image))
    assert torch.equal(ImagePreprocessing(None, channels=6).from_pipeline(many), many[None])


def test_grey_images_keep_their_channel():
    preprocessing = ImagePreprocessing(None, channels=1)
    image = torch.randint(0, 256, (1, 5, 4), dtype=torch.uint8)
    assert torch.equal(preprocessing(image[None])[0], image.float())


@pytest.mark.parametrize('name', SMALL)
def test_the_function_agrees_with_the_toolbox(name):
    if name == 'videos':
        pytest.importorskip('av', reason='no PyAV, which the configs of videos import')
    if name == 'points':
        pytest.importorskip('h5py', reason='no h5py, which the configs of point clouds import')
    if name == 'series':
        pytest.importorskip('pandas', reason='no pandas, which the configs of series import')
    function = function_of(name)
    example = function.example(3, SMALL[name][1])
    outputs = function(example)
    assert len(outputs) == len(function.output_names)
    arrays = {key: x.numpy() for key, x in zip(function.output_names, outputs, strict=True)}
    differences = function.differences(function.reference(example), arrays)
    limits = function.limits('fp32')
    assert differences.keys() == limits.keys()
    assert all(differences[key] <= limits[key] / 10 for key in limits), differences


@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_lower_precision_is_near(dtype):
    function = function_of('classifier')
    example = function.example(2, (3, 64, 64))
    reference = function.reference(example)
    function.to_precision(PRECISIONS[dtype])
    (scores,) = function(example)
    assert scores.dtype == torch.float32
    differences = function.differences(reference, dict(scores=scores.numpy()))
    assert 0 < differences['scores'] <= function.limits(dtype)['scores']


@pytest.mark.parametrize('form', ['linear', 'matmul', 'convolution'])
@pytest.mark.parametrize('folds', [True, False])
@pytest.mark.parametrize('by_rows', [True, False])
def test_forms_of_pointwise_layers_compute_the_same(form, folds, by_rows):
    backbone = build('classifier', folds).backbone.double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    (expected,) = backbone(x)
    other = copy.deepcopy(backbone)
    blocks = sum(isinstance(module, UniRepLKNetBlock) for module in backbone.modules())
    assert write_pointwise(other, form, by_rows) == blocks
    is_linear = any(isinstance(module, nn.Linear) for module in other.stages.modules())
    assert is_linear == (form == 'linear')
    assert not any(isinstance(module, GlobalResponseNorm) for module in other.modules())
    assert by_rows != any(isinstance(module, SqueezeExcitation) for module in other.modules())
    torch.testing.assert_close(other(x)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('channels_first', [False, True])
def test_response_norms_of_large_maps_are_exact(channels_first):
    """Of areas of one colour, the errors of rounding all have one sign."""
    norm = GlobalResponseNorm(4)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 1, 1, 4).expand(1, 200, 336, 4)
    expected = copy.deepcopy(norm).double()(x.double())
    order = (0, 3, 1, 2) if channels_first else (0, 1, 2, 3)
    given = RowwiseResponseNorm(norm, channels_first)(x.permute(order).contiguous())
    torch.testing.assert_close(given.double(), expected.permute(order), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize('size', [(1, 1), (6, 6), (5, 7), (12, 12), (13, 31), (2, 3)])
def test_an_open_pool_is_the_adaptive_one(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for output in (2, 3, 6, (3, 2)):
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(output))
        expected = pool(x)
        assert open_pools(pool) == 1
        assert isinstance(pool[0], AveragePool)
        torch.testing.assert_close(pool(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('kernel_size', [1, 3, 7])
def test_wrapped_convolutions_compute_the_same(kernel_size):
    padding = kernel_size // 2
    convolution = nn.Conv1d(3, 4, kernel_size, padding=padding, padding_mode='circular')
    model = nn.Sequential(convolution.double())
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    expected = model(x)
    assert wrap_convolutions(model) == (kernel_size > 1)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(
    ('whole', 'by_rows'),
    [
        (GlobalResponseNorm(4), RowwiseResponseNorm),
        (SqueezeExcitation(4, 2), RowwiseSqueeze),
    ],
    ids=['norm', 'squeeze'],
)
@torch.no_grad()
def test_runtimes_sum_large_maps_by_rows(whole, by_rows, runtime, tmp_path):
    """Of whole maps ONNX Runtime is off by 1e-4, and OpenVINO, which joins two sums of one kind, as well."""
    for package in ('onnxscript', runtime):
        pytest.importorskip(package, reason=f'no {package} package')
    torch.manual_seed(0)
    for parameter in whole.parameters():
        nn.init.normal_(parameter)
    x = 1 + torch.randn(1, 1, 1, 4).expand(1, 200, 336, 4).contiguous()
    if by_rows is RowwiseSqueeze:
        x = x.permute(0, 3, 1, 2).contiguous()
    expected = copy.deepcopy(whole).double()(x.double()).numpy()
    path = tmp_path / 'module.onnx'
    torch.onnx.export(by_rows(whole).eval(), (x,), dynamo=True, verbose=False).save(path)
    if runtime == 'onnxruntime':
        session = importlib.import_module(runtime).InferenceSession(path)
        (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    else:
        hint = dict(INFERENCE_PRECISION_HINT='f32')
        core = importlib.import_module(runtime).Core()
        given = core.compile_model(path, 'CPU', hint)([x.numpy()])[0]
    np.testing.assert_allclose(given, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.fixture(scope='module')
def functions():
    detector = deployable(detectors.build(detectors.region_config(1)))
    return dict(cls=function_of('classifier'), seg=function_of('segmenter'), det=detector)


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        ('cls/unireplknet_t_in1k.py', (224, 224)),
        ('cls/unireplknet_s_in22k_to_in1k_384.py', (384, 384)),
        ('cls/unireplknet_s_in22k.py', (224, 224)),  # without a test set
        ('cls/unireplknet_xl_in22k.py', (192, 192)),
        ('seg/upernet_unireplknet_t_160k.py', (512, 512)),
        ('seg/upernet_unireplknet_l_160k.py', (640, 640)),
        ('det/cascade_unireplknet_t_3x.py', (800, 1344)),
        ('det/rtmdet_unireplknet_t_100e.py', (640, 640)),
        ('demo/cascade_unireplknet_demo.py', (160, 160)),
    ],
)
def test_images_have_the_size_that_the_config_tests_with(config, size, functions):
    cfg = load_config(ROOT / 'configs' / config)
    add_test_pipeline(cfg)
    function = functions[config[:3] if config[:3] in functions else 'det']
    assert sample_shape(cfg, function, None) == (3, *size)
    assert sample_shape(cfg, function, (64, 96)) == (3, 64, 96)


def test_what_a_pipeline_resizes_and_pads_is_left_to_the_letterbox():
    cfg = load_config(ROOT / 'configs' / 'det' / 'rtmdet_unireplknet_t_100e.py')
    left, padding = without_fitting(cfg)
    assert padding['pad_val'] == dict(img=(114, 114, 114)) and padding['size'] == (640, 640)
    steps = cfg.test_dataloader.dataset.pipeline
    kept = left.test_dataloader.dataset.pipeline
    assert [step['type'] for step in steps if step not in kept] == ['Resize', 'Pad']
    assert without_fitting(left)[1] is None
    steps.insert(1, padding)
    with pytest.raises(ExportError, match='resizes and pads once'):
        without_fitting(cfg)


def test_a_config_that_reads_no_single_files_takes_none():
    cfg = load_config(ROOT / 'tests' / 'data' / 'configs' / 'series_small.py')
    with pytest.raises(ExportError, match=r'--images: config .*series_small\.py reads no single'):
        Samples(None, None).of_files(cfg, ['table.csv'])


def test_what_is_no_model_is_refused():
    with pytest.raises(ExportError, match='Linear cannot be exported'):
        deployable(nn.Linear(2, 2))


class OtherBackbone(nn.Module):
    """As ResNet and ConvNeXt of the toolboxes: no number of channels, and `train` returns nothing."""

    out_indices = (0,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def train(self, mode: bool = True) -> None:
        super().train(mode)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layer(x),)


def test_a_backbone_may_be_another_network():
    preprocessor = ImgDataPreprocessor(MEAN, STD, bgr_to_rgb=True)
    function = deployable(OtherBackbone(), preprocessor=preprocessor)
    assert not function.model.training and not function.model.layer.weight.requires_grad
    images = function.example(1, (3, 8, 8))
    outputs = dict(zip(function.output_names, (x.numpy() for x in function(images)), strict=True))
    assert function.differences(function.reference(images), outputs) == dict(stage0=0)


def test_logits_of_two_classes_may_be_one():
    """Of those mmseg's samples have the probability."""
    model = build('segmenter', decode_head=dict(num_classes=2, out_channels=1, threshold=0.4))
    function = deployable(model, logits=True)
    images = function.example(2, (3, 64, 96))
    labels, logits = (x.numpy() for x in function(images))
    assert logits.shape == (2, 1, 64, 96) and logits.min() < 0 and 0 < labels.mean() < 1
    found = function.differences(function.reference(images), dict(labels=labels, logits=logits))
    assert found['labels'] == 0 and found['logits'] < 1e-5


def test_an_input_that_the_model_itself_fails_on_is_named(functions, monkeypatch):
    """As mmdet does on a mask that lies wholly beyond the picture."""

    def fail(images):
        raise RuntimeError('upper bound and lower bound inconsistent')

    function = functions['cls']
    monkeypatch.setattr(function, 'reference', fail)
    with pytest.raises(ExportError, match=r'cat\.jpg: the model itself.*: upper bound') as error:
        compare(function, None, [('cat.jpg', function.example(1, (3, 64, 64)))], 'fp32')
    assert len(str(error.value).splitlines()) == 2


def test_sliding_windows_are_refused():
    model = build('segmenter')
    model.test_cfg.mode = 'slide'
    with pytest.raises(ExportError, match=r'model\.test_cfg\.mode=whole'):
        deployable(model)


def with_calendar():
    """A forecaster with weights for the calendar, a packed window, and what it forecasts of that."""
    pytest.importorskip('pandas', reason='no pandas, which the configs of series import')
    model = build('series', embedding=dict(calendar=True))
    generator = torch.Generator().manual_seed(0)
    past = torch.randn(24, 3, generator=generator)
    calendar = torch.rand(30, 5, generator=generator) - 0.5
    with torch.no_grad():
        forecast = model(past[None], calendar[None])
    assert not torch.allclose(forecast, model(past[None]), rtol=1e-2)
    return deployable(model), dict(inputs=past, calendar=calendar), forecast


def test_a_forecaster_takes_the_calendar_that_it_was_trained_with():
    function, sample, forecast = with_calendar()
    table = function.from_sample(sample)
    assert table.shape[1:] == function.sample_shape((24, 3)) == (30, 8)
    torch.testing.assert_close(function(table)[0], forecast)
    np.testing.assert_allclose(
        function.reference(table)['forecast'], forecast, rtol=1e-4, atol=1e-5
    )
    table[:, 24:, :3] = float('nan')  # what is to be forecast is not read
    torch.testing.assert_close(function(table)[0], forecast)
    assert 'hour of day' in function.describe()['input']['values']


def test_a_forecaster_without_a_calendar_takes_the_past_alone():
    pytest.importorskip('pandas', reason='no pandas, which the configs of series import')
    function = function_of('series')
    past = torch.randn(24, 3)
    table = function.from_sample(dict(inputs=past, calendar=torch.zeros(30, 5)))
    assert torch.equal(table, past[None])
    assert function.sample_shape((24, 3)) == (24, 3)


def test_an_axis_that_must_not_be_open_is_refused():
    pytest.importorskip('pandas', reason='no pandas, which the configs of series import')
    with pytest.raises(ExportError, match='--dynamic size'):
        function_of('series').dynamic_shapes(('size',))


def test_an_input_that_is_too_small_is_refused_in_two_lines(tmp_path):
    function = function_of('classifier')
    function.forward = lambda images: function.model.backbone(images.float()[..., :0])
    with pytest.raises(ExportError, match='does not take an input of 3×8×8') as error:
        FORMATS['onnx'].write(
            function, function.example(1, (3, 8, 8)), tmp_path / 'x.onnx', Settings()
        )
    assert len(str(error.value).splitlines()) == 2
    assert not any(tmp_path.iterdir())


def test_of_openvino_s_errors_the_cause_is_said():
    said = """Exception from src/inference/src/cpp/infer_request.cpp:117:
        Exception from src/inference/src/cpp/infer_request.cpp:67:
        Check 'shape.compatible(tensor->get_shape())' failed at src/plugins/intel_cpu/infer_request.cpp:385:
        Can't set the input tensor with index: 0"""
    assert first_line(RuntimeError(said)) == "Can't set the input tensor with index: 0"
    alone = 'Exception from src/plugin.cpp:1:'
    assert first_line(RuntimeError(alone)) == alone
    assert first_line(RuntimeError('')) == 'RuntimeError'


def test_a_size_of_1_cannot_be_left_open(tmp_path):
    function = function_of('classifier')
    settings = Settings(dynamic=('size',))
    with pytest.raises(ExportError, match='choose a larger --input-size'):
        FORMATS['torch-export'].write(
            function, function.example(1, (3, 1, 1)), tmp_path / 'x.pt2', settings
        )


def test_mask2former_leaves_no_size_open():
    model = build('segmenter')
    model.decode_head.__class__ = type('Mask2FormerHead', (type(model.decode_head),), {})
    with pytest.raises(ExportError, match='allows that for batch only'):
        deployable(model).dynamic_shapes(('size',))


@pytest.mark.parametrize(('precision', 'advice'), [('fp32', True), ('fp16', False)])
def test_a_model_beyond_one_onnx_file_is_told_what_is_left(precision, advice, tmp_path):
    linear = nn.Linear(2**15, 2**15, device='meta')  # 4 GiB
    linear = linear.half() if precision == 'fp16' else linear
    with pytest.raises(ExportError, match='--format openvino') as error:
        FORMATS['onnx'].write(linear, None, tmp_path / 'x.onnx', Settings(precision))
    assert ('--precision fp16' in str(error.value)) == advice


@pytest.mark.parametrize(
    ('format', 'precision'), [('onnx', 'int8'), ('torch-export', 'int8'), ('aoti', 'int8')]
)
def test_a_precision_that_a_format_lacks_is_refused(format, precision, monkeypatch):
    monkeypatch.setattr(type(FORMATS[format]), 'packages', ())
    with pytest.raises(ExportError, match=f'has no --precision {precision}'):
        FORMATS[format].check(precision)


@pytest.mark.parametrize('format', ['onnx', 'openvino'])
def test_a_runtime_that_is_missing_names_its_extra(format, monkeypatch):
    monkeypatch.setattr(type(FORMATS[format]), 'packages', ('no_such_runtime',))
    with pytest.raises(MissingPackageError, match=rf'no_such_runtime.*\[{format}\]'):
        FORMATS[format].check('fp32')


@pytest.mark.parametrize('suffix', ['.pt2', '.aoti.pt2'])
def test_a_damaged_archive_is_refused(tmp_path, suffix):
    path = tmp_path / f'model{suffix}'
    path.write_bytes(b'PK\x03\x04 and no more')
    with pytest.raises(ExportError, match='damaged'):
        load(path)
    path.write_bytes(b'')
    with pytest.raises(ExportError, match='is empty'):
        load(path)
    with pytest.raises(ExportError, match='does not exist'):
        load(tmp_path / f'other{suffix}')


def test_formats_are_told_by_names():
    assert find_format('a/b.aoti.pt2').name == 'aoti'
    assert find_format('a/b.pt2').name == 'torch-export'
    assert find_format('a/b.xml').name == 'openvino'
    with pytest.raises(ExportError, match=r'\.onnx \(onnx\)'):
        find_format('model.trt')


def test_differences_that_are_no_numbers_are_infinite():
    ones = np.ones((2, 3))
    assert largest_difference(ones, ones * np.nan) == float('inf')
    assert largest_difference(ones, np.ones((3, 2))) == float('inf')
    comparison = Comparison(dict(scores=1.0))
    assert not comparison.agrees  # nothing was compared
    comparison.add('a', dict(scores=0.5))
    assert comparison.agrees
    comparison.add('b', dict(scores=float('nan')))
    assert not comparison.agrees
    assert 'TOO MUCH' in comparison.lines()[0] and '(b)' in comparison.lines()[0]


@pytest.mark.parametrize(
    ('shape', 'axis', 'is_open'),
    [((2, 150, 9, 7), 1, True), ((3, 5), 1, False), ((4, 6, 3), -1, False), ((2, 3, 4), 0, False)],
)
def test_arg_max_of_openvino(shape, axis, is_open):
    """The first of equal values, of any axis; what else TopK gives is left to it."""
    openvino = pytest.importorskip('openvino')
    from openvino import opset13 as ops

    from unireplknet_mm.export.formats.openvino import write_arg_max

    def kinds(model):
        return [node.get_type_name() for node in model.get_ordered_ops()]

    x = ops.parameter([-1, *shape[1:]] if is_open else list(shape), openvino.Type.f32)
    largest = ops.topk(x, 1, axis, 'max', 'none', 'i64')
    model = openvino.Model([ops.squeeze(largest.output(1), [axis])], [x])
    write_arg_max(model)
    assert 'TopK' not in kinds(model)
    values = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    (found,) = openvino.Core().compile_model(model, 'CPU')([values]).values()
    assert found.dtype == np.int64 and np.array_equal(found, values.argmax(axis))

    two = ops.topk(x, 2, axis, 'max', 'none', 'i64').output(1)
    least = ops.topk(x, 1, axis, 'min', 'none', 'i64').output(1)
    with_values = ops.topk(x, 1, axis, 'max', 'none', 'i64').outputs()
    for outputs in ([two], [least], with_values):
        model = openvino.Model(outputs, [x])
        write_arg_max(model)
        assert 'TopK' in kinds(model)


@pytest.mark.parametrize(
    ('precision', 'hint'), [('fp32', 'f32'), ('fp16', 'f32'), ('bf16', 'bf16')]
)
def test_openvino_says_in_what_its_files_were_compared(precision, hint):
    """It computes in bfloat16 by itself on processors that have it, which no file can change."""
    said = FORMATS['openvino'].advice(precision)
    assert f"compile_model(path, 'CPU', {{'INFERENCE_PRECISION_HINT': '{hint}'}})" in said
    assert FORMATS['onnx'].advice(precision) is None


@pytest.mark.parametrize('axis', [1, -1])
def test_an_arg_max_is_quantized_before_it_is_rewritten(axis, tmp_path, monkeypatch):
    """Its comparisons and ranks are exact numbers, which int8 would round: half of the labels change."""
    openvino = pytest.importorskip('openvino')
    from openvino import opset13 as ops

    from unireplknet_mm.export.formats import openvino as module

    def quantize(model, settings, exact):
        quantized.extend(node.get_type_name() for node in model.get_ordered_ops())
        return model

    quantized = []
    monkeypatch.setattr(module, 'quantize', quantize)
    x = ops.parameter([2, 5], openvino.Type.f32)
    model = openvino.Model([ops.topk(x, 1, axis, 'max', 'none', 'i64').output(1)], [x])
    monkeypatch.setattr(module.OpenVino, 'convert', lambda *arguments: model)
    monkeypatch.setattr(module, 'complete_metadata', lambda *arguments: {})
    module.OpenVino().write(Deployable, None, tmp_path / 'model.xml', Settings('int8'))
    assert 'TopK' in quantized and 'ReduceMax' not in quantized
    assert '"TopK"' not in (tmp_path / 'model.xml').read_text()
