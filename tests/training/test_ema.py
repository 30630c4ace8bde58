from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lungan.training.state import decay, drift, update_average


def test_half_of_the_average_is_left_after_its_half_life() -> None:
    assert decay(500, 10**9, 500, 0.05) == pytest.approx(0.5)
    assert math.prod(decay(50, 10**9, 500, 0.05) for _ in range(10)) == pytest.approx(0.5)


def test_batch_size_does_not_change_the_average_of_a_steady_path() -> None:
    left = [math.prod(decay(n, 10**9, 777, 0.05) for _ in range(1200 // n)) for n in (8, 100, 1200)]
    assert left == pytest.approx([left[0]] * 3)


def test_the_half_life_ramps_up() -> None:
    assert decay(64, 64, 10_000, 0.05) == pytest.approx(0.5**20)
    assert decay(64, 20_000, 10_000, 0.05) == pytest.approx(0.5 ** (64 / 1000))
    assert decay(64, 200_000, 10_000, 0.05) == pytest.approx(0.5 ** (64 / 10_000))


def test_weights_are_averaged_and_buffers_copied() -> None:
    network = nn.BatchNorm1d(3)
    average = copy.deepcopy(network)
    with torch.no_grad():
        network.weight += 2
        network.running_mean += 5  # type: ignore[operator]
    update_average(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5, 1.5]
    assert average.running_mean.tolist() == [5, 5, 5]  # type: ignore[union-attr, operator]
    assert network.weight.tolist() == [3, 3, 3]


def test_drift_is_relative() -> None:
    network = nn.Linear(2, 1, bias=False)
    average = copy.deepcopy(network)
    assert float(drift(average, network)) == 0
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 4.0]]))
        average.weight.copy_(torch.tensor([[3.0, 3.0]]))
    assert float(drift(average, network)) == pytest.approx(0.2)
