"""UniRepLKNet-H, ImageNet-22K weights fine-tuned on ImageNet-1K at 384: derived from XL, not the paper's.

It starts from what `unireplknet_h_in22k.py` leaves: no weights are published. Not trained here.

    bash tools/dist_train.sh configs/cls/unireplknet_h_in22k_to_in1k_384.py 8
"""

_base_ = './unireplknet_xl_in22k_to_in1k_384.py'

model = dict(
    backbone=dict(
        arch='h',
        with_cp=True,
        init_cfg=dict(checkpoint='work_dirs/unireplknet_h_in22k/epoch_90.pth'),
    ),
    head=dict(in_channels=3840),
)
