"""The feed-forward part of a block: as one operator for inference, its middle for training, on the CPU."""

from unireplknet_ops.feedforward.functional import (
    feed_forward,
    feed_forward_takes_op,
    gelu_grn,
    gelu_grn_takes_op,
    squeeze_excitation,
)
from unireplknet_ops.feedforward.operators import global_response_norm

__all__ = [
    'feed_forward',
    'feed_forward_takes_op',
    'gelu_grn',
    'gelu_grn_takes_op',
    'global_response_norm',
    'squeeze_excitation',
]
