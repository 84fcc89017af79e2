"""ScanObjectNN, the hardest variant (PB_T50_RS), all 2,048 points of a scan, in the pipeline of ModelNet-40.

Another variant: `variant='obj_bg'` or `'obj_only'` in the three data sets.
"""

_base_ = './modelnet40.py'

data_root = 'data/scanobjectnn'
num_points = 2048
data_preprocessor = dict(num_classes=15)

train, val, test = _base_.train_pipeline, _base_.val_pipeline, _base_.test_pipeline
train[1] = dict(type='SamplePoints', count=num_points, method='random')
val[1] = test[1] = dict(type='SamplePoints', count=num_points, method='first')
dataset = dict(type='ScanObjectNN', data_root=data_root, variant='pb_t50_rs')
train_dataloader = dict(dataset=dict(dataset, pipeline=train))
val_dataloader = dict(dataset=dict(dataset, pipeline=val))
test_dataloader = dict(dataset=dict(dataset, pipeline=test))
