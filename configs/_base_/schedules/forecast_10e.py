"""Adam for 10 epochs at most, the rate halved every epoch, as the field trains on these series."""

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2))
param_scheduler = [dict(type='ExponentialLR', gamma=0.5, by_epoch=True)]
