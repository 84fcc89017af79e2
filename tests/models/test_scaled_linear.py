"""BN and SE as factor and summand of the linear layer behind them: results, derivatives, what is kept."""

import copy

import pytest
import torch
from helpers import randomise
from torch import nn
from torch.autograd.profiler import profile
from torch.utils.checkpoint import checkpoint

from unireplknet_mm.models import fused_block
from unireplknet_mm.models import scaled_linear as module
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.scaled_linear import moments, scaled_linear
from unireplknet_ops import is_available

needs_op = pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
FORMATS = (torch.contiguous_format, torch.channels_last)
SHAPES = ((2, 5, 4, 3), (1, 4, 3, 3), (3, 1, 2, 5), (4, 3, 1, 1), (2, 3, 1, 7))


def make_block(channels=24, **kwargs) -> UniRepLKNetBlock:
    return randomise(UniRepLKNetBlock(channels, 5, **kwargs))


def map_of(shape, memory_format=torch.channels_last, dtype=torch.float64) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)
    return x.contiguous(memory_format=memory_format)


@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_values_and_derivatives(shape, memory_format):
    x = map_of(shape, memory_format).requires_grad_()
    same, means, variance = moments(x)
    assert torch.equal(same, x) and same.stride() == x.stride()
    torch.testing.assert_close(means, x.mean((2, 3)), rtol=1e-12, atol=1e-14)
    expected = x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance, expected, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(moments, [x]) and torch.autograd.gradgradcheck(moments, [x])

    scale, shift = (map_of((*shape[:2], 1, n)).mean((2, 3)).requires_grad_() for n in (1, 2))
    weight = map_of((6, shape[1], 1, 1)).flatten(1).requires_grad_()
    tensors = [x, scale, shift, weight]
    scaled = x * scale[:, :, None, None] + shift[:, :, None, None]
    product = scaled_linear(*tensors)
    torch.testing.assert_close(product, scaled.permute(0, 2, 3, 1) @ weight.t(), rtol=1e-12, atol=0)
    assert product.is_contiguous()
    assert torch.autograd.gradcheck(scaled_linear, tensors)
    assert torch.autograd.gradgradcheck(scaled_linear, tensors)


@pytest.mark.parametrize('memory_format', FORMATS, ids=str)
@pytest.mark.parametrize('shape', [(2, 24, 9, 7), (1, 8, 5, 5), (3, 1, 4, 2)], ids=str)
def test_product_is_that_of_the_modules(shape, memory_format):
    """In float64, with running statistics and the gradient of everything in front of GELU."""
    blocks = [make_block(shape[1]).double().train() for _ in '12']
    results = []
    for block, is_joined in zip(blocks, (True, False), strict=True):
        x = map_of(shape, memory_format).requires_grad_()
        if is_joined:
            product = fused_block.product_of_normed(block, x)
        else:
            block.pwconv1[1].bias = None
            product = block.pwconv1(block.se(block.norm(x)))
        product.backward(map_of(product.shape, torch.contiguous_format))
        parameters = [*block.norm.parameters(), *block.se.parameters(), block.pwconv1[1].weight]
        grads = [parameter.grad for parameter in parameters]
        results.append([product, x.grad, *grads, *map(torch.Tensor.double, block.norm.buffers())])
    for joined, plain in zip(*results, strict=True):
        assert (joined - plain).norm() <= 1e-12 * plain.norm()


