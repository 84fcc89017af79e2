"""Runtime settings of audio: those of classification, and the modality."""

_base_ = './cls_runtime.py'

custom_imports = dict(
    imports=['unireplknet_mm', 'unireplknet_mm.modalities.audio'], allow_failed_imports=False
)
log_processor = dict(by_epoch=True)
