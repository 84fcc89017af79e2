"""ConvNeXt-S, K=7, on maps of 192×192 of ETTh1.

The paper has it on global weather (Table 11); not trained here.

python tools/train.py configs/time_series/table_11_convnext_s_etth1.py
"""

_base_ = './table_11_unireplknet_s_k13_etth1.py'

custom_imports = dict(
    imports=['unireplknet_mm', 'unireplknet_mm.modalities.time_series', 'mmpretrain.models'],
    allow_failed_imports=False,
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='small',
        in_channels=1,
        drop_path_rate=0.4,
        gap_before_final_norm=False,
    )
)
