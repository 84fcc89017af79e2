"""The blocks by themselves: which operators they run, and the op that takes the modules' place."""

import contextlib
import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import randomise, relative_error
from torch import nn
from torch.autograd.profiler import profile

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.measuring.variants import forced
from unireplknet_mm.models import fused_block
from unireplknet_mm.models.block_layers import LayerNorm2d
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.layers import as_written, is_untouched
from unireplknet_ops import is_available

needs_op = pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
FORCE_VARIABLE = 'UNIREPLKNET_FEED_FORWARD'


def operators_of(block: nn.Module, x: torch.Tensor) -> list[str]:
    with profile() as profiler:
        block(x)
    return [event.name for event in profiler.function_events]


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize(
    'mode', [contextlib.nullcontext, torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__
)
def test_linear_layers_run_as_one_product(mode, frozen, deploy, dtype, memory_format, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'native')
    block = UniRepLKNetBlock(8, 3, deploy=deploy).to(dtype).eval().requires_grad_(not frozen)
    x = torch.randn(2, 8, 5, 6).to(dtype, memory_format=memory_format)
    with mode():
        names = operators_of(block, x)
    assert not {'aten::bmm', 'aten::baddbmm'} & set(names)
    assert sum(name in ('aten::mm', 'aten::addmm', 'unireplknet_mm::linear') for name in names) == 2


# The fused form.


def is_fused(block: UniRepLKNetBlock, x: torch.Tensor) -> bool:
    return 'unireplknet::feed_forward' in operators_of(block, x)


def outputs_of(block, x, monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    """With the op and with the modules."""
    outputs = []
    for choice in ('op', 'native'):
        monkeypatch.setenv(FORCE_VARIABLE, choice)
        assert is_fused(block, x) == (choice == 'op')
        outputs.append(block(x))
    return outputs[0], outputs[1]


def make_block(channels=24, kernel_size=3, **kwargs) -> UniRepLKNetBlock:
    return randomise(UniRepLKNetBlock(channels, kernel_size, **kwargs)).eval()


@needs_op
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-6), (torch.bfloat16, 0.01), (torch.float16, 0.002)]
)
@pytest.mark.parametrize('form', ['training', 'folded', 'deploy'])
@pytest.mark.parametrize('shape', [(2, 24, 9, 11), (1, 1, 7, 8), (5, 33, 4, 4)], ids=str)
@torch.no_grad()
def test_fused_block_is_the_block(shape, form, dtype, tolerance, memory_format, monkeypatch):
    block = make_block(shape[1], 13 if shape[1] > 1 else 5, deploy=form == 'deploy')
    if form == 'folded':
        block.switch_to_deploy()
    block.to(dtype)
    x = torch.randn(shape).to(dtype, memory_format=memory_format)
    fused, plain = outputs_of(block, x, monkeypatch)
    assert fused.dtype == plain.dtype and fused.stride() == plain.stride()
    assert relative_error(fused, plain) <= tolerance
    assert relative_error(fused - x, plain - x) <= 20 * tolerance  # not by the residual alone


@needs_op
@torch.no_grad()
def test_fused_block_is_three_operators(monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block = make_block(kernel_size=13, deploy=True).bfloat16()
    x = torch.randn(2, 24, 9, 11).bfloat16().contiguous(memory_format=torch.channels_last)
    names = operators_of(block, x)
    assert {'unireplknet::squeeze_excitation', 'unireplknet::feed_forward'} < set(names)
    assert not {'aten::_to_copy', 'aten::mean', 'aten::sigmoid'} & set(names)


@needs_op
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(layer_scale_init_value=0),
        dict(drop_path_rate=0.5),
        dict(norm_cfg=dict(type='SyncBN')),
        dict(ffn_ratio=3),
        dict(with_cp=True),
    ],
    ids=str,
)
@torch.no_grad()
def test_every_kind_of_block_is_fused(kwargs, monkeypatch):
    block = make_block(**kwargs)
    fused, plain = outputs_of(block, torch.randn(2, 24, 5, 7), monkeypatch)
    assert relative_error(fused, plain) <= 1e-6


