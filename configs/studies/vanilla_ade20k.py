"""UPerNet with the vanilla architecture with SE on ADE20K, 160k iterations (paper, Tables 3a to 3d).

Paper: mIoU 46.5 single-scale, in Table 3b 46.37 ± 0.10. Not reproduced here.

It starts from what `vanilla_in1k.py` leaves; the configs of the other rows inherit it. The paper
states no drop path and layer decay for its studies: these are T's.

    bash tools/dist_train.sh configs/studies/vanilla_ade20k.py 8
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
        arch=dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768)),
        drop_path_rate=0.2,
        with_cp=False,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vanilla_in1k/epoch_100.pth'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=1.0))
