"""The forecaster of ETTh1 with short windows, and a backbone that trains on a CPU in seconds."""

_base_ = '../../../configs/time_series/unireplknet_etth1_96_96.py'

window = dict(look_back=24, horizon=6)
input_shape = (24, 3)
arch = dict(_delete_=True, depths=(1, 1, 1, 1), channels=(8, 8, 16, 16), kernel_sizes=(3, 5, 7, 7))
model = dict(backbone=dict(arch=arch), variables=3, **window)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=window)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=window)
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=window)
