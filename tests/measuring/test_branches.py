"""What branches cost: the three steps are what they say, and so is the memory."""

import pytest
import torch
from torch.nn import functional as F

from unireplknet_mm.measuring import branches
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_ops import is_available


@pytest.mark.skipif(not is_available('cpu'), reason='no compiled op')
@pytest.mark.parametrize('layout', ['NCHW', 'channels_last'])
def test_the_block_runs_as_one_operator_and_its_branches_one_by_one(layout, monkeypatch):
    fused = []
    real = DilatedReparamBlock.fused
    monkeypatch.setattr(
        DilatedReparamBlock, 'fused', lambda self, x: fused.append(x.shape) or real(self, x)
    )
    shape = (2, 16, 9, 9)
    costs = branches.measure(shape, layout, rounds=2)
    assert len(fused) == 3  # two rounds, and one call for the memory
    assert min(cost.seconds for cost in costs.values()) > 0
    a_map = 4 * 2 * 16 * 9 * 9
    assert costs['block'].kept < 2 * a_map + 16 * 4 * (13 * 13 + 5 * 25 + 50)
    assert costs['branches'].kept > 7 * a_map


def test_kept_memory_is_what_autograd_saves():
    x = torch.randn(3, 5, requires_grad=True)
    assert branches._kept_by(lambda: [F.relu(x)]) == 3 * 5 * 4


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(branches, 'SHAPES', ((2, 8, 14, 14),))
    monkeypatch.setattr('sys.argv', ['branches', '--rounds', '1'])
    branches.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(' | ')[0] for line in lines[-2:]] == [
        '| (2, 8, 14, 14), NCHW',
        '| (2, 8, 14, 14), channels_last',
    ]
    assert all(float(cell) > 0 for line in lines[-2:] for cell in line.strip('| ').split(' | ')[1:])
