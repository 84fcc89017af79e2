"""The network that the paper's published video code trains, which is not the one that the paper describes:
the channels of B, 11×11 kernels in the last stage, and frames as bands (`layout='reshape'`).

The paper has no figure for it (its top-1 of 54.8 and 55.5 M parameters are said of S). Not trained here.

    bash tools/dist_train.sh configs/video/unireplknet_b_reshape_k400.py 8
"""

_base_ = './unireplknet_s_k400.py'

arch = dict(
    _delete_=True,
    depths=(3, 3, 27, 3),
    channels=(128, 256, 512, 1024),
    kernel_sizes=(3, 13, (13, 3, 3) * 9, 11),
)
model = dict(
    embedding=dict(layout='reshape'), backbone=dict(arch=arch), head=dict(in_channels=1024)
)