def saved_maps(run, x: torch.Tensor) -> int:
    """How many maps of the size of x or more autograd keeps, each memory once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no memory is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(x)
    return sum(tensor.numel() // x.numel() for tensor in kept.values())


@needs_op
def test_one_map_is_kept_in_front_of_gelu():
    block = make_block().train()
    x = map_of((2, 24, 9, 8), dtype=torch.float32).requires_grad_()
    # GELU keeps its input, four times as wide. The modules keep what SE and the linear layer get, too.
    assert saved_maps(block.expand, x) == 1 + 4
    assert saved_maps(lambda x: block.act(block.pwconv1(block.se(block.norm(x)))), x) > 3 + 4
    # The input of the block, of the second linear layer and of the second norm.
    assert saved_maps(block, x) == 1 + 5 + 4 + 1


def is_joined(block: nn.Module, x: torch.Tensor) -> bool:
    with profile() as profiler:
        block(x)
    return '_ScaledLinear' in [event.name for event in profiler.function_events]


TOUCHES = {
    'evaluation': lambda block: block.eval(),
    'another norm': lambda block: setattr(block, 'norm', nn.GroupNorm(1, 24)),
    'a norm without weights': lambda block: setattr(
        block, 'norm', nn.BatchNorm2d(24, affine=False)
    ),
    'no SE': lambda block: setattr(block, 'se', nn.Identity()),
    'another layer of SE': lambda block: setattr(block.se, 'up', nn.Sequential(block.se.up)),
    'a grouped layer of SE': lambda block: setattr(block.se, 'down', nn.Conv2d(24, 6, 1, groups=2)),
    'another linear layer': lambda block: block.pwconv1.__setitem__(
        1, nn.Sequential(block.pwconv1[1])
    ),
    'a parametrization': lambda block: nn.utils.parametrizations.weight_norm(block.se.down),
    'double': lambda block: block.double(),
}


@needs_op
@pytest.mark.parametrize('touch', sorted(TOUCHES))
def test_what_users_change_is_run(touch):
    block, x = make_block().train(), map_of((2, 24, 5, 7), dtype=torch.float32)
    assert is_joined(block, x)
    TOUCHES[touch](block)
    assert not is_joined(block, x.to(block.pwconv2[0].weight.dtype))


@needs_op
def test_where_the_modules_run():
    block, x = make_block().train(), map_of((2, 24, 5, 7), dtype=torch.float32)
    with torch.no_grad():
        assert not is_joined(block, x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not is_joined(block, x)
    with pytest.raises(ValueError, match='more than 1 value'):
        block(x[:1, :, :1, :1])
    assert is_joined(block, x)


@needs_op
@pytest.mark.parametrize('name', ['norm', 'se', 'se.down', 'se.up', 'pwconv1.1'])
def test_hooks_are_called(name):
    block, x = make_block().train(), map_of((2, 24, 5, 7), dtype=torch.float32)
    calls = []
    handle = block.get_submodule(name).register_forward_hook(lambda *args: calls.append(args))
    block(x)
    assert len(calls) == 1
    handle.remove()
    assert is_joined(block, x) and len(calls) == 1


@needs_op
def test_recomputed_by_whoever_checkpoints_the_block():
    """With torch's own checkpointing around a block, gradients are the same."""
    block, x = make_block().train(), map_of((2, 24, 9, 8), dtype=torch.float32).requires_grad_()
    grads = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=False)):
        twin = copy.deepcopy(block)
        block.zero_grad()
        grads.append(torch.autograd.grad(run(x).square().sum(), [x, *block.parameters()]))
        block.load_state_dict(twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@needs_op
@pytest.mark.parametrize('kernel_size', [3, 13])
def test_a_block_may_be_its_own_input(kernel_size):
    """Gradients through a block applied twice are the same whether they can be differentiated or not."""
    block = randomise(UniRepLKNetBlock(24, kernel_size)).train()
    y = block(block(map_of((2, 24, 9, 7), dtype=torch.float32).requires_grad_()))
    # Of what a BatchNorm takes out again, such as all the branches' biases, rounding is left.
    parameters = {n: p for n, p in block.named_parameters() if n != 'act.1.beta' and 'bn' not in n}
    first, second = (
        torch.autograd.grad(
            y.square().mean(), parameters.values(), retain_graph=True, create_graph=create_graph
        )
        for create_graph in (False, True)
    )
    for name, expected, actual in zip(parameters, first, second, strict=True):
        assert (actual - expected).norm() <= 1e-4 * expected.norm(), name


@needs_op
@pytest.mark.filterwarnings('ignore:There is a performance drop')
@pytest.mark.parametrize('kernel_size', [3, 13])
def test_jacobian_as_one_batch_of_gradients(kernel_size):
    block = randomise(UniRepLKNetBlock(4, kernel_size)).train()
    x = map_of((2, 4, 3, 3), dtype=torch.float32)
    assert is_joined(block, x)
    one, many = (
        torch.autograd.functional.jacobian(copy.deepcopy(block), x, vectorize=vectorize)
        for vectorize in (False, True)
    )
    assert (many - one).norm() <= 1e-5 * one.norm()


def test_a_broken_derivative_is_seen(monkeypatch):
    """The comparisons above fail where the summand is forgotten when the map is scaled again."""
    forgetful = lambda x, scale, shift: (x * scale[:, :, None, None]).permute(0, 2, 3, 1)  # noqa: E731
    monkeypatch.setattr(module, '_scaled_rows', forgetful)
    with pytest.raises(AssertionError):
        test_product_is_that_of_the_modules((2, 24, 9, 7), torch.channels_last)
