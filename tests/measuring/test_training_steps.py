"""Training steps of whole models: the ways they take, the steps, the table."""

import os

import torch

from unireplknet_mm.measuring import training_steps


def test_ways_of_a_training_step(monkeypatch):
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'op')
    seen = []
    seconds = training_steps.time_step(
        lambda: seen.append(os.environ['UNIREPLKNET_DWCONV']), rounds=2
    )
    assert seen == ['native', '', 'op'] * 2
    assert os.environ['UNIREPLKNET_DWCONV'] == 'op'
    assert set(seconds) == {'native', 'auto', 'op'}
    result = training_steps.Result('A model', 'contiguous', 2, dict(native=3.0, auto=2.0, op=1.0))
    row = training_steps.to_markdown([result]).splitlines()[-1]
    assert row == '| A model | contiguous | 3.00 s | 2.00 s | 1.00 s | 1.50x | 3.00x |'


def test_a_training_step_of_the_classifier():
    step = training_steps.classifier_step(32, 'channels_last')
    step()
    cells = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))
    parameters = list(cells['backbone'].cell_contents.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters)
    assert len(parameters) > 100
