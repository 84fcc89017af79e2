"""NLinear (AAAI 2023) on ETTh1: 96 hours in, 96 out; learning rate and batch of its authors.

What was measured here is in docs/time_series.md; no figure of a paper is reproduced here.

    python tools/train.py configs/time_series/nlinear_etth1_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

model = dict(_delete_=True, type='NLinear', look_back=96, horizon=96, variables=7)
train_cfg = dict(max_epochs=5)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=5e-3))
