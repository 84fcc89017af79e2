"""The torchvision ops that stand in for mmcv's compiled ones: semantics, import, equality.

The equality tests need an mmcv with compiled ops (`make test-mmcv-ops` builds one) and are skipped
elsewhere; with UNIREPLKNET_REQUIRE_MMCV_OPS=1 a missing one is a failure.
"""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from unireplknet_mm import mmcv_ops
from unireplknet_mm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
EXTENSION = importlib.import_module('mmcv._ext')
COMPILED = not isinstance(EXTENSION.__spec__.loader, mmcv_ops.TorchvisionOpsFinder)
REQUIRED = os.environ.get('UNIREPLKNET_REQUIRE_MMCV_OPS') == '1'

only_without_compiled_ops = pytest.mark.skipif(COMPILED, reason='mmcv has its compiled ops')
only_with_compiled_ops = pytest.mark.skipif(
    not COMPILED and not REQUIRED,
    reason='mmcv has no compiled ops to compare with; `make test-mmcv-ops` builds them',
)


def run_python(code: str) -> str:
    """Run code in a fresh interpreter that finds the package, and return what it printed."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)],
        env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'ops')])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def random_boxes(generator: np.random.Generator, count: int, integers: bool = False):
    """Overlapping boxes (count, 4); on a coarse integer grid, exact ties of the IoU are common."""
    corner = generator.uniform(0, 40, (count, 2))
    size = generator.uniform(0, 25, (count, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    boxes = boxes // 5 * 5 if integers else boxes
    return torch.from_numpy(boxes.astype(np.float32))


def expected_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list:
    """Greedy suppression in float32 as mmcv words it, one pair of boxes at a time."""
    kept = []
    offset = np.float32(offset)
    threshold = np.float32(threshold)
    area = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    for candidate in np.argsort(-scores, kind='stable'):
        for winner in kept:
            low = np.maximum(boxes[candidate, :2], boxes[winner, :2])
            high = np.minimum(boxes[candidate, 2:], boxes[winner, 2:])
            width, height = np.maximum(high - low + offset, np.float32(0))
            intersection = width * height
            with np.errstate(invalid='ignore'):  # two boxes of area 0: nan, which is not above
                overlap = intersection / (area[winner] + area[candidate] - intersection)
            if overlap > threshold:
                break
        else:
            kept.append(int(candidate))
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize('integers', [False, True])
def test_nms_equals_a_plain_python_nms(offset, threshold, integers):
    generator = np.random.default_rng(0)
    for count in (1, 2, 17, 60):
        boxes = random_boxes(generator, count, integers)
        scores = torch.from_numpy(generator.random(count).astype(np.float32))
        kept = mmcv_ops.nms(boxes, scores, threshold, offset)
        assert kept.dtype == torch.long
        assert kept.tolist() == expected_nms(boxes.numpy(), scores.numpy(), threshold, offset)


def test_nms_orders_equal_scores_by_position():
    boxes = torch.tensor([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10.0], [50, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.5, 0.5, 0.9])
    assert mmcv_ops.nms(boxes, scores, 0.5, 0).tolist() == [3, 0, 1]


@pytest.mark.parametrize(('intersection', 'threshold'), [(3, 0.3), (7, 0.7), (5, 0.5), (1, 0.1)])
def test_nms_keeps_an_iou_of_exactly_the_threshold(intersection, threshold):
    """One box of 10 units inside another's 10: an IoU of 0.1 * intersection, in float32."""
    boxes = torch.tensor([[0, 0, 10, 1], [0, 0, float(intersection), 1]])
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, threshold, 0).tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, threshold - 1e-3, 0).tolist() == [0]


def test_nms_of_no_boxes_is_an_empty_index():
    kept = mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0)
    assert kept.shape == (0,)
    assert kept.dtype == torch.long


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_takes_scores_of_another_type_than_the_boxes(dtype):
    """Under autocast, scores are half precision and decoded boxes float32."""
    generator = np.random.default_rng(1)
    boxes = random_boxes(generator, 50)
    scores = torch.from_numpy(generator.permutation(50) / 64).to(dtype)
    expected = mmcv_ops.nms(boxes, scores.float(), 0.5, 0)
    assert torch.equal(mmcv_ops.nms(boxes, scores, 0.5, 0), expected)
    assert 0 < len(expected) < 50
    half_boxes = boxes.to(dtype)
    expected = mmcv_ops.nms(half_boxes.float(), scores.float(), 0.5, 0)
    assert torch.equal(mmcv_ops.nms(half_boxes, scores, 0.5, 0), expected)


