from __future__ import annotations

import math

import pytest

from lungan.config import ScheduleConfig
from lungan.config.training import ConstantScheduleConfig, DecayScheduleConfig, StepScheduleConfig
from lungan.errors import ConfigError
from lungan.training.schedules import learning_rate_factor


def decay(name: str, warmup: float = 0.0) -> DecayScheduleConfig:
    return DecayScheduleConfig(name=name, warmup_epochs=warmup, final_factor=0.1)


def test_constant_is_one() -> None:
    config = ConstantScheduleConfig(name="constant", warmup_epochs=0)
    assert [learning_rate_factor(config, done, 10) for done in (0, 0.5, 10)] == [1, 1, 1]


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_decay_runs_from_one_to_the_final_factor(name: str) -> None:
    assert learning_rate_factor(decay(name), 0, 10) == 1
    assert learning_rate_factor(decay(name), 5, 10) == pytest.approx(0.55)
    assert learning_rate_factor(decay(name), 10, 10) == pytest.approx(0.1)


def test_decay_in_closed_form_after_a_warmup() -> None:
    # Eight epochs of decay follow two of warm-up: at 4 a quarter is done.
    assert learning_rate_factor(decay("linear", 2), 4, 10) == pytest.approx(1 - 0.9 / 4)
    wanted = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert learning_rate_factor(decay("cosine", 2), 4, 10) == pytest.approx(wanted)


def test_steps() -> None:
    config = StepScheduleConfig(name="step", warmup_epochs=0, every_epochs=3, factor=0.5)
    factors = [learning_rate_factor(config, done, 10) for done in (0, 2.99, 3, 6, 9.5)]
    assert factors == [1, 1, 0.5, 0.25, 0.125]


def test_warmup_rises_linearly_from_zero() -> None:
    for config in (
        ConstantScheduleConfig(name="constant", warmup_epochs=4),
        decay("cosine", 4),
        StepScheduleConfig(name="step", warmup_epochs=4, every_epochs=1, factor=0.5),
    ):
        assert [learning_rate_factor(config, done, 10) for done in (0, 1, 3)] == [0, 0.25, 0.75]
        assert learning_rate_factor(config, 4, 10) == 1


def test_warmup_as_long_as_the_run() -> None:
    assert learning_rate_factor(decay("linear", 4), 3, 4) == 0.75
    assert learning_rate_factor(decay("linear", 4), 4, 4) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "config", [ScheduleConfig(name="polynomial", warmup_epochs=0), decay("polynomial")]
)
def test_unknown_schedule_is_refused(config: ScheduleConfig) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.name must be one of .* got polynomial"):
        learning_rate_factor(config, 0, 10)
