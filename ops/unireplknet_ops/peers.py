"""What the op is compared with on CUDA beside torch's convolution in the layout at hand."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops.measure import Shape, Tensors, native_pass

Peer = Callable[[str], Tensor]  # the name of a pass -> its result

FFT_TILES = (8, 16, 32, 64, 128)


def cuda_peers(tensors: Tensors) -> dict[str, Peer]:
    """By name: cuDNN on channels_last, the layout changed there and back; a fused FFT, if installed."""
    found: dict[str, Peer] = {'via channels_last': lambda name: via_channels_last(tensors, name)}
    fft = fused_fft_convolution()
    if fft is not None and fft_tile(tensors.shape) is not None:
        found['fft'] = FFTConvolution(fft, tensors)
    return found


def via_channels_last(tensors: Tensors, name: str) -> Tensor:
    """A pass on NCHW-contiguous maps through torch's convolution on channels_last ones."""
    x, grad_output = (
        tensor.contiguous(memory_format=torch.channels_last)
        for tensor in (tensors.x, tensors.grad_output)
    )
    result = native_pass(name, x, grad_output, tensors.weight, tensors.shape.dilation)
    return result.contiguous()


@functools.cache
def fused_fft_convolution() -> Callable | None:
    """`subquadratic_ops_torch`'s convolution by FFT in one launch, None where it is not installed."""
    try:
        from subquadratic_ops_torch.fused_fft_conv2d import fused_fft_conv2d
    except ImportError:
        return None
    return fused_fft_conv2d


def fft_tile(shape: Shape) -> int | None:
    """The smallest FFT that holds map and kernel in one half of it each, None if there is none."""
    if shape.dilation > 1:
        return None
    half = max(shape.height, shape.width, shape.kernel_size // 2 + 1)
    return next((tile for tile in FFT_TILES if tile >= 2 * half), None)


class FFTConvolution:
    """Forward and gradient of the input by FFT.

    The library convolves (it turns the filter, which torch does not) and cuts the output out at half the
    FFT's size, so the filter is moved there by zeros above and to the left of it, once.

    Args:
        fused_fft_conv2d: the library's function.
        tensors: what to convolve.
    """

    def __init__(self, fused_fft_conv2d: Callable, tensors: Tensors):
        self.fused_fft_conv2d = fused_fft_conv2d
        self.tile = fft_tile(tensors.shape)
        shift = self.tile // 2 - tensors.shape.kernel_size // 2
        padding = (shift, 0, shift, 0)
        kernel = tensors.weight.transpose(0, 1)  # [1, C, K, K]
        self.maps_and_kernels = {
            'forward': (tensors.x, F.pad(kernel.flip(2, 3), padding)),
            'grad_input': (tensors.grad_output, F.pad(kernel, padding)),
        }

    def __call__(self, name: str) -> Tensor:
        """A pass.

        Raises:
            NotImplementedError: the gradient of the weight, which the library has in autograd only.
        """
        if name not in self.maps_and_kernels:
            raise NotImplementedError('fft has no gradient of the weight of its own')
        return self.fused_fft_conv2d(*self.maps_and_kernels[name], fft_size=self.tile)
