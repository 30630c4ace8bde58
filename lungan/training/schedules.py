"""Learning-rate schedules: a factor on both learning rates, a function of epochs done.

A schedule takes its config, the epochs done since the warm-up and those there are after it.
"""

from __future__ import annotations

import math

from lungan import registry
from lungan.config import ScheduleConfig
from lungan.config.training import ConstantScheduleConfig, DecayScheduleConfig, StepScheduleConfig


def learning_rate_factor(config: ScheduleConfig, epochs_done: float, epochs: int) -> float:
    """The factor at ``epochs_done`` (with fractions inside an epoch) of a run of ``epochs``.

    The schedule proper begins when the warm-up ends.

    Raises: ConfigError for an unknown name.
    """
    warmup = config.warmup_epochs
    if epochs_done < warmup:
        return epochs_done / warmup
    factor = registry.builder("schedule", config.name)
    return float(factor(config, epochs_done - warmup, epochs - warmup))


def constant(_config: ConstantScheduleConfig, _done: float, _epochs: float) -> float:
    """1 all along."""
    return 1.0


def linear(config: DecayScheduleConfig, done: float, epochs: float) -> float:
    """From 1 to ``final_factor`` in a line."""
    return _between(config, 1 - _progress(done, epochs))


def cosine(config: DecayScheduleConfig, done: float, epochs: float) -> float:
    """From 1 to ``final_factor`` along half a cosine. Source: Loshchilov & Hutter 2017."""
    return _between(config, (1 + math.cos(math.pi * _progress(done, epochs))) / 2)


def step(config: StepScheduleConfig, done: float, _epochs: float) -> float:
    """``factor`` for each time that ``every_epochs`` have passed."""
    return config.factor ** math.floor(done / config.every_epochs)


def _progress(done: float, epochs: float) -> float:
    return min(done / epochs, 1.0) if epochs > 0 else 1.0


def _between(config: DecayScheduleConfig, remaining: float) -> float:
    return config.final_factor + (1 - config.final_factor) * remaining
