"""UniRepLKNet-S on AudioSet-2M from ImageNet-1K weights with AST's recipe (arXiv 2104.01778).

docs/audio.md lists what differs from it. The stem's three input channels are summed to one. Not trained here;
the paper has no figure.

    python tools/train.py configs/audio/unireplknet_s_in1k_audioset.py
"""

_base_ = [
    '../_base_/models/spectrogram_classifier.py',
    '../_base_/datasets/audioset.py',
    '../_base_/schedules/audioset_5e.py',
    '../_base_/audio_runtime.py',
]

init_cfg = dict(type='Pretrained', checkpoint='unireplknet_s_in1k', sum_input_channels=True)
model = dict(
    backbone=dict(init_cfg=init_cfg),
    head=dict(type='MultiLabelLinearClsHead', num_classes=527),
    train_cfg=dict(probs=[0.5]),  # mixup
)
default_hooks = dict(checkpoint=dict(save_best='multi-label/mAP'))
