"""The backbones of Table 11 beside UniRepLKNet-S, for any of its tasks.

A leaf that inherits this takes one of them, and states `in_channels` where the map has not one.
"""

pooling = dict(type='GlobalAveragePooling')
resnet_101 = dict(_delete_=True, type='ResNet', depth=101, in_channels=1)
convnext_s = dict(_delete_=True, type='ConvNeXt', arch='small', in_channels=1, drop_path_rate=0.4)
unireplknet_s_k11 = dict(
    arch=dict(
        _delete_=True,
        depths=(3, 3, 27, 3),
        channels=(96, 192, 384, 768),
        kernel_sizes=(3, 11, (11, 3, 3) * 9, 11),
    )
)
