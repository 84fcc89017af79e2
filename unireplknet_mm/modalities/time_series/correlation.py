"""Corrformer's multi-correlation: in time within a node, and between nodes on a tree.

After "Interpretable weather forecasting for worldwide stations with a unified deep model" (Wu et al.,
Nature Machine Intelligence 2023), whose decoder UniRepLKNet's model of global weather keeps (§4.2, Table 12).
Nothing depends on sizes, a batch of one or a device.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from unireplknet_mm.errors import ArgumentError


def fit_length(x: Tensor, length: int) -> Tensor:
    """(..., S, C) as (..., length, C): cut, or zeros behind."""
    return F.pad(x[..., :length, :], (0, 0, 0, max(0, length - x.shape[-2])))


def correlate(queries: Tensor, keys: Tensor) -> Tensor:
    """Circular correlation of (..., E, L) with (..., E, L) at every delay, the mean over E: (..., L).

    Entry d is the mean over e of the sum over t of queries[e, t + d] · keys[e, t].
    """
    # FFTs have no half precision on every device.
    spectrum = torch.fft.rfft(queries.float()) * torch.fft.rfft(keys.float()).conj()
    return torch.fft.irfft(spectrum, n=queries.shape[-1]).mean(dim=-2)


def advance(x: Tensor, delay: Tensor) -> Tensor:
    """(..., E, L) read from `delay` on, (...) of whole numbers, wrapped: out[t] = x[t + delay]."""
    length = x.shape[-1]
    index = (torch.arange(length, device=x.device) + delay[..., None]) % length
    return x.gather(-1, index[..., None, :].expand_as(x))


class Projections(nn.Module):
    """The linear layers of an attention: queries, keys, values and the output, split into heads."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads:
            raise ArgumentError(f'heads={heads} do not divide channels={channels}')
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(channels, channels) for _ in range(4)
        )

    def split(self, x: Tensor) -> Tensor:
        """(..., L, C) -> (..., heads, E, L)."""
        return x.unflatten(-1, (self.heads, -1)).movedim(-3, -1)

    def keys_and_values(self, source: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """(..., S, C) -> (..., heads, E, length) each: cut, or zeros behind."""
        # Behind the layers, for their biases are no zeros.
        return tuple(
            self.split(fit_length(layer(source), length)) for layer in (self.key, self.value)
        )

    def merge(self, x: Tensor) -> Tensor:
        """(..., heads, E, L) -> (..., L, C), through the output layer."""
        return self.out(x.movedim(-1, -3).flatten(-2))


class AutoCorrelation(Projections):
    """Attention over delays within a node: the values, moved by the delays that correlate best.

    The softmax of the best int(factor · log L) correlations of each head weighs the values moved by their
    delays.
    """

    def __init__(self, channels: int, heads: int, factor: float = 1.0):
        super().__init__(channels, heads)
        self.factor = factor

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(N, L, C), (N, S, C) -> (N, L, C)."""
        length = x.shape[-2]
        queries = self.split(self.query(x))
        keys, values = self.keys_and_values(source, length)
        number = max(1, int(self.factor * math.log(length)))
        best, delays = correlate(queries, keys).topk(number, dim=-1)  # [N, heads, number]
        weights = best.softmax(dim=-1).to(values.dtype)
        moved = sum(
            advance(values, delays[..., i]) * weights[..., i, None, None] for i in range(number)
        )
        return self.merge(moved)


class CausalBlock(nn.Module):
    """Two convolutions over the nodes before and at each, with a residual: (N, C, nodes) -> the same."""

    def __init__(self, channels: int, kernel_size: int = 3, dropout: float = 0.2):
        super().__init__()
        self.padding = kernel_size - 1
        self.convolutions = nn.ModuleList()
        for _ in range(2):
            convolution = nn.Conv1d(channels, channels, kernel_size)
            nn.init.normal_(convolution.weight, std=0.01)
            self.convolutions.append(weight_norm(convolution))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self.convolutions:
            y = self.dropout(F.relu(convolution(F.pad(y, (self.padding, 0)))))
        return F.relu(x + y)


class CrossCorrelation(Projections):
    """Between nodes: each is aligned with their mean by its best delay, and passed on in the order of delays.

    Args:
        length: L, of the sequences: the causal convolution's channels are those of a head times L.
    """

    def __init__(self, channels: int, heads: int, length: int):
        super().__init__(channels, heads)
        self.length = length
        self.causal = CausalBlock(channels // heads * length)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, nodes, L, C), (B, nodes, S, C) -> (B, nodes, L, C)."""
        queries = self.split(self.query(x)).mean(dim=1, keepdim=True)  # the pivot
        keys, values = self.keys_and_values(source, self.length)
        weight, delay = correlate(queries.expand_as(keys), keys).max(dim=-1)  # [B, nodes, heads]
        aligned = advance(values, -delay) * weight.sigmoid().to(values.dtype)[..., None, None]
        order = (self.length - delay).argsort(dim=1, stable=True)
        index = order[..., None, None].expand_as(aligned)
        passed = aligned.gather(1, index)  # [B, nodes, heads, E, L]
        batch_size, nodes, heads, channels, length = passed.shape
        passed = passed.permute(0, 2, 3, 4, 1).reshape(batch_size * heads, channels * length, nodes)
        passed = self.causal(passed).reshape(batch_size, heads, channels, length, nodes)
        passed = passed.permute(0, 4, 1, 2, 3)
        back = order.argsort(dim=1)[..., None, None].expand_as(passed)
        return self.merge(advance(passed.gather(1, back), delay))


class MultiCorrelation(nn.Module):
    """Auto-correlation of each leaf, and the mean over the levels of a tree of the cross-correlations there.

    Args:
        tree: how often each level branches; the leaves are its product, such as (7, 50).
        length: of the queries.
    """

    def __init__(
        self, channels: int, heads: int, tree: Sequence[int], length: int, dropout: float = 0.0
    ):
        super().__init__()
        self.tree = tuple(tree)
        self.auto = AutoCorrelation(channels, heads)
        self.cross = CrossCorrelation(channels, heads, length)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """(B·leaves, L, C), (B·leaves, S, C), by default x itself -> (B·leaves, L, C)."""
        source = x if source is None else source
        leaf = self.dropout(self.auto(x, source))
        levels = []
        for level, branches in enumerate(self.tree):
            below = math.prod(self.tree[level + 1 :])
            # [B · nodes above, branches, leaves below, L, C], the mean over the leaves below
            own, other = (
                part.unflatten(0, (-1, branches, below)).mean(dim=2) for part in (x, source)
            )
            between = self.cross(own, other)
            levels.append(between[:, :, None].expand(-1, -1, below, -1, -1).flatten(0, 2))
        return leaf + self.dropout(torch.stack(levels).mean(dim=0))
