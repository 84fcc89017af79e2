"""The names that this module had before `weights/` and `models/` took over its jobs; kept for users."""

from unireplknet_mm.engine.checkpoint_check import CheckpointCheckHook
from unireplknet_mm.models.architecture import describe_architecture, read_architecture
from unireplknet_mm.models.state_dict import (
    BODY,
    OTHER_NETWORKS,
    SIGNATURE,
    STATE_DICT_KEYS,
    check_backbone_weights,
    extract_backbone_state_dict,
    find_state_dict,
    load_backbone_weights,
)
from unireplknet_mm.models.whole_model import adapt_state_dict, check_not_only_backbone
from unireplknet_mm.weights.published import PUBLISHED, WEIGHTS_PAGE, PublishedWeights, where_to_get
from unireplknet_mm.weights.reading import (
    RUN_CODE_SWITCH,
    CheckpointError,
    load_checkpoint_file,
    load_from_http,
    load_from_local,
)

__all__ = [
    'BODY',
    'OTHER_NETWORKS',
    'PUBLISHED',
    'RUN_CODE_SWITCH',
    'SIGNATURE',
    'STATE_DICT_KEYS',
    'WEIGHTS_PAGE',
    'CheckpointCheckHook',
    'CheckpointError',
    'PublishedWeights',
    'adapt_state_dict',
    'check_backbone_weights',
    'check_not_only_backbone',
    'describe_architecture',
    'extract_backbone_state_dict',
    'find_state_dict',
    'load_backbone_weights',
    'load_checkpoint_file',
    'load_from_http',
    'load_from_local',
    'read_architecture',
    'where_to_get',
]
