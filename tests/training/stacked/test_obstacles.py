"""What keeps runs from a stack, and what they must share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from lungan.config import RunConfig, SgdConfig, presets
from lungan.training.stacked.obstacles import obstacle, shape

MakeConfig = Callable[..., RunConfig]
SGD = SgdConfig(name="sgd", generator_lr=0.1, discriminator_lr=0.1, momentum=0.0)


def shape_of(config: RunConfig) -> str:
    return shape(config, "images", "cpu", "fp32")


@pytest.mark.parametrize(
    ("group", "changes", "said"),
    [
        ("generator", {"conditional": True}, "generator.conditional=true"),
        ("discriminator", {"spectral_norm": True}, "discriminator.spectral_norm=true"),
        ("loss", {"r1": 0.5}, "loss.r1=0.5"),
        ("loss", {"r2": 1.0}, "loss.r2=1"),
        ("loss", {"gradient_penalty": 10.0}, "loss.gradient_penalty=10"),
        ("loss", {"micro_batches": 2}, "loss.micro_batches=2"),
        ("loss", {"name": "lsgan", "update": "alternating", "lecam": 0.1}, None),
        ("generator", {"ema_half_life_images": 100.0}, None),
    ],
)
def test_obstacles(
    make_config: MakeConfig, group: str, changes: dict[str, Any], said: str | None
) -> None:
    config = make_config()
    setattr(config, group, dataclasses.replace(getattr(config, group), **changes))
    assert obstacle(config) == said


def test_other_networks_are_an_obstacle(make_config: MakeConfig) -> None:
    config = make_config()
    config.generator = presets.load("generator", "resnet")
    assert obstacle(config) == "generator=resnet"


def test_what_is_each_runs_own_does_not_part_them(make_config: MakeConfig) -> None:
    config = make_config()
    other = make_config(seed=3, optimizer=SGD)
    other.generator.ema_half_life_images = 100
    other = dataclasses.replace(other, epochs=9, lr=0.5, checkpoint_every_epochs=7)
    assert shape_of(config) == shape_of(other)
    assert config.generator.ema_half_life_images == 0


@pytest.mark.parametrize(
    "settings", [{"width": 8}, {"dropout": 0.1}, {"update": "alternating"}, {"latent_dim": 7}]
)
def test_what_parts_them(make_config: MakeConfig, settings: dict[str, Any]) -> None:
    assert shape_of(make_config()) != shape_of(make_config(**settings))
