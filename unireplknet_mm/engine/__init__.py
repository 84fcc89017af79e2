"""What MMEngine's runner builds from the suite: optimizer-wrapper constructors, loops, hooks, samplers."""

from unireplknet_mm.engine import loading  # noqa: F401  (teaches MMEngine's load_checkpoint raw files)
from unireplknet_mm.engine.accumulation import (
    PendingGradientsHook,
    WholeStepSampler,
    WholeStepTrainLoop,
)
from unireplknet_mm.engine.amp import CpuAmpOptimWrapper
from unireplknet_mm.engine.atomic_checkpoint import AtomicCheckpointHook
from unireplknet_mm.engine.checkpoint_check import CheckpointCheckHook, SwitchToDeployHook
from unireplknet_mm.engine.label_maps import DumpLabelMaps
from unireplknet_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor
from unireplknet_mm.engine.non_finite import NonFiniteLossError, NonFiniteLossHook
from unireplknet_mm.engine.randomness import SeededDataset, SeededIterationHook, SeededSampler
from unireplknet_mm.engine.same_classes import SameClassesHook
from unireplknet_mm.engine.skipping import SeekableBatchSampler, SkipSeenBatchesHook

__all__ = [
    'AtomicCheckpointHook',
    'CheckpointCheckHook',
    'CpuAmpOptimWrapper',
    'DumpLabelMaps',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteLossError',
    'NonFiniteLossHook',
    'PendingGradientsHook',
    'SameClassesHook',
    'SeededDataset',
    'SeededIterationHook',
    'SeededSampler',
    'SeekableBatchSampler',
    'SkipSeenBatchesHook',
    'SwitchToDeployHook',
    'WholeStepSampler',
    'WholeStepTrainLoop',
]
