"""The weather model with a small tree, short windows, and a backbone that trains on a CPU in seconds."""

_base_ = '../../../configs/time_series/unireplknet_globe_48_24.py'

window = dict(look_back=16, horizon=6)
input_shape = (16, 12)
arch = dict(_delete_=True, depths=(1, 1, 1, 1), channels=(8, 8, 16, 16), kernel_sizes=(3, 5, 7, 7))
model = dict(
    backbone=dict(arch=arch),
    tree=(2, 3),
    variables=12,
    channels=16,
    label=6,
    heads=2,
    feed_forward=16,
    decomposition=5,
    **window,
)
train_dataloader = dict(batch_size=2, dataset=window)
val_dataloader = dict(dataset=window)
test_dataloader = dict(dataset=window)
