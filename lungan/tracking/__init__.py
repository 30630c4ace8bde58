"""Trackers by name: where a run's records go besides its folder."""

from __future__ import annotations

from lungan import registry
from lungan.config import TrackerConfig
from lungan.tracking.records import TrackedRun, Tracker


def build_tracker(config: TrackerConfig, run: TrackedRun) -> Tracker:
    """Raises: ConfigError for an unknown name."""
    tracker: Tracker = registry.builder("tracker", config.name)(config, run)
    return tracker


def no_tracker(*_: object) -> None:
    """``tracker=none``, which a run builds nothing for."""
