"""Optimizers of R runs at once: a row of weights a run, each row with its own settings.

Rows of one kind lie side by side, so that an update is a few passes over large blocks of memory.
What differs between rows is a column of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lungan.config import AdamConfig, OptimizerConfig, RmspropConfig, SgdConfig

Column = Callable[[int, float], float]
"""A row's number at update number t, from 1, with the learning rate of that update."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a run's own optimizer calls its state: running mean or velocity, running square, and
    the count of updates. None where it has none."""

    first: str | None
    second: str | None
    count: str | None


def kind(config: OptimizerConfig) -> str:
    """Rows of one kind can share an update."""
    if isinstance(config, AdamConfig):
        return "adam"
    if isinstance(config, RmspropConfig):
        return "rmsprop"
    assert isinstance(config, SgdConfig)
    return "sgd"


class StackedOptimizer:
    """The optimizers of one network in all runs.

    configs: a row's each; rows of one ``kind`` are neighbors.
    count: updates done, the same in all runs.
    """

    def __init__(
        self,
        configs: Sequence[OptimizerConfig],
        optimizers: Sequence[Optimizer],
        modules: Sequence[nn.Module],
        flat: Tensor,
        count: int,
    ) -> None:
        self._configs = configs
        self._flat = flat
        self._first = torch.zeros_like(flat)
        self._second = torch.zeros_like(flat)
        self.count = count
        for row, (config, optimizer, module) in enumerate(
            zip(configs, optimizers, modules, strict=True)
        ):
            self._read(row, config, optimizer, module)
        self._columns = [_columns(config) for config in configs]
        kinds = [kind(config) for config in configs]
        starts = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
        assert len(starts) == len(set(kinds)), "rows of one kind must be neighbors"
        ends = [*starts[1:], len(kinds)]
        self._blocks = [
            (_UPDATES[kinds[start]], slice(start, end), _Needs.of(configs[start:end]))
            for start, end in zip(starts, ends, strict=True)
        ]

    @torch.no_grad()
    def step(self, gradients: Tensor, learning_rates: Sequence[float]) -> None:
        """gradients: (R, P), overwritten. learning_rates: a row's each."""
        self.count += 1
        values = [
            [column(self.count, lr) for column in columns]
            for columns, lr in zip(self._columns, learning_rates, strict=True)
        ]
        table = torch.tensor(values, dtype=torch.float64).float().T.contiguous().unsqueeze(2)
        if self._flat.device.type == "cuda":
            table = table.pin_memory().to(self._flat.device, non_blocking=True)
        for update, rows, needs in self._blocks:
            memory = self._flat[rows], gradients[rows], self._first[rows], self._second[rows]
            update(*memory, table[:, rows], needs)

    def write(
        self, row: int, config: OptimizerConfig, optimizer: Optimizer, module: nn.Module, lr: float
    ) -> None:
        """Give a run's own optimizer this row's state, as if it had done the updates."""
        state = optimizer.state_dict()
        names = _names(config)
        parameters = list(module.parameters())
        first, second = (_split(flat[row], parameters) for flat in (self._first, self._second))
        for index, parameter in enumerate(parameters if self.count else ()):
            values: dict[str, Any] = {}
            if names.count is not None:
                # Adam's is fused, with its count on the device.
                device = parameter.device if kind(config) == "adam" else "cpu"
                values[names.count] = torch.tensor(float(self.count), device=device)
            if names.first is not None:
                values[names.first] = torch.empty_like(parameter).copy_(first[index])
            if names.second is not None:
                values[names.second] = torch.empty_like(parameter).copy_(second[index])
            if values:
                state["state"][index] = values
        for group in state["param_groups"]:
            group["lr"] = lr
            if _is_keras_adam(config) and self.count:
                assert isinstance(config, AdamConfig)
                group["num_steps"] = self.count
                group["keras_epsilon"] = config.epsilon
                group["eps"] = config.epsilon / math.sqrt(1 - config.beta2**self.count)
        optimizer.load_state_dict(state)

    @torch.no_grad()
    def _read(
        self, row: int, config: OptimizerConfig, optimizer: Optimizer, module: nn.Module
    ) -> None:
        names = _names(config)
        parameters = list(module.parameters())
        for flat, name in ((self._first, names.first), (self._second, names.second)):
            for target, parameter in zip(_split(flat[row], parameters), parameters, strict=True):
                saved = optimizer.state.get(parameter, {})
                if name in saved:
                    target.copy_(saved[name])


