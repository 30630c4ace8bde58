"""Trackers while a run is under way: each follows the run folder in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from lungan import registry
from lungan.config import RunConfig, TrackerConfig, presets
from lungan.tracking.records import TrackedRun

END_SECONDS = 2.5
"""What a run's end waits for all its trackers together."""

log = logging.getLogger(__name__)


def chosen(config: RunConfig) -> list[TrackerConfig]:
    """The trackers of a run, ``none`` left out. Raises: ConfigError for an unknown name."""
    also = [presets.load("tracker", name) for name in config.tracker.also]
    return [each for each in (config.tracker, *also) if each.name != "none"]


class Followers:
    """The trackers of a run, each a process ``python -m lungan.tracking`` beside it.

    They read the run folder and nothing else, so that neither their imports nor the services behind
    them can stop or slow the run, and what they miss is not lost.
    """

    def __init__(self, run: TrackedRun, trackers: Sequence[TrackerConfig]) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}
        for config in trackers:
            given = {
                "run": dataclasses.asdict(run) | {"folder": str(run.folder)},
                "tracker": dataclasses.asdict(config),
                "plugins": [dataclasses.asdict(plugin) for plugin in registry.loaded_files()],
            }
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "lungan.tracking", json.dumps(given)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for the run, which ends its trackers
                )
            except OSError as error:
                log.warning("tracker=%s cannot be started: %s", config.name, error)
                continue
            self._processes[config.name] = process
            threading.Thread(target=_pass_on, args=[process.stderr], daemon=True).start()

    def close(self) -> None:
        """Say that the run is over, and wait for the trackers for a moment; those that need longer
        go on by themselves."""
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + END_SECONDS
        for name, process in self._processes.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning(
                    "tracker=%s needs more than %.1f s after the run's end and goes on by itself; "
                    "lungan upload sends what it may lack then",
                    name,
                    END_SECONDS,
                )


def _pass_on(lines: IO[str]) -> None:
    with lines:
        for line in lines:
            log.warning("%s", line.rstrip())
