"""ResNet-101, K=3, on maps of 192×192 of ETTh1.

The paper has it on global weather (Table 11); not trained here.

python tools/train.py configs/time_series/table_11_resnet_101_etth1.py
"""

_base_ = './table_11_unireplknet_s_k13_etth1.py'

custom_imports = dict(
    imports=['unireplknet_mm', 'unireplknet_mm.modalities.time_series', 'mmpretrain.models'],
    allow_failed_imports=False,
)
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ResNet', depth=101, in_channels=1, out_indices=(3,)
    )
)
