"""Trackers by name: where a run's events go besides its folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

from lungan import registry
from lungan.config import RunConfig, WandbConfig
from lungan.runs.store import RunIdentity
from lungan.training.events import Event


class Tracker(Protocol):
    """A sink that is closed at the run's end."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


class NoTracker:
    def __init__(self, *_: object) -> None: ...

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


def build_tracker(
    config: RunConfig, identity: RunIdentity, folder: Path, sweep: str | None
) -> Tracker:
    """The tracker that ``config.tracker`` names. Raises: ConfigError for an unknown name."""
    choice = registry.find("tracker", config.tracker.name)
    tracker: Tracker = choice.build(config, identity, folder, sweep)
    return tracker


def build_wandb(
    config: RunConfig, identity: RunIdentity, folder: Path, sweep: str | None
) -> Tracker:
    """Weights & Biases."""
    from lungan.tracking.wandb import WandbSink

    assert isinstance(config.tracker, WandbConfig)
    return WandbSink(
        config.tracker,
        folder=folder,
        run_id=identity.run,
        name=identity.name,
        run_config=dataclasses.asdict(config),
        group=config.tracker.group or sweep,
        job_type="train",
        tags=list(config.tracker.tags),
    )
