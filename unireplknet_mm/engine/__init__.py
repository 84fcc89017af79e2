"""What MMEngine's runner builds from the suite: optimizer-wrapper constructors and hooks."""

from unireplknet_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['LayerDecayOptimWrapperConstructor']
