"""Windows of a CSV file with a date column: 70 % of the rows train, 10 % choose, 20 % test.

The parts of Weather, Electricity, Traffic, Exchange and ILI as in Autoformer (arXiv 2106.13008, §4) and
since. A leaf adds the file, look_back and horizon to each loader's data set, and other parts.
"""

series = dict(
    type='SeriesDataset',
    data_root='data/time_series',
    parts=(0.7, 0.1, 0.2),
    pipeline=[dict(type='PackWindow')],
)
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**series, part='train'),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**series, part='val'),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**series, part='test'),
)

val_evaluator = dict(type='ForecastError')
test_evaluator = val_evaluator
