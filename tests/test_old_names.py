"""Names that users import, from places that have since become something else."""

import importlib

import pytest

NAMES = {
    'unireplknet_mm.checkpoint': [
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
    ],
    'unireplknet_mm.datasets': ['make_demo_data', 'use_demo_data'],
    'unireplknet_mm.engine': [
        'AtomicCheckpointHook',
        'CpuAmpOptimWrapper',
        'LayerDecayOptimWrapperConstructor',
        'SeededDataset',
        'SeededIterationHook',
        'SeededSampler',
        'SwitchToDeployHook',
    ],
    'unireplknet_mm.models': ['DilatedReparamBlock', 'UniRepLKNet', 'UniRepLKNetBlock'],
    'unireplknet_mm.models.unireplknet': ['UniRepLKNet'],
    'unireplknet_mm.ops': [
        'DepthWiseConv2dImplicitGEMM',
        'DepthwiseConv2d',
        'choose_implementation',
        'depthwise_conv2d',
        'explain',
        'is_available',
        'library',
    ],
}


@pytest.mark.parametrize(
    ('module', 'name'), [(module, name) for module, names in NAMES.items() for name in names]
)
def test_it_is_still_there(module, name):
    assert hasattr(importlib.import_module(module), name)
