"""Table 2c of the paper: MobileNet V2 with 7×7 kernels in the last stage; ImageNet-1K.

Paper: top-1 72.00; 2.67 M parameters and 215.9 MFLOPs without branches. Not reproduced here.

The last stage is the layer of 320 channels (here 240), as the parameters say; §3.1.2 adds the
branches.

    bash tools/dist_train.sh configs/studies/table_2c_7x7_last_stage_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(
    backbone=dict(
        kernel_sizes=(3, 3, 3, 3, 3, 3, 7),
        small_kernel_size=3,
    )
)
