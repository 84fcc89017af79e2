"""`coco_3x` with an exponential moving average of the weights, which is validated and tested.

The published configs of ImageNet-22K-pretrained backbones have it, those of ImageNet-1K do not.
"""

_base_ = './coco_3x.py'

custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=1e-4,
        update_buffers=True,
        priority=49,
    )
]
