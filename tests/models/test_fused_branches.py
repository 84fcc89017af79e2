"""The Dilated Reparam Block in training: the op that takes its branches' place, and when it may."""

import copy
import warnings

import pytest
import torch
from helpers import SMALL_ARCH, randomise, relative_error
from torch import nn
from torch.autograd.profiler import profile

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_mm.models.layers import is_untouched
from unireplknet_ops import DepthwiseConv2d, is_available

needs_op = pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
FORCE_VARIABLE = 'UNIREPLKNET_DILATED_REPARAM'


@pytest.fixture(autouse=True)
def op_where_it_can_run(monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    torch.manual_seed(0)


def make_block(channels=24, kernel_size=13, **kwargs) -> DilatedReparamBlock:
    return randomise(DilatedReparamBlock(channels, kernel_size, **kwargs)).train()


def is_fused(block: nn.Module, x: torch.Tensor) -> bool:
    with profile() as profiler:
        block(x)
    return 'unireplknet::dilated_reparam' in [e.name for e in profiler.function_events]


def train(block: nn.Module, x: torch.Tensor, grad_output: torch.Tensor, passes=2) -> dict:
    """Output, gradients and statistics after that many forward passes and a backward pass."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    for _ in range(passes):
        y = block(x)
    y.backward(grad_output.to(y.dtype))
    tensors = dict(y=y.detach(), x=x.grad, **dict(block.named_buffers()))
    return tensors | {
        f'gradient of {k}': p.grad for k, p in block.named_parameters() if p.grad is not None
    }


def assert_trains_as_its_modules(block, x, tolerance, factor=2.0) -> None:
    """Compare with the modules in float64: an error of `tolerance`, or `factor` times the modules' own."""
    grad_output = torch.randn(x.shape).to(x.dtype)
    exact = train(copy.deepcopy(block).double(), x.double(), grad_output.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FORCE_VARIABLE, 'native')
        twin = copy.deepcopy(block)
        modules = train(twin, x, grad_output)
    assert is_fused(copy.deepcopy(block), x)
    fused = train(block, x, grad_output)
    assert fused.keys() == modules.keys() == exact.keys()
    assert fused['y'].stride() == modules['y'].stride()
    for name, right in exact.items():
        assert fused[name].dtype == modules[name].dtype, name
        if not right.is_floating_point():
            assert torch.equal(fused[name], right), name  # the number of batches
            continue
        allowed = max(tolerance, factor * relative_error(modules[name].double(), right))
        assert relative_error(fused[name].double(), right) <= allowed, name


@needs_op
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
@pytest.mark.parametrize(
    ('shape', 'kernel_size'),
    [((2, 24, 9, 11), 13), ((1, 1, 7, 8), 5), ((5, 33, 4, 4), 7), ((3, 20, 14, 14), 17)],
    ids=str,
)
def test_fused_branches_are_the_branches(shape, kernel_size, dtype, tolerance, memory_format):
    block = make_block(shape[1], kernel_size).to(dtype)
    x = (0.5 + torch.randn(shape)).to(dtype, memory_format=memory_format)
    assert_trains_as_its_modules(block, x, tolerance)


def norms_of(block: DilatedReparamBlock) -> list[nn.BatchNorm2d]:
    return [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]


def average_all_batches(block):
    for norm in norms_of(block):
        norm.momentum = None


def have_no_statistics(block):
    for name in ('origin_bn', 'dil_bn_k5_1'):
        setattr(block, name, nn.BatchNorm2d(24, track_running_stats=False))


def have_no_statistics_at_all(block):
    for norm in norms_of(block):
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        norm.track_running_stats = False


def have_other_momenta(block):
    for i, norm in enumerate(norms_of(block)[1:]):
        norm.momentum = 0.2 * i


def average_some_batches(block):
    block.origin_bn.momentum = None


def do_not_count(block):
    block.origin_bn.num_batches_tracked = None
    block.dil_bn_k5_1.num_batches_tracked = block.dil_bn_k5_1.momentum = None


def have_other_eps(block):
    for i, norm in enumerate(norms_of(block)):
        norm.eps = 10.0**-i


def freeze_some(block):
    block.origin_bn.requires_grad_(False)
    block.dil_conv_k3_4.requires_grad_(False)


@needs_op
@pytest.mark.parametrize(
    'change',
    [
        average_all_batches,
        average_some_batches,
        do_not_count,
        have_no_statistics,
        have_no_statistics_at_all,
        have_other_momenta,
        have_other_eps,
        freeze_some,
    ],
    ids=lambda change: change.__name__,
)
def test_settings_of_the_norms_are_kept(change):
    block = make_block()
    change(block)
    assert_trains_as_its_modules(block, torch.randn(3, 24, 10, 10), 1e-5)


@needs_op
@pytest.mark.parametrize('momentum', [0.1, None])
def test_a_batch_that_overflows_leaves_infinity_as_in_batch_norm(momentum):
    block = make_block()
    for norm in norms_of(block):
        norm.momentum = momentum
    batches = (torch.randn(2, 24, 9, 9) * scale for scale in (1e25, 1))
    twin = copy.deepcopy(block)
    for x in batches:
        assert is_fused(block, x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(FORCE_VARIABLE, 'native')
            twin(x)
    for norm, right in zip(norms_of(block), norms_of(twin), strict=True):
        assert right.running_var.isinf().all() and norm.running_var.isinf().all()
        torch.testing.assert_close(norm.running_mean, right.running_mean, rtol=1e-3, atol=1e18)


@needs_op
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(norm_cfg=dict(type='BN', momentum=0.3, eps=1e-3)),
        dict(branches=((9, 1), (3, 6))),
        dict(branches=((3, 1), (13, 1), (3, 1), (3, 1))),
        dict(branches=()),
    ],
    ids=str,
)
def test_every_kind_of_block_is_fused(kwargs):
    assert_trains_as_its_modules(make_block(**kwargs), torch.randn(3, 24, 10, 10), 1e-5)


