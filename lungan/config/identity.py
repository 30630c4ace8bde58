"""The two hashes that name what a RunConfig gives: its trajectory and its run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from lungan import registry
from lungan.config.rules import NEUTRAL
from lungan.config.run import GROUPS, RunConfig
from lungan.registry import Plugin

SHAPING = ("generator", "discriminator", "loss", "optimizer", "schedule", "augment")
"""The groups whose choices shape the weights; the images' hash stands for the data's."""

RECIPE_VERSION = 1
"""Part of every trajectory id: raised when the same config would train to other weights."""


def trajectory_id(config: RunConfig, data_hash: str, precision: str) -> str:
    """Hash (64 hex digits) of all that shapes the weights step by step.

    Of a plug-in's choice it holds the code too: distribution, version and hash of its source.

    data_hash: ``content_hash`` of the images that the run trains on, which stands for the data
    config: the same images from another path are the same trajectory.
    precision: the resolved one, ``fp32`` or ``bf16``.
    """
    shaping: dict[str, Any] = {
        "recipe": RECIPE_VERSION,
        "data": data_hash,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "precision": precision,
    }
    shaping |= {group: _named_keys(getattr(config, group)) for group in SHAPING}
    used = registry.used_by((group, getattr(config, group).name) for group in SHAPING)
    if used:
        shaping["plugins"] = {
            choice: [plugin.name, plugin.version, plugin.sha256] for choice, plugin in used.items()
        }
    if config.schedule.sees_horizon:
        shaping["epochs"] = config.epochs
    return _hash(shaping)


def _named_keys(config: Any) -> dict[str, Any]:
    """A group's keys and values, but for keys at the value that means what was before they came."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if NEUTRAL not in field.metadata or getattr(config, field.name) != field.metadata[NEUTRAL]
    }


def plugins(config: RunConfig) -> dict[str, Plugin]:
    """The plug-ins that a run uses, those that do not shape its weights too, by ``group=name``."""
    chosen = [(group, getattr(config, group).name) for group in GROUPS]
    chosen += [("encoder", name) for name in config.score.encoders]
    chosen += [("score", name) for name in config.score.extra]
    chosen += [("tracker", name) for name in config.tracker.also]
    return registry.used_by(chosen)


def run_id(trajectory: str, epochs: int) -> str:
    """Hash (64 hex digits) of a trajectory and where on it the run ends."""
    return _hash({"trajectory": trajectory, "epochs": epochs})


def _hash(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
