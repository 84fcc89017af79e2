"""A dilated convolution as one without dilation, on the sub-maps that it does not mix.

With dilation d, an output at position p sees positions p + d·t alone. So a map falls into d × d interleaved
sub-maps, its phases, which a dilated convolution treats one by one, each as a convolution of dilation 1
would. Laid side by side along the batch, they go through any kernel for undilated convolutions, whatever
its limits for dilated ones. "Atrous" convolutions ran this way before libraries knew dilation (Chen et al.,
arXiv 1412.7062, §3.1; TensorFlow's `space_to_batch`).
"""

import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops.convolution_rules import is_channels_last


def split_phases(x: Tensor, dilation: int) -> Tensor:
    """(N, C, H, W) -> (N d², C, ⌈H/d⌉, ⌈W/d⌉): phase (i, j) of an image is `x[n, :, i::d, j::d]`.

    Where d does not divide a size, the shorter phases end in zeros, as the 'same' padding of a convolution
    would continue them. The memory format is that of x.
    """
    x = F.pad(x, (0, -x.shape[3] % dilation, 0, -x.shape[2] % dilation))
    n, c, height, width = x.shape
    h, w, count = height // dilation, width // dilation, n * dilation**2
    parts = x.unflatten(3, (w, dilation)).unflatten(2, (h, dilation))  # [N, C, h, d, w, d]
    if is_channels_last(x):
        return parts.permute(0, 3, 5, 2, 4, 1).reshape(count, h, w, c).permute(0, 3, 1, 2)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(count, c, h, w)


def join_phases(phases: Tensor, dilation: int, like: Tensor) -> Tensor:
    """The reverse of `split_phases`, to the size and memory format of `like`: (N, C', H, W)."""
    count, c, h, w = phases.shape
    n, (height, width) = count // dilation**2, like.shape[2:]
    if is_channels_last(like):
        parts = phases.permute(0, 2, 3, 1).reshape(n, dilation, dilation, h, w, c)
        parts = parts.permute(0, 3, 1, 4, 2, 5)  # [N, h, d, w, d, C]
        x = parts.reshape(n, h * dilation, w * dilation, c)[:, :height, :width]
        return x.contiguous().permute(0, 3, 1, 2)
    parts = phases.reshape(n, dilation, dilation, c, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c, h * dilation, w * dilation)[..., :height, :width].contiguous()
