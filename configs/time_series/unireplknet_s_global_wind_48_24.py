"""As unireplknet_s_global_temp_48_24.py, on global wind.

The paper has MSE 3.865 and MAE 1.301 (Table 12); not trained here.

python tools/train.py configs/time_series/unireplknet_s_global_wind_48_24.py
"""

_base_ = './unireplknet_s_global_temp_48_24.py'

train_dataloader = dict(dataset=dict(ann_file='wind_global_hourly_train.npy'))
val_dataloader = dict(dataset=dict(ann_file='wind_global_hourly_val.npy'))
test_dataloader = dict(dataset=dict(ann_file='wind_global_hourly_test.npy'))
