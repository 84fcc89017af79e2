"""UniRepLKNet-S, K=13, on maps of 192×192 of ETTh1, as the paper's are.

The paper has it on global weather (Table 11); not trained here.

python tools/train.py configs/time_series/table_11_unireplknet_s_k13_etth1.py
"""

_base_ = './unireplknet_etth1_96_96.py'

model = dict(
    embedding=dict(channels=384, calendar=True, position='sinusoidal'),
    backbone=dict(arch='s', drop_path_rate=0.4),
)
