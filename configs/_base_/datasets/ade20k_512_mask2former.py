"""ADE20K, 512 crops of images whose shorter side is 256 to 1024, as Mask2Former trains."""

_base_ = './ade20k_512.py'

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(
        type='RandomChoiceResize',
        scales=[int(512 * tenths / 10) for tenths in range(5, 21)],
        resize_type='ResizeShortestEdge',
        max_size=2048,
    ),
    *_base_.train_pipeline[3:],
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
