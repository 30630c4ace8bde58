"""Optimizers by name, with Keras' or PyTorch's place for epsilon."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

from lungan import registry
from lungan.config import OptimizerConfig
from lungan.config.training import AdamConfig, RmspropConfig, SgdConfig


class KerasAdam(Adam):
    """Adam as in Keras, epsilon added before bias correction:
    ``lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)``.

    It equals PyTorch's with ``epsilon / sqrt(1 - b2^t)``: 32 times as much at the first step. The
    number of steps is kept in the group, as a plain number, so that no step waits for a device.

    Source: Kingma & Ba 2015, the reordered form at the end of section 2.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["num_steps"] = group.get("num_steps", 0) + 1
            group.setdefault("keras_epsilon", group["eps"])
            correction = 1 - group["betas"][1] ** group["num_steps"]
            group["eps"] = group["keras_epsilon"] / math.sqrt(correction)
        return super().step(closure)


class KerasRmsprop(Optimizer):
    """RMSprop as in Keras: epsilon inside the root, the learning rate inside the momentum. Groups
    have ``lr``, ``decay``, ``momentum`` and ``epsilon``.

    Source: Hinton, Neural Networks for Machine Learning, lecture 6e.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            squares = self._state("mean_square", parameters)
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            if group["momentum"] == 0:
                torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])
                continue
            velocities = self._state("velocity", parameters)
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_addcdiv_(velocities, gradients, roots, group["lr"])
            torch._foreach_sub_(parameters, velocities)

    def _state(self, name: str, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], lr: float
) -> Optimizer:
    """The optimizer that ``optimizer.name`` asks for; ``lr`` is the one before any schedule.

    Raises: ConfigError for an unknown name.
    """
    optimizer: Optimizer = registry.builder("optimizer", config.name)(config, parameters, lr)
    return optimizer


def build_adam(config: AdamConfig, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Adam or, with decoupled weight decay, AdamW, whichever the config names.

    Source of AdamW: Loshchilov & Hutter 2019.
    """
    kind = KerasAdam if config.epsilon_convention == "keras" else Adam
    return kind(
        parameters,
        lr=lr,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        decoupled_weight_decay=config.name == "adamw",
        fused=True,
    )


def build_rmsprop(
    config: RmspropConfig, parameters: Iterable[nn.Parameter], lr: float
) -> Optimizer:
    """RMSprop by the config's convention."""
    decay, momentum, epsilon = config.decay, config.momentum, config.epsilon
    if config.epsilon_convention == "keras":
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "epsilon": epsilon}
        return KerasRmsprop(parameters, defaults)
    return RMSprop(parameters, lr, alpha=decay, eps=epsilon, momentum=momentum, foreach=True)


def build_sgd(config: SgdConfig, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return SGD(parameters, lr=lr, momentum=config.momentum, fused=True)
