"""As unireplknet_etth1_96_96.py, with a linear layer beside the backbone.

Not in the paper; what was measured here is in docs/time_series.md.

python tools/train.py configs/time_series/unireplknet_linear_skip_etth1_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

model = dict(skip='linear')
