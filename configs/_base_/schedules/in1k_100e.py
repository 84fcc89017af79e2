"""`in1k_300e` cut to the 100 epochs of the paper's design studies (appendix B)."""

_base_ = './in1k_300e.py'

train_cfg = dict(max_epochs=100)
