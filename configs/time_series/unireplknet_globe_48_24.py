"""The model of Table 12, small, on the temperatures of a synthetic globe: 96 stations, 24 nodes of 4.

It trains on a CPU core in a minute; what was measured is in docs/time_series.md. The data:

    python tools/make_demo_data.py stations --out data/globe --images 200 --val-images 50
    python tools/train.py configs/time_series/unireplknet_globe_48_24.py
"""

_base_ = './unireplknet_s_global_temp_48_24.py'

stations, channels = 96, 48  # 48·48 = 48²
input_shape = (48, stations)
model = dict(
    tree=(4, 6),
    variables=stations,
    channels=channels,
    heads=4,
    feed_forward=96,
    backbone=dict(
        arch=dict(_delete_=True, depths=(1, 1, 2, 1), channels=(8, 16, 32, channels)),
        drop_path_rate=0.0,
        with_cp=False,
    ),
)
data = dict(data_root='data/globe/', missing='error')
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(batch_size=16, num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = dict(batch_size=16, num_workers=0, persistent_workers=False, dataset=data)
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=1.0))
