"""A small UniRepLKNet on ETTh1: 96 hours in, 96 out, each variable a map of its own (§3.3, Eq. 2).

Not in the paper; what was measured here is in docs/time_series.md. The parts are 12, 4 and 4 months of 30
days, as in Informer (arXiv 2012.07436) and since.

    python tools/train.py configs/time_series/unireplknet_etth1_96_96.py
"""

_base_ = [
    '../_base_/models/forecaster.py',
    '../_base_/datasets/series.py',
    '../_base_/schedules/forecast_10e.py',
    '../_base_/time_series_runtime.py',
]

look_back, horizon, variables = 96, 96, 7
month = 30 * 24
input_shape = (look_back, variables)
data = dict(
    ann_file='ETTh1.csv',
    parts=(12 * month, 4 * month, 4 * month),
    look_back=look_back,
    horizon=horizon,
)
# Chosen on the validation part at 96 and 720 hours, of what docs/time_series.md lists.
model = dict(
    look_back=look_back,
    horizon=horizon,
    variables=variables,
    embedding=dict(channels=2),
    normalization='mean',
)
train_cfg = dict(max_epochs=3)  # the rate is halved every epoch; the first or second is the best
train_dataloader = dict(dataset=data)
val_dataloader = dict(dataset=data)
test_dataloader = dict(dataset=data)