def random_rois(generator: np.random.Generator, count: int, batch: int) -> torch.Tensor:
    """RoIs (count, 5) in an image of 96x64 pixels; some leave it, one has no area."""
    corner = generator.uniform(-10, 60, (count, 2))
    size = generator.exponential(20, (count, 2))
    if count:
        size[0] = 0
    index = generator.integers(0, batch, (count, 1))
    rois = np.concatenate([index, corner, corner + size], axis=1)
    return torch.from_numpy(rois.astype(np.float32))


ROI_ALIGN_CASES = [
    dict(count=count, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned)
    for count in (0, 1, 23)
    for output_size in ((7, 7), (1, 3), (14, 14))
    for sampling_ratio in (0, 2, 3)
    for aligned in (False, True)
]


def run_roi_align(extension, features, rois, output_size, sampling_ratio, aligned):
    """Forward, then backward with a fixed gradient, into poisoned and non-zero buffers."""
    generator = torch.Generator().manual_seed(0)
    output = torch.full((len(rois), features.shape[1], *output_size), torch.nan).to(features)
    grad_output = torch.randn(output.shape, generator=generator).to(features)
    grad_input = torch.ones(features.shape, dtype=features.dtype)
    options = dict(
        aligned_height=output_size[0],
        aligned_width=output_size[1],
        spatial_scale=0.25,
        sampling_ratio=sampling_ratio,
        pool_mode=1,
        aligned=aligned,
    )
    unused = features.new_zeros(0)
    extension.roi_align_forward(features, rois, output, unused, unused, **options)
    extension.roi_align_backward(grad_output, rois, unused, unused, grad_input, **options)
    return output, grad_input


