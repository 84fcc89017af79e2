"""160k iterations on ADE20K with AdamW, batch 16, polynomial decay of power 0.9, gradients clipped at 0.01.

mmseg's schedule of Mask2Former but for the backbone's learning rates, which decay layer by layer;
mmseg multiplies them by 0.1. A leaf adds the decay rate.
"""

_base_ = './ade20k_160k.py'

optim_wrapper = dict(
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            name: dict(decay_mult=0.0) for name in ('query_embed', 'query_feat', 'level_embed')
        },
    ),
)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0)]
