"""UniRepLKNet-S on ESC-50, fold 1, from ImageNet-1K weights with AST's recipe (arXiv 2104.01778).

The stem's three input channels are summed to one. Not trained here; the paper has no figure. Another fold:
--cfg-options train_dataloader.dataset.fold=2 val_dataloader.dataset.fold=2 test_dataloader.dataset.fold=2

    python tools/train.py configs/audio/unireplknet_s_in1k_esc50.py
"""

_base_ = [
    '../_base_/models/spectrogram_classifier.py',
    '../_base_/datasets/esc50.py',
    '../_base_/schedules/esc50_25e.py',
    '../_base_/audio_runtime.py',
]

init_cfg = dict(type='Pretrained', checkpoint='unireplknet_s_in1k', sum_input_channels=True)
model = dict(
    backbone=dict(init_cfg=init_cfg),
    head=dict(num_classes=50, loss=dict(_delete_=True, type='CrossEntropyLoss', use_soft=True)),
    train_cfg=None,  # no mixup
)
