"""Hourly values of stations in the files of Corrformer's global data: 48 hours in, 24 out, a sample a step.

The raw values are tenths: with unit=0.1, errors are in degrees and metres a second, as in Table 12.
"""

window = dict(look_back=48, horizon=24)
stations = dict(
    type='StationDataset',
    places_file='stations_sorted.npy',
    unit=0.1,
    pipeline=[dict(type='PackWindow')],
    **window,
)
train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(dates_file='data_time_train.npy', **stations),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(dates_file='data_time_val.npy', **stations),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(dates_file='data_time_test.npy', **stations),
)

val_evaluator = dict(type='ForecastError')
test_evaluator = val_evaluator
