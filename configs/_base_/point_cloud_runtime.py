"""Runtime settings of point-cloud classification: mmpretrain's, and what point clouds need."""

_base_ = './cls_runtime.py'

custom_imports = dict(
    imports=['unireplknet_mm', 'unireplknet_mm.modalities.point_cloud'], allow_failed_imports=False
)
default_hooks = dict(checkpoint=dict(save_best='accuracy/OA'))
