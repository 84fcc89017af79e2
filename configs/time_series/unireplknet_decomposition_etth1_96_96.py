"""As unireplknet_etth1_96_96.py, trend and rest embedded apart.

Not in the paper; what was measured here is in docs/time_series.md.

python tools/train.py configs/time_series/unireplknet_decomposition_etth1_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

model = dict(embedding=dict(decomposition=25))
