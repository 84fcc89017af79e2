"""90 epochs on ImageNet-22K with AdamW, batch 4096, 5 epochs of warm-up, then cosine (Table 17).

The batch is 8 GPUs x 32 images x 16 accumulated steps; the published commands have 16 GPUs, 32 for
XL, and accumulate less. The learning rate is the paper's for every model; the published commands of
L and XL have 1e-3 (`--cfg-options optim_wrapper.optimizer.lr=1e-3`). There is nothing to validate
on.
"""

_base_ = './in1k_300e.py'

optim_wrapper = dict(accumulative_counts=16)
train_cfg = dict(max_epochs=90)
val_cfg = None
test_cfg = None

# Images of one step, batch 4096 / 16.
auto_scale_lr = dict(base_batch_size=256)
