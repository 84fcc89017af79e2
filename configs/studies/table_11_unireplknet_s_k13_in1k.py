"""Table 11 of the paper: UniRepLKNet-S with 13×13 kernels.

Paper: MAE 7.602 on time series, OA 93.2 on point clouds, accuracy 98.5 on audio and 54.8 on video.
Not reproduced here.

The backbone of the row, which is that of `unireplknet_s_in1k.py`, trained on ImageNet-1K, for which
the paper has no figure; on the paper's tasks it is `table_11_*` in the folders of configs/.

    bash tools/dist_train.sh configs/studies/table_11_unireplknet_s_k13_in1k.py 8
"""

_base_ = '../cls/unireplknet_s_in1k.py'
