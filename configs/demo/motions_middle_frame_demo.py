"""Eight motions of a digit, guessed from the middle frame alone: a check that nothing else tells the class.

The network, training and data of `motions_unireplknet_demo.py`, with one frame instead of 9.

    python tools/train.py configs/demo/motions_middle_frame_demo.py
"""

_base_ = './motions_unireplknet_demo.py'

input_shape = (1, 3, 32, 32)
model = dict(embedding=dict(num_frames=1))
_base_.pipeline[0].num_frames = 1
train_dataloader = dict(dataset=dict(pipeline=_base_.pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.pipeline))
test_dataloader = val_dataloader
