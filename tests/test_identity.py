"""Ids: what they depend on, and that they outlive new keys."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lungan.config import RunConfig, compose
from lungan.config.rules import NEUTRAL
from lungan.config.run import run_id, trajectory_id

DATA_HASH = "d" * 64

REPORT = "337799fc4443d80e"
"""How the id of the report's trajectory begins. Stores name their runs by it: a new key must carry
a neutral value (lungan.config.NEUTRAL); only a change of what the recipe computes may change it,
through RECIPE_VERSION."""


@pytest.fixture(scope="module", autouse=True)
def composer() -> Iterator[None]:
    with compose.composer():
        yield


def trajectory(*overrides: str) -> str:
    return trajectory_id(compose.compose(overrides), DATA_HASH, "bf16")


def test_the_reports_trajectory_keeps_its_id() -> None:
    assert trajectory("experiment=report").startswith(REPORT)


GOLDEN = json.loads((Path(__file__).parent / "golden" / "ids.json").read_text())
"""Overrides and the trajectory and run id that they had before the registry."""


@pytest.mark.parametrize("overrides", GOLDEN, ids=lambda text: text or "defaults")
def test_ids_of_configs_stay(overrides: str) -> None:
    config = compose.compose(overrides.split())
    trajectory = trajectory_id(config, DATA_HASH, "bf16")
    assert [trajectory, run_id(trajectory, config.epochs)] == GOLDEN[overrides]


@pytest.mark.parametrize(
    "override",
    [
        "epochs=7",
        "store=elsewhere",
        "device=cpu",
        "threads=1",
        "score=none",
        "tracker=wandb",
        "checkpoint_every_epochs=1",
        "samples_every_epochs=1",
        "retry=diverged",
        "data.num_images=100",  # the images' hash stands for what they are
    ],
)
def test_what_leaves_the_weights_alone_leaves_the_trajectory_alone(override: str) -> None:
    assert trajectory(override) == trajectory()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "lr=0.002",
        "batch_size=128",
        "optimizer=rmsprop",
        "optimizer.beta1=0.5",
        "generator.width=32",
        "discriminator.dropout=0",
        "loss.update=alternating",
        "schedule=cosine",
    ],
)
def test_what_shapes_the_weights_shapes_the_trajectory(override: str) -> None:
    assert trajectory(override) != trajectory()


def test_data_and_precision_shape_the_trajectory() -> None:
    config = compose.compose([])
    ids = {
        trajectory_id(config, data, precision)
        for data in (DATA_HASH, "e" * 64)
        for precision in ("bf16", "fp32")
    }
    assert len(ids) == 4


def test_epochs_shape_the_trajectory_only_where_the_schedule_sees_the_horizon() -> None:
    assert trajectory("schedule=step", "epochs=10") == trajectory("schedule=step", "epochs=20")
    assert trajectory("schedule=linear", "epochs=10") != trajectory("schedule=linear", "epochs=20")


def test_a_learning_rate_is_the_same_by_either_key() -> None:
    both = ("optimizer.generator_lr=0.0005", "optimizer.discriminator_lr=0.0005")
    assert trajectory(*both) == trajectory("lr=0.0005")


def test_run_ids_differ_by_epochs_and_trajectory() -> None:
    assert len({run_id(name, epochs) for name in ("a", "b") for epochs in (1, 2)}) == 4


def test_a_key_at_its_neutral_value_leaves_the_id_alone() -> None:
    config = compose.compose([])

    def with_key(value: int) -> RunConfig:
        loss: Any = dataclasses.make_dataclass(
            "Later",
            [
                *(
                    (f.name, f.type, dataclasses.field(default=f.default, metadata=f.metadata))
                    for f in dataclasses.fields(config.loss)
                ),
                ("later", int, dataclasses.field(metadata={NEUTRAL: 0})),
            ],
            kw_only=True,
        )(**dataclasses.asdict(config.loss), later=value)
        return dataclasses.replace(config, loss=loss)

    before = trajectory_id(config, DATA_HASH, "bf16")
    assert trajectory_id(with_key(0), DATA_HASH, "bf16") == before
    assert trajectory_id(with_key(1), DATA_HASH, "bf16") != before
