"""RepLKNet, SLaK and OverLoCK, as their authors published them, on the convolution of unireplknet_ops.

    python scripts/check_other_networks.py FOLDER

FOLDER has clones of their repositories, `RepLKNet-pytorch`, `SLaK` and `OverLoCK`; what is not there is
cloned. Each model file runs twice, with PyTorch's convolution and with the one line of ops/README.md,

    sys.modules['depthwise_conv2d_implicit_gemm'] = unireplknet_ops

on narrow networks with the published kernel sizes: the same weights give the same outputs and gradients, and
folding them, where the file can, changes nothing. Needs timm; of natten, which OverLoCK imports, the one
function that it calls is replaced by a slow one here.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import unireplknet_ops

IMPLICIT_GEMM = 'depthwise_conv2d_implicit_gemm'
TOLERANCE = 1e-4


class Network(NamedTuple):
    """A repository, its model file, a narrow network of it, and the name of the method that folds it."""

    repository: str
    file: str
    build: Callable[[types.ModuleType], nn.Module]
    size: int
    fold: str | None = None


def replknet(module: types.ModuleType) -> nn.Module:
    return module.RepLKNet(
        large_kernel_sizes=[31, 29, 27, 13],
        layers=[1, 1, 1, 1],
        channels=[16, 24, 32, 40],
        drop_path_rate=0.0,
        small_kernel=5,
        num_classes=10,
        use_sync_bn=False,
    )


def slak(module: types.ModuleType) -> nn.Module:
    module.use_sync_bn = False
    return module.SLaK(
        num_classes=10,
        depths=[1, 1, 1, 1],
        dims=[16, 24, 32, 40],
        kernel_size=[51, 49, 47, 13, 5],
        layer_scale_init_value=1.0,
        Decom=True,
    )


def overlock(module: types.ModuleType) -> nn.Module:
    return module.OverLoCK(
        depth=[1, 1, 1, 1],
        sub_depth=[1, 1],
        embed_dim=[16, 32, 64, 96],
        kernel_size=[17, 15, 13, 7],
        sub_num_heads=[4, 6],
        num_classes=10,
    )


NETWORKS = (
    Network('DingXiaoH/RepLKNet-pytorch', 'replknet.py', replknet, 128, 'structural_reparam'),
    Network('VITA-Group/SLaK', 'models/SLaK.py', slak, 128),
    Network('LMMMEng/OverLoCK', 'models/overlock.py', overlock, 224, 'reparam'),
)


class PlainConvolution(nn.Conv2d):
    """PyTorch's convolution under the signature of the op that those files import."""

    def __init__(self, channels: int, kernel_size: int | tuple[int, int], bias: bool = False):
        super().__init__(
            channels, channels, kernel_size, padding='same', groups=channels, bias=bias
        )


def neighborhood_values(attention: Tensor, value: Tensor, kernel_size: int) -> Tensor:
    """`natten.functional.na2d_av`: (B, G, H, W, K²) and (B, G, H, W, C) -> (B, G, H, W, C).

    A window at the border is moved inside.
    """
    height, width = value.shape[2:4]
    rows, columns = (
        (torch.arange(n) - kernel_size // 2).clamp(0, n - kernel_size)[:, None]
        + torch.arange(kernel_size)
        for n in (height, width)
    )
    windows = value[:, :, rows][:, :, :, :, columns]  # [B, G, H, K, W, K, C]
    windows = windows.transpose(3, 4).flatten(4, 5)  # [B, G, H, W, K², C]
    return (attention[..., None] * windows).sum(4)


@contextlib.contextmanager
def imports(convolution: types.ModuleType):
    """What those files find: the convolution, timm's modules under their former names, natten's function."""
    import timm.layers
    import timm.models

    natten = types.ModuleType('natten')
    natten.functional = types.ModuleType('natten.functional')
    natten.functional.na2d_av = neighborhood_values
    found = {
        IMPLICIT_GEMM: convolution,
        'natten': natten,
        'natten.functional': natten.functional,
        'timm.models.layers': timm.layers,
        'timm.models.registry': timm.models,
    }
    before = {name: sys.modules.get(name) for name in found}
    sys.modules.update(found)
    os.environ['LARGE_KERNEL_CONV_IMPL'] = ''  # RepLKNet looks for it
    try:
        yield
    finally:
        del os.environ['LARGE_KERNEL_CONV_IMPL']
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def load(file: Path, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module  # timm's register_model looks there
    exec(compile(file.read_text(encoding='utf-8'), file, 'exec'), module.__dict__)
    return module


def randomise(model: nn.Module) -> nn.Module:
    """Statistics and norms far from neutral, so that a wrong folding shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model


def relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    return y['main'] if isinstance(y, dict) else y  # OverLoCK in training returns two


def check(network: Network, folder: Path) -> list[str]:
    """What was compared, as a row of a table.

    Raises:
        AssertionError: something differs.
    """
    plain_module = types.ModuleType(IMPLICIT_GEMM)
    plain_module.DepthWiseConv2dImplicitGEMM = PlainConvolution
    models = []
    for convolution in (plain_module, unireplknet_ops):
        with imports(convolution), contextlib.redirect_stdout(io.StringIO()):
            file = folder / network.repository.rpartition('/')[2] / network.file
            torch.manual_seed(0)
            model = network.build(load(file, f'{file.stem}_of_{convolution.__name__}'))
            models.append(randomise(model).eval())
    plain, ours = models
    ours.load_state_dict(plain.state_dict())
    layers = [m for m in ours.modules() if isinstance(m, unireplknet_ops.DepthwiseConv2d)]
    assert layers, 'no layer is the op'

    x = torch.randn(2, 3, network.size, network.size, generator=torch.Generator().manual_seed(1))
    results = []
    for model in models:
        y = outputs(model, x)
        y.square().mean().backward()
        results.append(
            (y.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        )
    (expected, gradients), (actual, own) = results
    assert gradients.keys() == own.keys()
    output = relative(actual, expected)
    largest = max(g.norm() for g in gradients.values())
    gradient = max(((own[n] - g).norm() / largest).item() for n, g in gradients.items())
    assert output < TOLERANCE and gradient < TOLERANCE, (output, gradient)

    folded = '-'
    if network.fold:
        with imports(unireplknet_ops), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            getattr(ours, network.fold)()
            difference = relative(outputs(ours, x), expected)
        assert difference < TOLERANCE, difference
        folded = f'{difference:.0e}'
    sizes = sorted({max(layer.kernel_size) for layer in layers}, reverse=True)
    return [
        network.repository,
        str(len(layers)),
        ' '.join(map(str, sizes)),
        f'{output:.0e}',
        f'{gradient:.0e}',
        folded,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='folder of the clones')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    if not unireplknet_ops.is_available('cpu'):
        sys.exit('The library is not built: python -m unireplknet_ops.build')
    os.environ['UNIREPLKNET_DWCONV'] = 'op'  # however small the maps
    print('| network | layers on the op | kernels | outputs differ | gradients | folded |')
    print('|---|---|---|---|---|---|')
    for network in NETWORKS:
        clone = args.folder / network.repository.rpartition('/')[2]
        if not clone.exists():
            url = f'https://github.com/{network.repository}'
            subprocess.run(['git', 'clone', '--quiet', '--depth', '1', url, str(clone)], check=True)
        print(f'| {" | ".join(check(network, args.folder))} |')


if __name__ == '__main__':
    main()
