"""UniRepLKNet-S on ScanObjectNN (PB_T50_RS) with the recipe for ModelNet-40.

The paper has no figure for it; its code has the data set. Not trained here.

    python tools/train.py configs/point_cloud/unireplknet_s_scanobjectnn.py
"""

_base_ = [
    '../_base_/models/point_cloud_classifier.py',
    '../_base_/datasets/scanobjectnn.py',
    '../_base_/schedules/points_300e.py',
    '../_base_/point_cloud_runtime.py',
]

input_shape = (2048, 3)
smoothing = dict(type='LabelSmoothLoss', label_smooth_val=0.2 * 15 / 14, mode='original')
model = dict(
    backbone=dict(arch='s', drop_path_rate=0.4),
    head=dict(num_classes=15, in_channels=768, loss=smoothing),
)
