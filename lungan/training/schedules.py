"""Learning-rate schedules: a factor on both learning rates, a function of epochs done."""

from __future__ import annotations

import math

from lungan.config import DecayScheduleConfig, ScheduleConfig, StepScheduleConfig
from lungan.errors import ConfigError


def learning_rate_factor(config: ScheduleConfig, epochs_done: float, epochs: int) -> float:
    """The factor at ``epochs_done`` (with fractions inside an epoch) of a run of ``epochs``.

    The schedule proper begins when the warm-up ends.

    Raises: ConfigError for an unknown name.
    """
    if epochs_done < config.warmup_epochs:
        return epochs_done / config.warmup_epochs
    since_warmup = epochs_done - config.warmup_epochs
    if isinstance(config, StepScheduleConfig):
        return config.factor ** math.floor(since_warmup / config.every_epochs)
    if isinstance(config, DecayScheduleConfig):
        span = epochs - config.warmup_epochs
        progress = min(since_warmup / span, 1.0) if span > 0 else 1.0
        if config.name == "linear":
            remaining = 1 - progress
        elif config.name == "cosine":
            remaining = (1 + math.cos(math.pi * progress)) / 2
        else:
            raise _unknown(config.name)
        return config.final_factor + (1 - config.final_factor) * remaining
    if config.name != "constant":
        raise _unknown(config.name)
    return 1.0


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"schedule.name must be one of constant, cosine, linear, step, got {name}")
