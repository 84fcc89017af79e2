"""Table 2c of the paper: MobileNet V2 with 9×9 kernels in the last stage; ImageNet-1K.

Paper: top-1 71.83; 2.69 M parameters and 217.1 MFLOPs without branches. Not reproduced here.

The last stage is the layer of 320 channels (here 240), as the parameters say; §3.1.2 adds the
branches.

    bash tools/dist_train.sh configs/studies/table_2c_9x9_last_stage_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(
    backbone=dict(
        kernel_sizes=(3, 3, 3, 3, 3, 3, 9),
        small_kernel_size=3,
    )
)
