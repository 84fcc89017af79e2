"""As unireplknet_etth1_96_96.py, with all variables in one map (n=1 of Eq. 2).

Not in the paper; what was measured here is in docs/time_series.md.

python tools/train.py configs/time_series/unireplknet_mixing_etth1_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

model = dict(embedding=dict(nodes=1))