def test_roi_align_of_a_ramp_is_the_bin_centres():
    """Bilinear sampling is exact on a ramp: a bin's average is the ramp at the bin's centre."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8).contiguous()
    rois = torch.tensor([[0, 4.0, 4.0, 20.0, 20.0]])
    output = torch.full((1, 1, 2, 4), torch.nan)
    unused = torch.zeros(0)
    mmcv_ops.roi_align_forward(ramp, rois, output, unused, unused, 2, 4, 0.25, 2, 1, True)
    assert torch.allclose(output[0, 0], torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(2, 4))
    mmcv_ops.roi_align_forward(ramp, rois, output, unused, unused, 2, 4, 0.25, 2, 1, False)
    assert torch.allclose(output[0, 0], torch.tensor([1.5, 2.5, 3.5, 4.5]).expand(2, 4))


def test_roi_align_backward_adds_to_the_buffer():
    generator = np.random.default_rng(2)
    features = torch.from_numpy(generator.standard_normal((2, 3, 16, 24)).astype(np.float32))
    rois = random_rois(generator, 9, 2)
    _, grad_input = run_roi_align(mmcv_ops, features, rois, (7, 7), 2, True)
    unused = torch.zeros(0)
    twice = grad_input.clone()
    mmcv_ops.roi_align_backward(
        torch.zeros(9, 3, 7, 7), rois, unused, unused, twice, 7, 7, 0.25, 2, 1, True
    )
    assert torch.equal(twice, grad_input)
    assert not torch.equal(grad_input, torch.ones_like(grad_input))


def test_roi_align_gradient_in_float64():
    from mmcv.ops import roi_align

    generator = np.random.default_rng(3)
    features = torch.from_numpy(generator.standard_normal((2, 2, 7, 9))).requires_grad_()
    rois = random_rois(generator, 4, 2).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (3, 2), 0.125, 0, 'avg', True), features
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision_is_float32_rounded_once(dtype):
    generator = np.random.default_rng(4)
    features = torch.from_numpy(generator.standard_normal((2, 3, 16, 24))).to(dtype)
    rois = random_rois(generator, 11, 2).to(dtype)
    output, gradient = run_roi_align(mmcv_ops, features, rois, (7, 7), 0, True)
    expected = run_roi_align(mmcv_ops, features.float(), rois.float(), (7, 7), 0, True)[0]
    assert output.dtype == gradient.dtype == dtype
    assert torch.equal(output, expected.to(dtype))
    with torch.autocast('cpu', torch.bfloat16):
        again, _ = run_roi_align(mmcv_ops, features, rois, (7, 7), 0, True)
    assert torch.equal(again, output)


def test_roi_align_reads_non_contiguous_features():
    generator = np.random.default_rng(5)
    features = torch.from_numpy(generator.standard_normal((2, 3, 16, 24)).astype(np.float32))
    rois = random_rois(generator, 11, 2)
    output, gradient = run_roi_align(mmcv_ops, features, rois, (7, 7), 2, True)
    for layout in (
        features.contiguous(memory_format=torch.channels_last),
        features.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert not layout.is_contiguous()
        again = run_roi_align(mmcv_ops, layout, rois, (7, 7), 2, True)
        assert torch.equal(again[0], output)
        assert torch.equal(again[1], gradient)


def test_roi_align_errors():
    features, unused, output = torch.ones(1, 1, 8, 8), torch.zeros(0), torch.zeros(1, 1, 2, 2)
    rois = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
    with pytest.raises(mmcv_ops.MissingOpError, match=r"pool_mode='max'[\s\S]*pip install"):
        mmcv_ops.roi_align_forward(features, rois, output, unused, unused, 2, 2, 1.0, 0, 0, True)
    with pytest.raises(mmcv_ops.MissingOpError, match="pool_mode='max'"):
        mmcv_ops.roi_align_backward(output, rois, unused, unused, features, 2, 2, 1.0, 0, 0, True)
    assert issubclass(mmcv_ops.MissingOpError, UserError)
    assert issubclass(mmcv_ops.MissingOpError, NotImplementedError)  # what mmcv's callers expect
    rois[0, 1] = 5
    with pytest.raises(RuntimeError, match='negative width'):
        mmcv_ops.roi_align_forward(features, rois, output, unused, unused, 2, 2, 1.0, 0, 1, True)


@only_without_compiled_ops
def test_missing_ops_can_be_looked_up_and_name_themselves_when_called():
    assert callable(EXTENSION.modulated_deform_conv_forward)
    with pytest.raises(mmcv_ops.MissingOpError, match=r'`carafe_forward`[\s\S]*pip install'):
        EXTENSION.carafe_forward(1, mask=2)
    from mmcv.ops import soft_nms

    with pytest.raises(mmcv_ops.MissingOpError, match='`softnms`'):
        soft_nms(torch.rand(3, 4), torch.rand(3))


@only_without_compiled_ops
def test_the_supplied_module_is_a_proper_module():
    assert importlib.util.find_spec('mmcv._ext') is EXTENSION.__spec__
    assert not hasattr(EXTENSION, '__wrapped__')
    importlib.invalidate_caches()
    assert importlib.reload(EXTENSION).nms is mmcv_ops.nms


@only_without_compiled_ops
def test_mmcv_environment_report_says_what_runs():
    from mmcv.utils import collect_env

    assert 'torchvision' in collect_env()['MMCV Compiler']


@only_without_compiled_ops
def test_importing_the_package_makes_mmcv_ops_importable_after_a_failure():
    printed = run_python(
        """
        import sys
        try:
            import mmcv.ops
        except ModuleNotFoundError as error:
            print(error.name)
        import unireplknet_mm
        names = ('mmcv.ops', 'mmcv._ext', 'mmdet', 'mmseg', 'mmpretrain')
        print([name for name in names if name in sys.modules])
        import mmcv.ops, mmdet.models, mmseg.models, mmpretrain.models
        print(mmcv.ops.RoIAlign.__name__)
        """
    )
    failed, imported, *_, name = printed.splitlines()
    assert failed == 'mmcv._ext'
    assert imported == '[]', 'importing the package imports no ops and no toolbox'
    assert name == 'RoIAlign'


@pytest.mark.parametrize('compiled', [False, True])
def test_a_compiled_extension_always_wins(tmp_path, monkeypatch, compiled):
    """A made-up mmcv, with and without an extension module, and the finder of this package."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    if compiled:
        (package / '_ext.py').write_text("nms = 'the compiled one'\n", encoding='utf-8')
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmcv']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    extension = importlib.import_module('mmcv._ext')
    for name in ('mmcv', 'mmcv._ext'):  # the real one comes back
        monkeypatch.delitem(sys.modules, name)
    assert extension.nms == ('the compiled one' if compiled else mmcv_ops.nms)


@only_with_compiled_ops
def test_mmcv_uses_its_compiled_ops_where_it_has_them():
    from mmcv.ops import nms

    assert COMPILED, 'UNIREPLKNET_REQUIRE_MMCV_OPS=1, but mmcv has no compiled ops'
    assert EXTENSION.__file__.endswith(('.so', '.pyd'))
    assert sys.modules[nms.__module__].ext_module is EXTENSION


