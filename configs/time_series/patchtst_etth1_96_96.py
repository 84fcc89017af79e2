"""PatchTST (ICLR 2023) on ETTh1: 96 hours in, 96 out; size of its authors for ETTh.

What was measured here is in docs/time_series.md; no figure of a paper is reproduced here.

    python tools/train.py configs/time_series/patchtst_etth1_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

model = dict(_delete_=True, type='PatchTST', look_back=96, horizon=96, variables=7)
train_dataloader = dict(batch_size=128)
# Chosen on the validation part of 3e-4, 1e-3 and 3e-3.
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=3e-3))
