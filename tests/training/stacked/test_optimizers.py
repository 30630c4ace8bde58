"""Rows of stacked optimizers against each run's own optimizer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from lungan.config import AdamConfig, OptimizerConfig, RmspropConfig, SgdConfig
from lungan.training.optimizers import build_optimizer
from lungan.training.stacked.optimizers import StackedOptimizer

LRS = {"generator_lr": 1e-2, "discriminator_lr": 1e-2}
ADAM = AdamConfig(
    name="adam",
    **LRS,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-7,
    epsilon_convention="keras",
    weight_decay=0,
)
RMSPROP = RmspropConfig(
    name="rmsprop", **LRS, decay=0.9, momentum=0, epsilon=1e-7, epsilon_convention="keras"
)
SGD = SgdConfig(name="sgd", **LRS, momentum=0)
CONFIGS: list[OptimizerConfig] = [
    ADAM,
    dataclasses.replace(ADAM, epsilon_convention="torch"),
    dataclasses.replace(ADAM, beta1=0.0, beta2=0.9, weight_decay=0.1),
    dataclasses.replace(ADAM, name="adamw", weight_decay=0.1),
    dataclasses.replace(ADAM, name="adamw", epsilon_convention="torch", weight_decay=0.1),
    RMSPROP,
    dataclasses.replace(RMSPROP, momentum=0.5),
    dataclasses.replace(RMSPROP, epsilon_convention="torch"),
    dataclasses.replace(RMSPROP, epsilon_convention="torch", momentum=0.5, decay=0.99),
    SGD,
    dataclasses.replace(SGD, momentum=0.9),
]
# Gradients near epsilon tell its conventions apart.
GRADIENTS = [
    torch.tensor([1e-7, 0.3, -2.0, 0.0, -1e-4, 5.0]) * scale for scale in (1.0, -0.5, 3.0, 0.1)
]
RATES = [0.01, 0.005, 0.0, 0.02]


def module() -> nn.Module:
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, -1.0], [2.0, 0.1]]))
        network.bias.copy_(torch.tensor([0.0, -0.2]))
    return network


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def step_alone(config: OptimizerConfig, first: int, last: int, optimizer, network) -> None:  # type: ignore[no-untyped-def]
    for number in range(first, last):
        optimizer.param_groups[0]["lr"] = RATES[number] * (1 + CONFIGS.index(config))
        weight, bias = GRADIENTS[number].split([4, 2])
        network.weight.grad, network.bias.grad = weight.view(2, 2).clone(), bias.clone()
        optimizer.step()


@pytest.mark.parametrize("taken_over", [0, 2])
def test_every_row_is_its_own_optimizer(taken_over: int) -> None:
    """From the start, and from what single runs left after two updates; and back."""
    networks = [module() for _ in CONFIGS]
    optimizers = [
        build_optimizer(c, n.parameters(), 1e-2) for c, n in zip(CONFIGS, networks, strict=True)
    ]
    for config, optimizer, network in zip(CONFIGS, optimizers, networks, strict=True):
        step_alone(config, 0, taken_over, optimizer, network)
    weights = torch.stack([flat(network) for network in networks])
    stacked = StackedOptimizer(CONFIGS, optimizers, networks, weights, taken_over)
    for number in range(taken_over, 4):
        rates = [RATES[number] * (1 + row) for row in range(len(CONFIGS))]
        stacked.step(GRADIENTS[number].repeat(len(CONFIGS), 1), rates)
    for row, config in enumerate(CONFIGS):
        step_alone(config, taken_over, 4, optimizers[row], networks[row])
        torch.testing.assert_close(weights[row], flat(networks[row]), rtol=1e-5, atol=1e-7)

        network = module()
        optimizer = build_optimizer(config, network.parameters(), 1e-2)
        stacked.write(row, config, optimizer, network, RATES[3] * (1 + row))
        ours, theirs = optimizer.state_dict(), optimizers[row].state_dict()
        assert ours["param_groups"] == theirs["param_groups"]
        assert ours["state"].keys() == theirs["state"].keys()
        for index, values in theirs["state"].items():
            assert ours["state"][index].keys() == values.keys()
            for name, value in values.items():
                torch.testing.assert_close(ours["state"][index][name], value, rtol=1e-5, atol=1e-9)


def test_before_the_first_update_there_is_no_state() -> None:
    network = module()
    optimizer = build_optimizer(ADAM, network.parameters(), 1e-2)
    fresh = optimizer.state_dict()
    stacked = StackedOptimizer([ADAM], [optimizer], [network], flat(network)[None], 0)
    stacked.write(0, ADAM, optimizer, network, 1e-2)
    assert optimizer.state_dict() == fresh


def test_a_row_with_nan_leaves_the_others_alone() -> None:
    weights = torch.ones(2, 6)
    optimizers = [build_optimizer(ADAM, module().parameters(), 1e-2) for _ in range(2)]
    stacked = StackedOptimizer([ADAM, ADAM], optimizers, [module(), module()], weights, 0)
    stacked.step(torch.stack([torch.full((6,), torch.nan), torch.ones(6)]), [0.1, 0.1])
    assert weights[0].isnan().all()
    torch.testing.assert_close(weights[1], torch.full((6,), 0.9), atol=1e-5, rtol=0)
