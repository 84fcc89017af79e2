"""The clouds of `solids_unireplknet_demo.py`, each rotated at random in space, in training and in testing.

python tools/train.py configs/demo/solids_rotated_unireplknet_demo.py
"""

_base_ = './solids_unireplknet_demo.py'

train, test = _base_.train_pipeline, _base_.test_pipeline
train.insert(3, dict(type='RandomRotation'))  # behind UnitSphere
test.insert(3, dict(type='RandomRotation', by_index=True))
train_dataloader = dict(dataset=dict(pipeline=train))
val_dataloader = dict(dataset=dict(pipeline=test))
test_dataloader = val_dataloader
