"""Eight motions of a digit over a photograph, told apart from 9 frames laid out as one image.

A stand-in for a video data set, trained from scratch on a CPU within minutes: real digits on real
photographs, H.264 files, classes that differ in motion alone. `motions_middle_frame_demo.py` is the same
network on the middle frame, which tells nothing of the class. What they reach: docs/video.md.

    python tools/make_demo_data.py kinetics --out data/demo/motions --images 2400 --val-images 800 \
        --size 32 32 --frames 16 --digit-size 0.3 0.45
    python tools/train.py configs/demo/motions_unireplknet_demo.py
"""

_base_ = [
    '../_base_/models/video_classifier.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/schedules/k400_90e.py',
    '../_base_/video_runtime.py',
]

num_frames = 9
max_epochs = 9
batch_size = 32
data_root = 'data/demo/motions/'
classes = ('left', 'right', 'up', 'down', 'growing', 'shrinking', 'turning', 'still')

input_shape = (num_frames, 3, 32, 32)
model = dict(
    embedding=dict(num_frames=num_frames),
    backbone=dict(
        arch=dict(depths=(1, 1, 2, 1), channels=(24, 48, 96, 192)), layer_scale_init_value=0.1
    ),
    head=dict(
        num_classes=len(classes),
        in_channels=192,
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
    ),
)
data_preprocessor = dict(num_classes=len(classes))

# The videos are of the size of the network's input. A flip would turn left into right.
pipeline = [
    dict(type='LoadVideo', num_frames=num_frames, sampling='uniform'),
    dict(type='PackClips'),
]
dataset = dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=pipeline)
loader = dict(batch_size=batch_size, num_workers=1, dataset=dataset)
train_dataloader = dict(sampler=dict(num_repeats=1), **loader)
val_dataloader = loader
test_dataloader = loader

optim_wrapper = dict(optimizer=dict(lr=3e-3), accumulative_counts=1, clip_grad=dict(max_norm=5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=3e-5, by_epoch=True, begin=1, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=batch_size)
