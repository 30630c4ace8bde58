"""Trackers by name: where a run's records go besides its folder."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

from lungan import registry
from lungan.config import RunConfig, TrackerConfig, presets
from lungan.config.run import AGENT_VARIABLE, WandbConfig
from lungan.errors import LunganError
from lungan.runs.folder import Run
from lungan.runs.store import RunIdentity
from lungan.tracking.live import Followers
from lungan.tracking.records import TrackedRun, Tracker, describe_run

log = logging.getLogger(__name__)


def build_trackers(
    config: RunConfig, identity: RunIdentity, folder: Path, sweep: str | None
) -> Followers | None:
    """The sink of the trackers that ``config.tracker`` names, closed at the run's end, if any.

    Raises: ConfigError for an unknown name.
    """
    also = [presets.load("tracker", name) for name in config.tracker.also]
    chosen = [each for each in (config.tracker, *also) if each.name != "none"]
    if not chosen:
        return None
    run = describe_run(folder, identity.run, dataclasses.asdict(config), sweep)
    return Followers(folder, {each.name: build_tracker(each, run) for each in chosen})


def replay_for_agent(config: RunConfig, identity: RunIdentity, run: Run) -> None:
    """Send a run that had been finished before to the W&B run of the agent that asks for it.

    Elsewhere ``lungan upload`` does so when it is asked to.
    """
    from lungan.tracking.upload import upload

    if not os.environ.get(AGENT_VARIABLE) or not isinstance(config.tracker, WandbConfig):
        return
    settings = dataclasses.asdict(config)
    tracked = describe_run(run.folder, identity.run, settings, None, run.summary)
    try:
        list(upload([tracked], config.tracker))
    except LunganError as error:
        log.warning("%s", error)


def build_tracker(config: TrackerConfig, run: TrackedRun) -> Tracker:
    """Raises: ConfigError for an unknown name."""
    tracker: Tracker = registry.builder("tracker", config.name)(config, run)
    return tracker


def no_tracker(*_: object) -> None:
    """``tracker=none``, which a run builds nothing for."""
