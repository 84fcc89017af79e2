"""What MMEngine's runner builds from the suite: optimizer-wrapper constructors and hooks."""

from unireplknet_mm.engine.amp import CpuAmpOptimWrapper
from unireplknet_mm.engine.hooks import AtomicCheckpointHook, SwitchToDeployHook
from unireplknet_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor
from unireplknet_mm.engine.randomness import SeededDataset, SeededIterationHook, SeededSampler

__all__ = [
    'AtomicCheckpointHook',
    'CpuAmpOptimWrapper',
    'LayerDecayOptimWrapperConstructor',
    'SeededDataset',
    'SeededIterationHook',
    'SeededSampler',
    'SwitchToDeployHook',
]
