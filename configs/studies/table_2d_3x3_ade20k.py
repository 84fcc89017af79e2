"""Table 2d of the paper: RepLKNet with 3×3 kernels in all stages; UPerNet on ADE20K.

Paper: mIoU 46.05; 104.1 M parameters and 1119 GFLOPs in deploy form. Not reproduced here.

It starts from what `table_2d_3x3_in1k.py` leaves; the configs of the other rows inherit it. Drop
path is that of T's segmenter, the paper states none.

    bash tools/dist_train.sh configs/studies/table_2d_3x3_ade20k.py 8
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        _delete_=True,
        type='FoldableRepLKNet',
        kernel_sizes=(3, 3, 3, 3),
        drop_path_rate=0.2,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/table_2d_3x3_in1k/epoch_100.pth'),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
