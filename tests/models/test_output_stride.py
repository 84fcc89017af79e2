"""`output_stride`: dilated stages on fine maps, exact against the network that they come from."""

import copy

import pytest
import torch
from helpers import SMALL_ARCH, published_weights, randomise, relative_error, save
from torch import nn
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_mm.models.phases import join_phases, split_phases
from unireplknet_ops import is_available


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


needs_op = pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
SIZES = [(64, 96), (97, 71), (9, 5)]
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}


def build(output_stride: int, **kwargs) -> UniRepLKNet:
    return randomise(UniRepLKNet(SMALL_ARCH, output_stride=output_stride, **kwargs))


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('output_stride', DILATIONS)
def test_maps_have_the_strides_that_the_backbone_names(output_stride, size):
    model = build(output_stride).train()
    assert model.out_strides == [4, 8, min(16, output_stride), output_stride]
    maps = model(torch.randn(2, 3, *size))
    for feature, stride in zip(maps, model.out_strides, strict=True):
        assert feature.shape[2:] == tuple(-(-length // stride) for length in size)
        assert feature.isfinite().all()
    assert build(output_stride, out_indices=(1, 3)).out_strides == [8, output_stride]


@pytest.mark.parametrize('output_stride', DILATIONS)
def test_dilations_are_those_of_the_field(output_stride):
    model = build(output_stride)
    for stage, dilation in zip(model.stages, DILATIONS[output_stride], strict=True):
        for block in stage:
            conv = getattr(block.dwconv, 'lk_origin', block.dwconv)
            assert conv.dilation == (dilation, dilation)
    # What mmseg's ResNetV1c has with strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True.
    expected = {8: [(2, 1), (1, 1), (1, 2)], 16: [(2, 1), (2, 1), (1, 1)], 32: [(2, 1)] * 3}
    convs = [layer[0] for layer in model.downsample_layers[1:]]
    assert [(c.stride[0], c.dilation[0]) for c in convs] == expected[output_stride]


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('output_stride', [8, 16])
def test_parameters_are_those_of_stride_32(output_stride, deploy):
    shapes = [
        {name: tensor.shape for name, tensor in build(s, deploy=deploy).state_dict().items()}
        for s in (output_stride, 32)
    ]
    assert shapes[0] == shapes[1]


def test_published_files_load(tmp_path):
    weights = published_weights('t')
    file = save(tmp_path / 'published.pth', dict(model=weights))
    model = UniRepLKNet(
        't', output_stride=8, init_cfg=dict(type='Pretrained', checkpoint=str(file))
    )
    model.init_weights()
    loaded = model.state_dict()
    names = [name for name in weights if name.startswith(('stages.', 'downsample_layers.'))]
    assert len(names) > 500
    assert all(torch.equal(loaded[name], weights[name].to(loaded[name].dtype)) for name in names)


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize(
    ('output_stride', 'settings'),
    [(8, {}), (16, {}), (8, dict(extra_structure='two_dw3x3'))],
    ids=str,
)
def test_positions_of_the_coarse_maps_have_the_values_of_stride_32(output_stride, settings, size):
    """Where nothing averages over positions: SE is made a constant and GRN the identity."""
    fine, coarse = (build(s, **settings).double().eval() for s in (output_stride, 32))
    for model in (fine, coarse):
        for block in model.modules():
            if isinstance(block, UniRepLKNetBlock):
                if not settings:
                    nn.init.zeros_(block.se.up.weight)
                nn.init.zeros_(block.act[1].gamma)
    x = torch.randn(2, 3, *size).double()
    with torch.no_grad():
        for a, b, dilation in zip(fine(x), coarse(x), DILATIONS[output_stride], strict=True):
            assert relative_error(a[..., ::dilation, ::dilation], b) < 1e-12


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('output_stride', [8, 16])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_deploy_form_computes_the_same(output_stride, size, dtype, tolerance):
    model = build(output_stride).to(dtype).eval()
    x = torch.randn(2, 3, *size).to(dtype)
    with torch.no_grad():
        before = model(x)
        model.switch_to_deploy()
        after = model(x)
        for old, new in zip(before, after, strict=True):
            assert relative_error(new, old) < tolerance
        for block in model.stages[-1]:
            conv = block.dwconv.lk_origin
            conv.dilation = (1, 1)
            conv.padding = tuple(k // 2 for k in conv.kernel_size)
            block.dwconv.dilation = 1
        if min(size) > 60:  # on tiny maps nothing but the padding is left to be seen
            assert relative_error(model(x)[3], before[3]) > 1e-3  # the comparison can fail


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ('shape', 'dilation'),
    [((2, 3, 8, 12), 4), ((1, 2, 7, 5), 2), ((2, 5, 1, 3), 4), ((0, 2, 4, 4), 2)],
)
def test_phases_are_the_interleaved_maps(shape, dilation, memory_format):
    x = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
    x = x.contiguous(memory_format=memory_format)
    phases = split_phases(x, dilation)
    height, width = -(-shape[2] // dilation), -(-shape[3] // dilation)
    assert phases.shape == (shape[0] * dilation**2, shape[1], height, width)
    assert phases.is_contiguous(memory_format=memory_format) or not x.numel()
    for n in range(shape[0]):
        for i in range(dilation):
            for j in range(dilation):
                part = x[n, :, i::dilation, j::dilation]
                phase = phases[(n * dilation + i) * dilation + j].clone()
                assert torch.equal(phase[:, : part.shape[1], : part.shape[2]], part)
                phase[:, : part.shape[1], : part.shape[2]] = 0
                assert not phase.any()
    joined = join_phases(phases, dilation, x)
    assert torch.equal(joined, x)
    assert joined.is_contiguous(memory_format=memory_format) or not x.numel()


def operators_of(block: nn.Module, x: torch.Tensor) -> set[str]:
    with profile() as profiler:
        block(x)
    return {event.name for event in profiler.function_events}


def results(block: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics after a forward and a backward pass."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))
    found = dict(y=y.detach(), x=x.grad, **dict(block.named_buffers()))
    return found | {f'gradient of {k}': p.grad for k, p in block.named_parameters()}


@needs_op
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('form', ['train', 'eval', 'deploy'])
@pytest.mark.parametrize(('size', 'dilation'), [((24, 20), 4), ((21, 17), 2), ((3, 2), 4)])
def test_phases_compute_what_the_dilated_modules_do(
    size, dilation, form, memory_format, monkeypatch
):
    block = randomise(DilatedReparamBlock(8, 13, dilation=dilation)).train(form == 'train')
    if form == 'deploy':
        block.switch_to_deploy()
    x = (0.5 + torch.randn(3, 8, *size)).contiguous(memory_format=memory_format)
    names = operators_of(copy.deepcopy(block), x)
    assert {'unireplknet::depthwise_conv2d', 'unireplknet::dilated_reparam'} & names
    actual = results(copy.deepcopy(block), x)
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'native')
    assert not [name for name in operators_of(copy.deepcopy(block), x) if 'unireplknet' in name]
    exact = results(copy.deepcopy(block).double(), x.double())
    expected = results(block, x)
    assert actual.keys() == exact.keys()
    largest = max(exact[name].norm() for name in exact if name.startswith('gradient'))
    for name, right in exact.items():
        assert actual[name].dtype == expected[name].dtype, name
        if not right.is_floating_point():
            assert torch.equal(actual[name], right), name  # the number of batches
            continue
        # BatchNorm leaves some weights without a gradient but for rounding: the largest one is the measure.
        scale = largest if name.startswith('gradient') else right.norm()
        assert (actual[name] - right).norm() <= 1e-4 * scale, name
    assert actual['y'].is_contiguous(memory_format=memory_format)


@needs_op
def test_whole_phases_train_on_the_op_for_all_branches(monkeypatch):
    monkeypatch.setenv('UNIREPLKNET_DILATED_REPARAM', 'op')
    block = randomise(DilatedReparamBlock(8, 13, dilation=2)).train()
    assert 'unireplknet::dilated_reparam' in operators_of(block, torch.randn(2, 8, 8, 6))
    assert 'unireplknet::dilated_reparam' not in operators_of(block, torch.randn(2, 8, 9, 6))
    touched = randomise(DilatedReparamBlock(8, 13, dilation=2)).train()
    touched.lk_origin.register_forward_hook(lambda *_: None)
    assert not touched.can_split(torch.randn(2, 8, 8, 6))
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'native')
    assert not block.can_split(torch.randn(2, 8, 8, 6))


def test_compiles_as_one_graph():
    model = build(8).train()
    compiled = torch.compile(copy.deepcopy(model), backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 3, 64, 64)
    for expected, actual in zip(model(x), compiled(x), strict=True):
        assert relative_error(actual, expected) < 1e-5


def test_graphs_that_leave_the_process_hold_dilated_convolutions():
    model, x = build(8).eval(), torch.randn(1, 3, 64, 48)
    model.switch_to_deploy()
    program = torch.export.export(model, (x,))
    nodes = [node for node in program.graph.nodes if 'conv2d' in str(node.target)]
    assert not any('unireplknet' in str(node.target) for node in program.graph.nodes)
    dilations = [tuple(node.args[5]) for node in nodes if len(node.args) > 5]
    assert dilations.count((4, 4)) == len(model.stages[3])
    with torch.no_grad():
        for expected, actual in zip(model(x), program.module()(x), strict=True):
            assert relative_error(actual, expected) < 1e-5


def test_operations_grow_with_the_positions():
    """For a stride of 8, 16 times those of the last stage and 4 times those of the one before.

    On the meta device, as tools/get_flops.py counts.
    """
    flops = {}
    for output_stride in (8, 32):
        with torch.device('meta'):
            model = UniRepLKNet(SMALL_ARCH, output_stride=output_stride, deploy=True).eval()
        with torch.no_grad(), FlopCounterMode(model, display=False, depth=4) as counter:
            model(torch.zeros(1, 3, 64, 64, device='meta'))
        by_module = counter.get_flop_counts()
        flops[output_stride] = [
            sum(
                sum(by_module[f'UniRepLKNet.stages.{i}.{j}.{part}'].values())
                for j in range(len(stage))
                for part in ('dwconv', 'pwconv1', 'pwconv2')
            )
            for i, stage in enumerate(model.stages)
        ]
    fine, coarse = flops[8], flops[32]
    assert all(coarse)
    assert fine == [coarse[0], coarse[1], 4 * coarse[2], 16 * coarse[3]]


@pytest.mark.parametrize('value', [4, 64, 0, 24, '16', 16.0, True, None])
def test_other_values_are_refused(value):
    with pytest.raises(ArgumentError) as info:
        UniRepLKNet(SMALL_ARCH, output_stride=value)
    assert str(info.value) == (
        f'output_stride must be 8, 16 or 32, got {value!r}: only stages 3 and 4 can keep the resolution of '
        'the stage before'
    )