@needs_op
def test_synchronised_norms_of_one_process_are_fused():
    block, x = make_block(norm_cfg=dict(type='SyncBN')), torch.randn(3, 24, 10, 10)
    assert is_fused(copy.deepcopy(block), x)
    right = train(make_block(), x, torch.ones_like(x).cumsum(-1))
    for name, tensor in train(block, x, torch.ones_like(x).cumsum(-1)).items():
        assert torch.equal(tensor, right[name]), name


@needs_op
def test_fused_under_autocast():
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    with torch.autocast('cpu', torch.bfloat16):
        assert is_fused(block, x)
        fused = train(copy.deepcopy(block), x, torch.ones_like(x).cumsum(-1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(FORCE_VARIABLE, 'native')
            plain = train(block, x, torch.ones_like(x).cumsum(-1))
    for name, tensor in plain.items():
        assert fused[name].dtype == tensor.dtype, name
        assert relative_error(fused[name].double(), tensor.double()) <= 0.02, name


@needs_op
def test_modules_run_outside_training():
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    assert is_fused(block, x)
    with torch.no_grad():
        assert is_fused(block, x)
    block.dil_bn_k3_5.eval()  # as norm_eval has it
    assert not is_fused(block, x)
    assert not is_fused(block.eval(), x)
    block.train().switch_to_deploy()
    assert not is_fused(block, x)
    assert not is_fused(make_block().double(), x.double())


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize('change', [None, freeze_some, have_other_eps])
def test_branches_with_frozen_statistics_merge(
    change, dtype, tolerance, memory_format, monkeypatch
):
    block = make_block().to(dtype).eval()
    if change is not None:
        change(block)
    x = torch.randn(2, 24, 21, 20).to(dtype, memory_format=memory_format)
    assert block.can_merge(x)
    twin, grad_output = copy.deepcopy(block), torch.randn(x.shape).to(dtype)
    merged = {k: t.double() for k, t in train(block, x, grad_output).items()}
    monkeypatch.setattr(DilatedReparamBlock, 'can_merge', lambda self, x: False)
    plain = {k: t.double() for k, t in train(twin, x, grad_output).items()}
    assert merged.keys() == plain.keys()
    for name, tensor in plain.items():
        assert (merged[name] - tensor).norm() <= tolerance * tensor.norm(), name


def test_where_frozen_branches_do_not_merge():
    block, x = make_block().eval(), torch.randn(2, 24, 21, 20)
    assert block.can_merge(x)
    with torch.no_grad():
        assert not block.can_merge(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not block.can_merge(x)
    assert not block.can_merge(x[:1, :, :4])  # merging would cost more than it saves
    assert not block.can_merge(x.double()) and not copy.deepcopy(block).half().can_merge(x.half())
    for touch in TOUCHES.values():
        changed = copy.deepcopy(block)
        touch(changed)
        assert not changed.eval().can_merge(x)
    block.dil_bn_k3_5.train()
    assert not block.can_merge(x)


class DoubledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class WrappedConv(nn.Module):
    """As adapters have it, without the attributes of a convolution."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return 2 * self.conv(x)


def replace_forward(block):
    forward = block.dil_bn_k7_2.forward
    block.dil_bn_k7_2.forward = lambda x: 2 * forward(x)


def dilate(module, dilation=2):
    """As DeepLab's users do with whole stages: every convolution, whatever its own dilation was."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            conv.dilation = (dilation, dilation)
            conv.padding = tuple(dilation * (size // 2) for size in conv.kernel_size)


TOUCHES = {
    'another dilation': lambda b: dilate(b.dil_conv_k3_3),
    'another dilation of the kernel': lambda b: dilate(b.lk_origin),
    'another dilation of all': dilate,
    'another kernel size': lambda b: setattr(
        b, 'dil_conv_k3_3', DepthwiseConv2d(24, kernel_size=5, bias=False)
    ),
    'another convolution': lambda b: setattr(b, 'dil_conv_k3_3', DoubledConv(24, 24, 3, padding=1)),
    'a wrapped convolution': lambda b: setattr(b, 'dil_conv_k3_3', WrappedConv(b.dil_conv_k3_3)),
    'another padding': lambda b: setattr(b.dil_conv_k3_3, 'padding_mode', 'circular'),
    'a bias': lambda b: setattr(b.lk_origin, 'bias', nn.Parameter(torch.ones(24))),
    'an implementation': lambda b: setattr(b.lk_origin, 'implementation', 'native'),
    'another norm': lambda b: setattr(b, 'origin_bn', nn.GroupNorm(4, 24)),
    'a norm without affine': lambda b: setattr(b, 'origin_bn', nn.BatchNorm2d(24, affine=False)),
    'a parametrization': lambda b: nn.utils.parametrizations.weight_norm(b.lk_origin),
    'a replaced forward': replace_forward,
}


@needs_op
@pytest.mark.parametrize('touch', TOUCHES)
def test_what_users_change_is_run(touch):
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    assert is_fused(block, x)
    TOUCHES[touch](block)
    assert not is_fused(block, x)


CONV_TOUCHES = [name for name in TOUCHES if 'dilation' in name or 'size' in name or 'bias' in name]


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('touch', CONV_TOUCHES)
def test_changed_convolutions_are_computed_as_they_are(touch, dilation):
    """In training and in evaluation, where the undilated block would be fused and merge."""
    block, x = make_block(dilation=dilation), torch.randn(2, 24, 20, 20)
    TOUCHES[touch](block)
    for norms_train in (True, False):
        block.train(norms_train)
        expected = sum(norm(nn.Conv2d.forward(conv, x)) for conv, norm, _ in block.layers())
        assert relative_error(block(x), expected) < 1e-5


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('touch', CONV_TOUCHES)
def test_changed_convolutions_fold_as_they_are(touch, dilation):
    block, x = make_block(dilation=dilation).eval(), torch.randn(2, 24, 20, 20)
    TOUCHES[touch](block)
    expected = block(x)
    if (touch, dilation) in (('another dilation of the kernel', 1), ('another kernel size', 2)):
        with pytest.raises(ArgumentError, match='the taps of'):
            block.switch_to_deploy()
    else:
        block.switch_to_deploy()
        assert isinstance(block.lk_origin, DepthwiseConv2d) and block.deploy
    assert relative_error(block(x), expected) < 1e-5


@pytest.mark.parametrize(
    ('name', 'value'), [('stride', (2, 2)), ('padding_mode', 'circular'), ('dilation', (1, 2))]
)
@pytest.mark.parametrize('layer', ['lk_origin', 'dil_conv_k3_3'])
def test_what_does_not_fold_is_refused(layer, name, value):
    block = make_block()
    setattr(block.get_submodule(layer), name, value)
    with pytest.raises(ArgumentError, match='does not fold'):
        block.switch_to_deploy()
    assert not block.deploy


@pytest.mark.parametrize('layer', ['lk_origin', 'dil_conv_k3_3'])
@pytest.mark.parametrize('kind', ['wrapped', 'subclass'])
def test_convolutions_that_compute_something_else_do_not_fold(kind, layer):
    block, x = make_block(), torch.randn(2, 24, 20, 20)
    conv = getattr(block, layer)
    settings = (conv.kernel_size, 1, conv.padding, conv.dilation, 24, False)
    doubled = WrappedConv(conv) if kind == 'wrapped' else DoubledConv(24, 24, *settings)
    setattr(block, layer, doubled)
    expected = sum(norm(conv(x)) for conv, norm, _ in block.layers())
    assert relative_error(block(x), expected) < 1e-5
    with pytest.raises(ArgumentError, match='does not fold'):
        block.switch_to_deploy()


@needs_op
@pytest.mark.parametrize('name', ['lk_origin', 'origin_bn', 'dil_conv_k7_2', 'dil_bn_k3_5'])
@pytest.mark.parametrize(
    'kind',
    [
        'register_forward_hook',
        'register_forward_pre_hook',
        'register_full_backward_hook',
        'register_full_backward_pre_hook',
    ],
)
def test_hooks_are_called(name, kind):
    block, x = make_block(), torch.randn(2, 24, 9, 9, requires_grad=True)
    calls = []
    handle = getattr(block.get_submodule(name), kind)(lambda *args: calls.append(args))
    block(x).sum().backward()
    assert len(calls) == 1
    handle.remove()
    assert is_fused(block, x)


@pytest.mark.parametrize(
    'register',
    [
        nn.modules.module.register_module_full_backward_hook,
        nn.modules.module.register_module_full_backward_pre_hook,
    ],
)
def test_backward_hooks_of_every_module_touch_every_module(register):
    handle = register(lambda *args: None)
    touched = not is_untouched(nn.ReLU(), nn.ReLU)
    handle.remove()
    assert touched and is_untouched(nn.ReLU(), nn.ReLU)


@needs_op
def test_synchronised_statistics_are_left_to_the_modules(tmp_path):
    block, x = make_block(norm_cfg=dict(type='SyncBN')), torch.randn(2, 24, 9, 9)
    assert block.can_fuse(x)
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        assert not block.can_fuse(x)
        assert make_block().can_fuse(x)  # BN, as in any process
    finally:
        torch.distributed.destroy_process_group()


@needs_op
def test_one_value_a_channel_is_the_error_of_batch_norm():
    with pytest.raises(ValueError, match='Expected more than 1 value per channel when training'):
        make_block()(torch.randn(1, 24, 1, 1))


@needs_op
@pytest.mark.parametrize('forced', ['op', 'native'])
@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_checkpointing_counts_a_batch_once(norm, forced, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, forced)
    kwargs = dict(drop_path_rate=0.5, norm_cfg=dict(type=norm))
    plain = randomise(UniRepLKNetBlock(24, 13, **kwargs)).train()
    checkpointed = randomise(UniRepLKNetBlock(24, 13, **kwargs, with_cp=True)).train()
    x = torch.randn(4, 24, 9, 9)
    assert is_fused(copy.deepcopy(checkpointed), x) == (forced == 'op')
    results = []
    for block in (plain, checkpointed):
        torch.manual_seed(0)
        results.append(train(block, x, torch.ones_like(x).cumsum(-1), passes=1))
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-5, atol=1e-6)


@needs_op
@pytest.mark.parametrize('momentum', [0.1, None])
def test_compiles_as_one_graph_a_pass(momentum):
    from torch._dynamo.backends.common import aot_autograd

    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    block = make_block()
    for norm in norms_of(block):
        norm.momentum = momentum
    x, grad_output = torch.randn(2, 24, 9, 9), torch.randn(2, 24, 9, 9)
    right = train(copy.deepcopy(block), x, grad_output)
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    block.compile(backend=backend, fullgraph=True)
    for name, tensor in train(block, x, grad_output).items():
        torch.testing.assert_close(tensor, right[name], rtol=1e-4, atol=1e-5)
    assert len(graphs) == 2 and all('unireplknet.dilated_reparam' in graph for graph in graphs)
    assert not any('convolution' in graph or 'batch_norm' in graph for graph in graphs)


@pytest.mark.parametrize('strict', [False, True])
def test_exported_in_training_without_the_op(strict, monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE)
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    program = torch.export.export(copy.deepcopy(block), (x,), strict=strict)
    assert 'unireplknet' not in str(program.graph_module.code)
    torch.testing.assert_close(program.module()(x), block(x), rtol=1e-4, atol=1e-4)


def test_traced_in_training_without_the_op(monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE)
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # F.batch_norm's, about its check of the batch's size
        traced = torch.jit.trace(block, x)
    assert 'unireplknet::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), block(x), rtol=1e-4, atol=1e-4)


def test_symbolic_tracing_sees_the_modules(monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE)
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    traced = torch.fx.symbolic_trace(block)
    norms = [node.target for node in traced.graph.nodes if node.op == 'call_module']
    assert len(norms) == 6 and 'dil_bn_k3_5' in norms
    torch.testing.assert_close(traced(x), block(x), rtol=1e-4, atol=1e-4)


def test_functional_transforms_see_the_modules(monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE)
    block, x = make_block(), torch.randn(2, 24, 9, 9)
    for norm in norms_of(block):
        norm.running_mean = norm.running_var = (
            None  # torch.func writes to nothing that it is not given
        )
        norm.track_running_stats = False
    parameters = {name: p.detach() for name, p in block.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(block, parameters, (x,)).square().sum()

    actual = torch.func.grad(loss)(parameters)
    right = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    for tensor, expected in zip(actual.values(), right, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-3)


@needs_op
def test_training_steps_agree(monkeypatch):
    """Ten steps of a backbone, with the op and with the modules."""
    losses = []
    for forced in ('op', 'native'):
        monkeypatch.setenv(FORCE_VARIABLE, forced)
        torch.manual_seed(0)
        model = UniRepLKNet(SMALL_ARCH, out_indices=(3,), drop_path_rate=0.1).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
        data = torch.randn(10, 4, 3, 64, 64)
        history = []
        for x in data:
            loss = (model(x)[0] - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        losses.append(torch.tensor(history))
    assert losses[0][-1] < 0.9 * losses[0][0]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=0)
