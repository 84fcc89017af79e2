"""A small UniRepLKNet on Traffic, the hourly occupancy of 862 lanes: 96 rows in, 96 out.

Not in the paper; not trained here.

The file is that of the collection of Autoformer; its rows are taken as they are, as the field does.

    python tools/train.py configs/time_series/unireplknet_traffic_96_96.py
"""

_base_ = [
    '../_base_/models/forecaster.py',
    '../_base_/datasets/series.py',
    '../_base_/schedules/forecast_10e.py',
    '../_base_/time_series_runtime.py',
]

look_back, horizon, variables = 96, 96, 862
input_shape = (look_back, variables)
data = dict(ann_file='traffic.csv', look_back=look_back, horizon=horizon, missing='ignore')
model = dict(look_back=look_back, horizon=horizon, variables=variables)
train_dataloader = dict(batch_size=1, dataset=data)
val_dataloader = dict(batch_size=4, dataset=data)
test_dataloader = dict(batch_size=4, dataset=data)
