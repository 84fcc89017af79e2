"""Table 11 of the paper: UniRepLKNet-S with 11×11 kernels.

Paper: MAE 7.751 on time series, OA 92.9 on point clouds, accuracy 94.7 on audio and 51.7 on video.
Not reproduced here.

The backbone of the row trained on ImageNet-1K, for which the paper has no figure; on the paper's
tasks it is `table_11_*` in the folders of configs/.

    bash tools/dist_train.sh configs/studies/table_11_unireplknet_s_k11_in1k.py 8
"""

_base_ = '../cls/unireplknet_s_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            depths=(3, 3, 27, 3),
            channels=(96, 192, 384, 768),
            kernel_sizes=(3, 11, (11, 3, 3) * 9, 11),
        )
    )
)
