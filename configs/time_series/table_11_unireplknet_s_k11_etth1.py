"""UniRepLKNet-S, K=11, on maps of 192×192 of ETTh1.

The paper has it on global weather (Table 11); not trained here.

python tools/train.py configs/time_series/table_11_unireplknet_s_k11_etth1.py
"""

_base_ = './table_11_unireplknet_s_k13_etth1.py'

large = [11 if i % 3 == 0 else 3 for i in range(27)]
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            depths=(3, 3, 27, 3),
            channels=(96, 192, 384, 768),
            kernel_sizes=(3, 11, large, 11),
        )
    )
)
