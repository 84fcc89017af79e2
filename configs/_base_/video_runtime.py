"""Runtime settings of video classification: mmpretrain's, and what videos need."""

_base_ = './cls_runtime.py'

custom_imports = dict(
    imports=['unireplknet_mm', 'unireplknet_mm.modalities.video'], allow_failed_imports=False
)
custom_hooks = [dict(type='ReportUnreadableHook')]