@only_with_compiled_ops
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.1, 0.3, 0.5, 0.7, 0.99, 1.0])
def test_nms_equals_the_compiled_op(offset, threshold):
    assert COMPILED, 'UNIREPLKNET_REQUIRE_MMCV_OPS=1, but mmcv has no compiled ops'
    generator = np.random.default_rng(6)
    suppressed = 0
    for count in (0, 1, 2, 5, 64, 65, 300, 1000):
        for integers in (False, True):
            boxes = random_boxes(generator, count, integers)
            distinct = torch.from_numpy(generator.random(count).astype(np.float32))
            tied = (distinct * 4).floor() / 4
            backwards = torch.cat((boxes[:, 2:], boxes[:, :2]), dim=1)
            strided = torch.stack((boxes, boxes), dim=2)[..., 0]
            for some_boxes in (boxes, backwards, strided):
                for scores in (distinct, tied, tied.bfloat16(), tied.half(), distinct.double()):
                    theirs = EXTENSION.nms(
                        some_boxes, scores, iou_threshold=threshold, offset=offset
                    )
                    ours = mmcv_ops.nms(some_boxes, scores, iou_threshold=threshold, offset=offset)
                    assert ours.dtype == theirs.dtype
                    assert torch.equal(ours, theirs)
                    suppressed += count - len(ours)
    assert suppressed > 0 or threshold == 1


@only_with_compiled_ops
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('shape', [(2, 3, 16, 24), (1, 1, 1, 1), (3, 2, 5, 1)])
def test_roi_align_equals_the_compiled_op(shape, dtype):
    assert COMPILED, 'UNIREPLKNET_REQUIRE_MMCV_OPS=1, but mmcv has no compiled ops'
    generator = np.random.default_rng(7)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for case in ROI_ALIGN_CASES:
        features = torch.from_numpy(generator.standard_normal(shape)).to(dtype)
        rois = random_rois(generator, case['count'], shape[0]).to(dtype)
        options = {key: value for key, value in case.items() if key != 'count'}
        theirs = run_roi_align(EXTENSION, features, rois, **options)
        ours = run_roi_align(mmcv_ops, features, rois, **options)
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.isfinite(mine).all()
            torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


@only_with_compiled_ops
def test_roi_align_in_float16_equals_the_compiled_op_to_its_rounding():
    """The compiled op also computes the sampling points in float16, so only a tame case is close."""
    assert COMPILED, 'UNIREPLKNET_REQUIRE_MMCV_OPS=1, but mmcv has no compiled ops'
    generator = np.random.default_rng(8)
    features = torch.from_numpy(generator.standard_normal((2, 3, 16, 24))).half()
    rois = torch.tensor([[0, 4, 4, 36, 36], [1, 8, 0, 24, 16], [1, 0, 0, 64, 64]]).half()
    theirs = run_roi_align(EXTENSION, features, rois, (4, 4), 2, True)
    ours = run_roi_align(mmcv_ops, features, rois, (4, 4), 2, True)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-2)


@only_with_compiled_ops
def test_an_aligned_roi_of_negative_size_is_an_error_in_both():
    assert COMPILED, 'UNIREPLKNET_REQUIRE_MMCV_OPS=1, but mmcv has no compiled ops'
    rois = torch.tensor([[0, 5.0, 0.0, 4.0, 4.0]])
    for extension in (EXTENSION, mmcv_ops):
        with pytest.raises(RuntimeError):
            run_roi_align(extension, torch.ones(1, 1, 8, 8), rois, (2, 2), 0, True)


def deformable_attention_inputs(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Two images, three levels, four heads of five channels, seven queries with two points a level."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[6, 9], [3, 5], [2, 3]])
    areas = shapes.prod(1)
    starts = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
    value = torch.randn(2, int(areas.sum()), 4, 5, generator=generator)
    # Some beyond the map, where it is 0.
    locations = 1.2 * torch.rand(2, 7, 4, 3, 2, 2, generator=generator) - 0.1
    weights = torch.rand(2, 7, 4, 3, 2, generator=generator)
    return value.to(dtype), shapes, starts, locations.to(dtype), weights.to(dtype)


def deformable_attention_by_hand(value, shapes, starts, locations, weights) -> torch.Tensor:
    """One point at a time: the weighted sum of the map's bilinear values, 0 outside."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    out = torch.zeros(batch, queries, heads, channels, dtype=value.dtype)
    for n, q, h, level, point in np.ndindex(*weights.shape):
        height, width = shapes[level].tolist()
        x, y = (locations[n, q, h, level, point] * torch.tensor([width, height]) - 0.5).tolist()
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    at = value[n, starts[level] + row * width + column, h]
                    out[n, q, h] += weights[n, q, h, level, point] * share * at
    return out.flatten(2)


@only_without_compiled_ops
def test_deformable_attention_is_what_mmcv_calls_on_a_gpu():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, starts, locations, weights = deformable_attention_inputs(torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]

    def attend(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)

    with torch.no_grad():
        expected = deformable_attention_by_hand(value, shapes, starts, locations, weights)
    torch.testing.assert_close(attend(*inputs), expected, rtol=1e-10, atol=1e-12)
    torch.autograd.gradcheck(attend, inputs)
