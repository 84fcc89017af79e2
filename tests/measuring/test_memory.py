"""Peak memory of a call, against allocations that are known."""

import torch
from torch import nn

from unireplknet_mm.measuring.memory import peak_of_call, size_of

MEBIBYTE = 2**20


def test_peak_is_of_what_lives_at_the_same_time():
    def call() -> torch.Tensor:
        first = torch.empty(4 * MEBIBYTE, dtype=torch.uint8)
        second = torch.empty(8 * MEBIBYTE, dtype=torch.uint8)
        del first
        third = torch.empty(2 * MEBIBYTE, dtype=torch.uint8)
        del second
        return third

    assert peak_of_call(call, 'cpu') == 12 * MEBIBYTE
    assert peak_of_call(call, 'cpu') == 12 * MEBIBYTE, 'whatever was allocated before'


def test_peak_counts_what_is_returned_and_not_what_was_there():
    there = torch.ones(MEBIBYTE)
    assert peak_of_call(lambda: there.neg_(), 'cpu') == 0
    assert peak_of_call(lambda: -there, 'cpu') == 4 * MEBIBYTE


def test_peak_of_a_backward_pass_has_the_activations_and_the_gradients():
    layers = nn.Sequential(*(nn.Sigmoid() for _ in range(5)))  # each keeps its output
    x = torch.ones(MEBIBYTE, requires_grad=True)
    forward = peak_of_call(lambda: layers(x), 'cpu')
    assert forward == 5 * 4 * MEBIBYTE
    with torch.no_grad():
        assert peak_of_call(lambda: layers(x), 'cpu') == 2 * 4 * MEBIBYTE
    backward = peak_of_call(lambda: layers(x).sum().backward(), 'cpu')
    assert 6 * 4 * MEBIBYTE <= backward <= 8 * 4 * MEBIBYTE


def test_size_of_tensors_counts_a_storage_once():
    weight = torch.zeros(10, 10)
    assert size_of([weight, weight[2:], weight.t()]) == 400
    assert size_of([weight, torch.zeros(3, dtype=torch.float64)]) == 424