@dataclass(frozen=True, slots=True)
class _Needs:
    """What at least one row of a block has."""

    momentum: bool
    coupled_decay: bool
    decoupled_decay: bool

    @classmethod
    def of(cls, configs: Sequence[OptimizerConfig]) -> _Needs:
        adams = [config for config in configs if isinstance(config, AdamConfig)]
        others = [config for config in configs if isinstance(config, RmspropConfig | SgdConfig)]
        return cls(
            any(config.momentum > 0 for config in others),
            any(config.weight_decay > 0 and config.name != "adamw" for config in adams),
            any(config.weight_decay > 0 and config.name == "adamw" for config in adams),
        )


def _columns(config: OptimizerConfig) -> list[Column]:
    """A row's numbers, seven of them, in the order in which its kind's update takes them."""
    if isinstance(config, AdamConfig):
        return _adam_columns(config)
    if isinstance(config, RmspropConfig):
        keras = config.epsilon_convention == "keras"
        return [
            _always(config.decay),
            _always(1 - config.decay),
            _always(config.epsilon if keras else 0.0),
            _always(0.0 if keras else config.epsilon),
            _always(config.momentum),
            # Keras has the learning rate inside the velocity, PyTorch outside.
            lambda _, lr: lr if keras else 1.0,
            lambda _, lr: 1.0 if keras else lr,
        ]
    assert isinstance(config, SgdConfig)
    unused = [_always(0.0)] * 5
    return [_always(config.momentum), lambda _, lr: lr, *unused]


def _adam_columns(config: AdamConfig) -> list[Column]:
    beta1, beta2 = config.beta1, config.beta2
    keras, decoupled = config.epsilon_convention == "keras", config.name == "adamw"
    decay = config.weight_decay

    def root_correction(count: int) -> float:
        return math.sqrt(1 - beta2**count)

    return [
        lambda _, lr: 1 - lr * decay if decoupled else 1.0,
        _always(0.0 if decoupled else decay),
        _always(1 - beta1),
        _always(beta2),
        _always(1 - beta2),
        # m / (sqrt(v) / correction + epsilon), both sides times the correction
        lambda count, _: config.epsilon * (1 if keras else root_correction(count)),
        lambda count, lr: lr * root_correction(count) / (1 - beta1**count),
    ]


def _update_adam(
    weights: Tensor, gradients: Tensor, mean: Tensor, square: Tensor, table: Tensor, needs: _Needs
) -> None:
    """As ``training.optimizers``' Adam and AdamW."""
    shrink, decay, new_share, beta2, new_square_share, epsilon, size = table
    if needs.decoupled_decay:
        weights.mul_(shrink)
    if needs.coupled_decay:
        gradients.addcmul_(weights, decay)
    mean.lerp_(gradients, new_share)
    square.mul_(beta2).add_(gradients.square_().mul_(new_square_share))
    roots = torch.sqrt(square, out=gradients).add_(epsilon)
    weights.addcdiv_(mean * size, roots, value=-1)


def _update_rmsprop(
    weights: Tensor,
    gradients: Tensor,
    velocity: Tensor,
    square: Tensor,
    table: Tensor,
    needs: _Needs,
) -> None:
    """As ``training.optimizers.KerasRmsprop`` and PyTorch's RMSprop."""
    decay, new_share, inside, outside, momentum, before, after = table
    square.mul_(decay).add_(gradients.square().mul_(new_share))
    change = gradients.div_((square + inside).sqrt_().add_(outside)).mul_(before)
    if needs.momentum:
        change = velocity.mul_(momentum).add_(change)
    weights.addcmul_(change, after, value=-1)


def _update_sgd(
    weights: Tensor, gradients: Tensor, velocity: Tensor, _: Tensor, table: Tensor, needs: _Needs
) -> None:
    momentum, lr = table[:2]
    change = velocity.mul_(momentum).add_(gradients) if needs.momentum else gradients
    weights.addcmul_(change, lr, value=-1)


_UPDATES = {"adam": _update_adam, "rmsprop": _update_rmsprop, "sgd": _update_sgd}


def _names(config: OptimizerConfig) -> Names:
    if isinstance(config, AdamConfig):
        return Names("exp_avg", "exp_avg_sq", "step")
    if isinstance(config, RmspropConfig):
        if config.epsilon_convention == "keras":
            return Names("velocity" if config.momentum else None, "mean_square", None)
        return Names("momentum_buffer" if config.momentum else None, "square_avg", "step")
    assert isinstance(config, SgdConfig)
    return Names("momentum_buffer" if config.momentum else None, None, None)


def _is_keras_adam(config: OptimizerConfig) -> bool:
    return isinstance(config, AdamConfig) and config.epsilon_convention == "keras"


def _always(value: float) -> Column:
    return lambda _count, _lr: value


def _split(row: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    parts = torch.split(row, [parameter.numel() for parameter in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