def add_biases(block):
    for layer in (block.dwconv, block.pwconv2[0]):
        layer.bias = nn.Parameter(torch.randn(24))


@needs_op
@torch.no_grad()
def test_biases_of_ones_own_count(monkeypatch):
    """Of layers that are built without, since a BatchNorm follows them: fused and folded."""
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    add_biases(block)
    fused, plain = outputs_of(block, x, monkeypatch)
    assert relative_error(fused, plain) <= 1e-6
    block.switch_to_deploy()
    assert relative_error(block(x), plain) <= 1e-6


@needs_op
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_fused_under_autocast(dtype, monkeypatch):
    """In the modules' dtype, whatever the map's: layer scale makes 32 bits of it."""
    block, x = make_block(), torch.randn(2, 24, 5, 7, dtype=dtype)
    with torch.autocast('cpu', torch.bfloat16):
        fused, plain = outputs_of(block, x, monkeypatch)
    assert fused.dtype == plain.dtype == torch.float32
    assert relative_error(fused, plain) <= 0.01


@needs_op
def test_gradients_and_training_keep_the_modules(monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block, x = make_block(drop_path_rate=0.5), torch.randn(2, 24, 5, 7)
    assert not is_fused(block, x)
    with torch.no_grad():
        assert is_fused(block, x)
        assert not is_fused(block.train(), x)  # BatchNorm's own statistics and drop path
    block.eval().requires_grad_(False)
    assert is_fused(block, x)
    assert not is_fused(block, x.requires_grad_())
    block.dwconv.requires_grad_(True)  # whose output then needs a gradient
    assert not is_fused(block, x.detach())
    block.requires_grad_(False).train()
    block.pwconv2[2].eval()
    assert not is_fused(block, x.detach())  # drop path
    block.drop_path.eval()
    assert is_fused(block, x.detach())


class DoubledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class DoubledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def parametrize_linear(block):
    nn.utils.parametrizations.weight_norm(block.pwconv1[1])


def replace_forward(block):
    forward = block.act[0].forward
    block.act[0].forward = lambda x: 2 * forward(x)


def without_statistics():
    return nn.BatchNorm2d(24, track_running_stats=False).eval()


TOUCHES = {
    'another linear layer': lambda block: block.pwconv1.__setitem__(1, DoubledLinear(24, 96)),
    'another activation': lambda block: block.act.__setitem__(0, nn.ReLU()),
    'another GELU': lambda block: block.act.__setitem__(0, nn.GELU('tanh')),
    'one more layer': lambda block: block.pwconv2.append(nn.ReLU()),
    'one layer less': lambda block: block.act.__delitem__(1),
    'a layer of SE': lambda block: setattr(block.se, 'up', DoubledConv(6, 24, 1)),
    'a grouped layer of SE': lambda block: setattr(block.se, 'down', nn.Conv2d(24, 6, 1, groups=2)),
    'another SE': lambda block: setattr(block, 'se', nn.Identity()),
    'another drop path': lambda block: setattr(block, 'drop_path', nn.ReLU()),
    'a parametrization': parametrize_linear,
    'a replaced forward': replace_forward,
    'no statistics': lambda block: block.pwconv2.__setitem__(2, without_statistics()),
}


@needs_op
@pytest.mark.parametrize('touch', TOUCHES)
@torch.no_grad()
def test_what_users_change_is_run(touch, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    assert is_fused(block, x)
    TOUCHES[touch](block)
    assert not is_fused(block, x)


class Doubled(nn.Module):
    """As adapters have it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return 2 * self.module(x)


@needs_op
@pytest.mark.parametrize('name', ['pwconv1', 'act', 'pwconv2'])
@pytest.mark.parametrize('training', [False, True])
def test_sequences_may_be_replaced(name, training, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block, x = make_block().train(training), torch.randn(2, 24, 5, 7)
    setattr(block, name, Doubled(getattr(block, name)))
    with torch.set_grad_enabled(training):
        actual = block(x)
    y = block.pwconv2(block.act(block.pwconv1(block.se(block.norm(block.dwconv(x))))))
    assert relative_error(actual, x + block.gamma.reshape(-1, 1, 1) * y) <= 1e-6


DO_NOT_FOLD = {
    'another convolution': lambda block: setattr(
        block, 'dwconv', DoubledConv(24, 24, 3, padding=1, groups=24)
    ),
    'a dense convolution': lambda block: setattr(block, 'dwconv', nn.Conv2d(24, 24, 3, padding=1)),
    'a wrapped convolution': lambda block: setattr(block, 'dwconv', Doubled(block.dwconv)),
    'another norm': lambda block: setattr(block, 'norm', nn.GroupNorm(4, 24)),
    'no norm': lambda block: block.pwconv2.__setitem__(2, nn.Identity()),
    'no statistics': lambda block: block.pwconv2.__setitem__(2, without_statistics()),
    'another linear layer': lambda block: block.pwconv2.__setitem__(
        0, DoubledLinear(96, 24, bias=False)
    ),
    'a wrapped linear layer': lambda block: block.pwconv2.__setitem__(0, Doubled(block.pwconv2[0])),
    'no GRN': lambda block: block.act.__delitem__(1),
    'another activation': lambda block: setattr(block, 'act', nn.GELU()),
    'a wrapped sequence': lambda block: setattr(block, 'pwconv2', Doubled(block.pwconv2)),
}


@pytest.mark.parametrize('touch', DO_NOT_FOLD)
@torch.no_grad()
def test_what_does_not_fold_is_refused_and_left_as_it_is(touch):
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    DO_NOT_FOLD[touch](block)
    expected = block(x)
    with pytest.raises(ArgumentError, match='not fold: only') as info:
        block.switch_to_deploy()
    assert '\n' not in str(info.value)
    assert not block.deploy and torch.equal(block(x), expected)


@torch.no_grad()
def test_parametrized_layers_and_those_of_mmcv_fold():
    cnn = pytest.importorskip('mmcv.cnn')
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    nn.utils.parametrizations.weight_norm(block.pwconv2[0])
    block.dwconv = randomise(cnn.Conv2d(24, 24, 3, padding=1, groups=24))
    expected = block(x)
    block.switch_to_deploy()
    assert relative_error(block(x), expected) <= 1e-6


@needs_op
@pytest.mark.parametrize(
    'name',
    (
        *('se', 'se.down', 'se.up', 'pwconv1', 'pwconv1.0', 'pwconv1.1', 'act', 'act.0', 'act.1'),
        *('pwconv2', 'pwconv2.0', 'pwconv2.1', 'pwconv2.2', 'drop_path'),
    ),
)
@pytest.mark.parametrize('kind', ['register_forward_hook', 'register_forward_pre_hook'])
@torch.no_grad()
def test_hooks_are_called(name, kind, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    calls = []
    handle = getattr(block.get_submodule(name), kind)(lambda *args: calls.append(args))
    block(x)
    assert len(calls) == 1
    handle.remove()
    assert is_fused(block, x)


@pytest.mark.parametrize(
    'register',
    [
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
        nn.modules.module.register_module_full_backward_hook,
        nn.modules.module.register_module_full_backward_pre_hook,
    ],
)
def test_hooks_of_every_module_touch_every_module(register):
    layer = nn.ReLU()
    assert is_untouched(layer, nn.GELU, nn.ReLU) and not is_untouched(layer, nn.GELU)
    handle = register(lambda *args: None)
    assert not is_untouched(layer, nn.ReLU)
    handle.remove()


@needs_op
@pytest.mark.parametrize('deploy', [False, True])
@torch.no_grad()
def test_fused_block_compiles_as_one_graph(deploy, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    block, x = make_block(deploy=deploy), torch.randn(2, 24, 5, 7)
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    assert torch.equal(compiled(x), block(x))
    assert len(graphs) == 1 and 'unireplknet.feed_forward' in graphs[0]


# GELU and GRN in training.


def is_joined(block: UniRepLKNetBlock, x: torch.Tensor) -> bool:
    return 'unireplknet::gelu_grn' in operators_of(block, x)


def step_of(block: UniRepLKNetBlock, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, the gradients of the input and of the parameters, and the running statistics."""
    torch.manual_seed(0)  # of drop path
    block.zero_grad()
    leaf = x.clone().requires_grad_()
    output = block(leaf)
    output.backward(torch.randn(x.shape).to(output.dtype))
    grads = {name: parameter.grad for name, parameter in block.named_parameters()}
    if (
        block.training and not block.deploy
    ):  # the next BatchNorm takes it out: what is left is rounding
        del grads['act.1.beta']
    return [output, leaf.grad, *grads.values(), *(b + 1.0 for b in block.buffers())]


def steps_of(block, x, monkeypatch) -> zip:
    """Pairs of what a training step gives with the op and with the modules as they are written."""
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    with forced('plain'):
        plain = step_of(block, x)
        assert not is_joined(block, x)
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block.load_state_dict(state)
    joined = step_of(block, x)
    assert is_joined(block, x)
    return zip(joined, plain, strict=True)


@needs_op
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ('shape', 'kwargs'),
    [
        ((2, 24, 9, 11), dict()),
        ((1, 1, 7, 8), dict()),
        ((5, 33, 4, 4), dict(drop_path_rate=0.4)),
        ((3, 24, 1, 9), dict(layer_scale_init_value=0)),
        ((2, 24, 6, 5), dict(with_cp=True, ffn_ratio=3)),
        ((2, 24, 6, 5), dict(deploy=True)),
    ],
    ids=str,
)
@pytest.mark.parametrize('training', [False, True])
def test_a_step_is_that_of_the_modules(shape, kwargs, training, memory_format, monkeypatch):
    x = torch.randn(shape).to(memory_format=memory_format)
    block = make_block(shape[1], 13 if shape[1] > 1 else 5, **kwargs).train(training)
    # Of what the next BatchNorm takes out when it trains, rounding is left; so it is of one channel's sums,
    # whose terms cancel.
    slack = 2e-4 if training else 2e-6
    for joined, plain in steps_of(block, x, monkeypatch):
        assert joined.dtype == plain.dtype
        # Strides of dimensions of size 1 depend on PyTorch's number of threads.
        assert joined.stride() == plain.stride() or (
            joined.is_contiguous() and plain.is_contiguous()
        )
        assert (joined - plain).norm() <= 1e-5 * plain.norm() + slack


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_layer_scale_in_the_norm_changes_nothing(training, with_cp):
    block = make_block(with_cp=with_cp, drop_path_rate=0.4).double().train(training)
    x = torch.randn(3, 24, 5, 6).double()
    assert fused_block.can_scale_norm(block, x)
    steps = [step_of(copy.deepcopy(block), x)]
    with as_written():
        assert not fused_block.can_scale_norm(block, x)
        steps.append(step_of(block, x))
    slack = 1e-12 if training else 0  # what the next BatchNorm takes out is rounding
    for actual, expected in zip(*steps, strict=True):
        assert (actual - expected).norm() <= 1e-12 * expected.norm() + slack


@needs_op
@pytest.mark.parametrize('step', ['residual', 'expand', 'contract', 'scaled'])
def test_a_subclass_may_compute_a_step_in_another_way(step, monkeypatch):
    def negated(self, x):
        return -getattr(UniRepLKNetBlock, step)(self, x)

    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    kind = type('Negated', (UniRepLKNetBlock,), {step: negated})
    block, x = randomise(kind(24, 3)).eval(), torch.randn(1, 24, 5, 6)
    with torch.no_grad():
        assert not is_fused(block, x) and is_fused(make_block().eval(), x)
        actual = block(x)
        block.__class__ = UniRepLKNetBlock
        assert relative_error(actual, block(x)) > 0.1


@pytest.mark.parametrize('name', ['pwconv2', 'pwconv2.0', 'pwconv2.1', 'pwconv2.2'])
@pytest.mark.parametrize('kind', ['register_forward_hook', 'register_full_backward_hook'])
def test_layer_scale_stays_out_of_what_is_hooked(name, kind):
    block, x = make_block(), torch.randn(1, 24, 5, 6)
    assert fused_block.can_scale_norm(block, x)
    handle = getattr(block.get_submodule(name), kind)(lambda *args: None)
    assert not fused_block.can_scale_norm(block, x)
    handle.remove()
    block.pwconv2[2] = nn.BatchNorm2d(24, affine=False)
    assert not fused_block.can_scale_norm(block, x)
    assert not fused_block.can_scale_norm(make_block().half(), x.half())
    assert not fused_block.can_scale_norm(make_block().double(), x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not fused_block.can_scale_norm(make_block(), x)
    assert fused_block.can_scale_norm(make_block(), x)


@needs_op
@pytest.mark.parametrize('autocast', [False, True])
def test_a_step_in_bfloat16(autocast, monkeypatch):
    exact = make_block()
    x = torch.randn(3, 24, 9, 8, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    with forced('plain'):
        expected = step_of(exact, x)
    block = copy.deepcopy(exact) if autocast else copy.deepcopy(exact).bfloat16()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        steps = list(steps_of(block, x if autocast else x.bfloat16(), monkeypatch))
    assert all(joined.dtype == plain.dtype for joined, plain in steps)
    errors = [
        [relative_error(actual, reference) for actual in pair]
        for pair, reference in zip(steps, expected, strict=True)
    ]
    of_joined, of_plain = map(
        sum, zip(*errors, strict=True)
    )  # one gradient's is a matter of chance
    assert of_joined <= 1.2 * of_plain


UNUSUAL = {
    'a norm without bias': lambda block: setattr(block.norm, 'bias', None),
    'a norm without weight': lambda block: setattr(block.norm, 'weight', None),
    'a branch without bias': lambda block: setattr(block.dwconv.origin_bn, 'bias', None),
    'a branch without weight': lambda block: setattr(block.dwconv.dil_bn_k5_1, 'weight', None),
    'a last norm without bias': lambda block: setattr(block.pwconv2[2], 'bias', None),
    'a last norm without weight': lambda block: setattr(block.pwconv2[2], 'weight', None),
    'a norm of two branches': lambda block: setattr(
        block.dwconv, 'dil_bn_k5_1', block.dwconv.origin_bn
    ),
    'layer scale of a map': lambda block: setattr(
        block, 'gamma', nn.Parameter(block.gamma.detach().reshape(1, -1, 1, 1))
    ),
    'one layer scale for all': lambda block: setattr(block, 'gamma', nn.Parameter(torch.ones(1))),
    'one gamma of GRN for all': lambda block: setattr(
        block.act[1], 'gamma', nn.Parameter(torch.ones(1, 1, 1, 1))
    ),
}


@needs_op
@pytest.mark.parametrize('unusual', UNUSUAL)
@pytest.mark.parametrize('training', [False, True])
def test_what_the_modules_take_is_taken(unusual, training):
    """In a training step, in inference and folding."""
    block, x = make_block(kernel_size=13), torch.randn(2, 24, 9, 11)
    UNUSUAL[unusual](block)
    block.train(training)
    twin = copy.deepcopy(block)
    with forced('plain'):
        expected = step_of(twin, x)
    slack = 2e-4 if training else 2e-6
    for actual, plain in zip(step_of(block, x), expected, strict=True):
        assert (actual - plain).norm() <= 1e-5 * plain.norm() + slack
    with torch.no_grad():
        with forced('plain'):
            output = twin.eval()(x)
        assert relative_error(block.eval()(x), output) <= 1e-5
        block.switch_to_deploy()
        assert relative_error(block(x), output) <= 1e-5


@needs_op
def test_frozen_parts_are_joined(monkeypatch):
    """What needs no gradient gets none, and the others get theirs."""
    for part in ('pwconv1', 'act', 'pwconv2', 'dwconv'):
        block = make_block()
        block.get_submodule(part).requires_grad_(False)
        x = torch.randn(2, 24, 5, 7)
        grads = []
        for choice in ('op', 'native'):
            monkeypatch.setenv(FORCE_VARIABLE, choice)
            block.zero_grad()
            assert is_joined(block, x) == (choice == 'op')
            block(x).square().sum().backward()
            grads.append({n: p.grad for n, p in block.named_parameters() if p.grad is not None})
        joined, plain = grads
        assert joined.keys() == plain.keys()
        assert not any(name.startswith(part) for name in joined)
        assert all(relative_error(joined[name], plain[name]) <= 1e-5 for name in plain)


@needs_op
@pytest.mark.parametrize('touch', sorted(TOUCHES))
def test_what_users_change_is_run_in_training(touch, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    assert is_joined(block, x)
    TOUCHES[touch](block)
    is_in_between = touch in (
        *('another linear layer', 'another activation', 'another GELU', 'one layer less'),
        *('a parametrization', 'a replaced forward'),
    )
    assert is_joined(block, x) == (not is_in_between)


@needs_op
@pytest.mark.parametrize('name', ['pwconv1', 'pwconv1.0', 'pwconv1.1', 'act', 'act.0', 'act.1'])
@pytest.mark.parametrize(
    'kind',
    [
        *('register_forward_hook', 'register_forward_pre_hook'),
        *('register_full_backward_hook', 'register_full_backward_pre_hook'),
    ],
)
def test_hooks_are_called_in_training(name, kind, monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, 'op')
    block, x = make_block(), torch.randn(2, 24, 5, 7)
    calls = []
    handle = getattr(block.get_submodule(name), kind)(lambda *args: calls.append(args))
    block(x).sum().backward()
    assert len(calls) == 1
    handle.remove()
    assert is_joined(block, x)


@needs_op
@torch.no_grad()
def test_exported_block_has_no_op():
    block, x = make_block(deploy=True), torch.randn(2, 24, 9, 9)
    assert is_fused(block, x)
    program = torch.export.export(block, (x,))
    assert 'unireplknet' not in str(program.graph_module.code)
    torch.testing.assert_close(program.module()(x), block(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings('ignore:`torch.jit')
@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('kernel_size', [3, 13])
def test_torchscript_computes_the_same(kernel_size, deploy):
    block = randomise(UniRepLKNetBlock(8, kernel_size, drop_path_rate=0.5))
    if deploy:
        block.switch_to_deploy()
    scripted = torch.jit.script(block)
    x = torch.randn(3, 8, 14, 11)
    for training in (False, True):
        torch.manual_seed(0)
        expected = block.train(training)(x)
        torch.manual_seed(0)
        assert relative_error(scripted.train(training)(x), expected) < 1e-6


@torch.no_grad()
def test_threads_may_share_a_block(monkeypatch):
    """None may leave its own parameters, scaled, in the module: they stayed there."""
    monkeypatch.setenv(FORCE_VARIABLE, 'native')
    block, x = make_block().eval(), torch.randn(1, 24, 3, 3)
    expected, parameters = block(x), dict(block.named_parameters())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(lambda _: block(x), range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert all(parameter is parameters[name] for name, parameter in block.named_parameters())
    assert all(torch.equal(output, expected) for output in outputs)


def test_layer_norm_keeps_the_memory_format():
    norm, x = LayerNorm2d(4), torch.randn(2, 4, 6, 8)
    expected = norm(x)
    assert expected.is_contiguous()
    channels_last = norm(x.to(memory_format=torch.channels_last))
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last, expected)
    part = norm(x[..., :5])  # neither
    assert part.is_contiguous()
    torch.testing.assert_close(part, expected[..., :5])


@pytest.mark.parametrize('kernel_size', [1, 3, 13])
def test_norms_without_weight_and_bias(kernel_size):
    """They train, are evaluated with and without gradients, and fold."""
    norm_cfg = dict(type='BN', affine=False)
    block = randomise(UniRepLKNetBlock(16, kernel_size, norm_cfg=norm_cfg)).train()
    x = torch.randn(2, 16, 9, 9)
    block(x).sum().backward()
    block.eval()
    expected = block(x)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
        block.switch_to_deploy()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
