"""Optimizers against closed forms in float64 and against PyTorch's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from lungan.config import OptimizerConfig
from lungan.config.training import AdamConfig, RmspropConfig, SgdConfig
from lungan.errors import ConfigError
from lungan.training.optimizers import build_optimizer

Array = NDArray[np.float64]
START = np.array([0.5, -1.0, 2.0])
# Gradients near epsilon tell its conventions apart.
GRADIENTS = [np.array([1e-7, 0.3, -2.0]) * scale for scale in (1.0, -0.5, 3.0, 0.1)]
LR = 0.01


def run(optimizer_of: Callable[[list[nn.Parameter]], Optimizer]) -> Array:
    parameter = nn.Parameter(torch.tensor(START, dtype=torch.float32))
    optimizer = optimizer_of([parameter])
    for gradient in GRADIENTS:
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    return parameter.detach().double().numpy()


def ours(config: OptimizerConfig) -> Array:
    return run(lambda parameters: build_optimizer(config, parameters, LR))


def keras_adam(decay: float = 0.0) -> Array:
    value, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(GRADIENTS, 1):
        value -= LR * decay * value
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        rate = LR * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        value -= rate * m / (np.sqrt(v) + 1e-7)
    return value


def keras_rmsprop(momentum: float) -> Array:
    value, v, velocity = START.copy(), np.zeros(3), np.zeros(3)
    for gradient in GRADIENTS:
        v = 0.9 * v + 0.1 * gradient**2
        velocity = momentum * velocity + LR * gradient / np.sqrt(v + 1e-7)
        value -= velocity
    return value


def torch_rmsprop(momentum: float) -> Array:
    value, v, velocity = START.copy(), np.zeros(3), np.zeros(3)
    for gradient in GRADIENTS:
        v = 0.9 * v + 0.1 * gradient**2
        velocity = momentum * velocity + gradient / (np.sqrt(v) + 1e-7)
        value -= LR * velocity
    return value


@pytest.fixture
def adam_config(optimizers: dict[str, OptimizerConfig]) -> AdamConfig:
    config = optimizers["adam"]
    assert isinstance(config, AdamConfig)
    return config


@pytest.fixture
def rmsprop_config(optimizers: dict[str, OptimizerConfig]) -> RmspropConfig:
    config = optimizers["rmsprop"]
    assert isinstance(config, RmspropConfig)
    return config


def test_adam_with_keras_epsilon(adam_config: AdamConfig) -> None:
    np.testing.assert_allclose(ours(adam_config), keras_adam(), rtol=0, atol=2e-7)


def test_adamw_with_keras_epsilon(adam_config: AdamConfig) -> None:
    config = dataclasses.replace(adam_config, name="adamw", weight_decay=0.2)
    np.testing.assert_allclose(ours(config), keras_adam(0.2), rtol=0, atol=5e-7)
    # and so Keras' epsilon differs from PyTorch's where gradients are small
    torchs = run(lambda parameters: AdamW(parameters, LR, eps=1e-7, weight_decay=0.2))
    assert abs(torchs[0] - keras_adam(0.2)[0]) > 1e-3


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW)])
def test_adam_with_torch_epsilon(name: str, kind: type[Adam], adam_config: AdamConfig) -> None:
    config = dataclasses.replace(
        adam_config, name=name, epsilon_convention="torch", weight_decay=0.2
    )
    wanted = run(lambda parameters: kind(parameters, LR, eps=1e-7, weight_decay=0.2))
    np.testing.assert_allclose(ours(config), wanted, rtol=0, atol=2e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_rmsprop_in_both_conventions(momentum: float, rmsprop_config: RmspropConfig) -> None:
    keras = dataclasses.replace(rmsprop_config, momentum=momentum)
    np.testing.assert_allclose(ours(keras), keras_rmsprop(momentum), rtol=0, atol=3e-7)
    torchs = dataclasses.replace(keras, epsilon_convention="torch")
    np.testing.assert_allclose(ours(torchs), torch_rmsprop(momentum), rtol=0, atol=3e-7)
    assert abs(keras_rmsprop(momentum)[0] - torch_rmsprop(momentum)[0]) > 1e-3


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd(momentum: float) -> None:
    config = SgdConfig(name="sgd", generator_lr=LR, discriminator_lr=LR, momentum=momentum)
    value, velocity = START.copy(), np.zeros(3)
    for gradient in GRADIENTS:
        velocity = momentum * velocity + gradient
        value -= LR * velocity
    np.testing.assert_allclose(ours(config), value, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_saved_and_loaded_goes_on_with_the_same_bits(
    name: str, optimizers: dict[str, OptimizerConfig]
) -> None:
    config = optimizers[name]
    if isinstance(config, RmspropConfig):
        config = dataclasses.replace(config, momentum=0.5)
    whole = nn.Parameter(torch.tensor(START, dtype=torch.float32))
    optimizer = build_optimizer(config, [whole], LR)
    for number, gradient in enumerate(GRADIENTS):
        if number == 2:
            state, halfway = optimizer.state_dict(), nn.Parameter(whole.detach().clone())
            optimizer = build_optimizer(config, [halfway], 123.0)
            optimizer.load_state_dict(state)
            whole = halfway
        whole.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    wanted = ours(config)
    assert np.array_equal(whole.detach().double().numpy(), wanted)


def test_unknown_optimizer_is_refused(adam_config: AdamConfig) -> None:
    config = dataclasses.replace(adam_config, name="adma")
    message = r"optimizer\.name must be one of adam, adamw, rmsprop, sgd, got adma"
    with pytest.raises(ConfigError, match=message):
        ours(config)
