"""Table 2c of the paper: MobileNet V2 with 13×13 kernels in the last stage; ImageNet-1K.

Paper: top-1 71.97; 2.75 M parameters and 220.2 MFLOPs without branches. Not reproduced here.

The last stage is the layer of 320 channels (here 240), as the parameters say; §3.1.2 adds the
branches.

    bash tools/dist_train.sh configs/studies/table_2c_13x13_last_stage_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(
    backbone=dict(
        kernel_sizes=(3, 3, 3, 3, 3, 3, 13),
        small_kernel_size=3,
    )
)
