"""Weights as files: where the published ones are, and how a file is read. Knows no model."""

from unireplknet_mm.weights.errors import CheckpointError
from unireplknet_mm.weights.published import PUBLISHED, PublishedWeights, where_to_get
from unireplknet_mm.weights.reading import load_checkpoint_file

__all__ = [
    'PUBLISHED',
    'CheckpointError',
    'PublishedWeights',
    'load_checkpoint_file',
    'where_to_get',
]
