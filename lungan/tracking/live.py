"""Trackers while a run is under way: each follows the run folder in a process of its own,
``python -m lungan.tracking.live``."""

from __future__ import annotations

import dataclasses
import json
import logging
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from lungan import registry
from lungan.config import RunConfig, TrackerConfig, presets
from lungan.config.rules import parse_choice
from lungan.files import without_paths
from lungan.runs.folder import read_summary
from lungan.tracking.records import TrackedRun, Tracker, in_words, read_records

END_SECONDS = 2.5
"""What a run's end waits for all its trackers together."""
POLL_SECONDS = 1.0

log = logging.getLogger(__name__)


def chosen(config: RunConfig) -> list[TrackerConfig]:
    """The trackers of a run, ``none`` left out. Raises: ConfigError for an unknown name."""
    also = [presets.load("tracker", name) for name in config.tracker.also]
    return [each for each in (config.tracker, *also) if each.name != "none"]


class Followers:
    """The trackers of a run, each a process beside it.

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
                    [sys.executable, "-m", __name__, json.dumps(given)],
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


def main(text: str) -> None:
    """Of the process that follows a run. text: the run, its tracker and plug-ins, in JSON.

    Where the tracker does not take the run, the process ends in one line on stderr.
    """
    given = json.loads(text)
    folder = Path(given["run"].pop("folder"))
    try:
        registry.load_again(given["plugins"])
        config = parse_choice(TrackerConfig, "tracker", given["tracker"])
        build = registry.builder("tracker", config.name)
        follow(folder, build(config, TrackedRun(folder=folder, **given["run"])))
    # wandb leaves some paths by sys.exit.
    except (Exception, SystemExit) as error:
        sys.exit(
            f"tracker={given['tracker']['name']} gets no more of this run, whose folder has it "
            f"all: {in_words(error)}"
        )


def stdin_ends() -> bool:
    """Whether stdin, which ends with the run, does so within ``POLL_SECONDS``."""
    return bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0])


def follow(folder: Path, tracker: Tracker, has_ended: Callable[[], bool] = stdin_ends) -> None:
    """Give the tracker the epochs of a run, each when it is whole, until the run has ended."""
    tracker.open()
    end, is_over = 0, False
    while not is_over:
        is_over = has_ended()
        summary = read_summary(folder) if is_over else None
        epochs, end = read_records(folder, end, is_finished=summary is not None)
        for epoch in epochs:
            tracker.add(epoch)
    tracker.close(without_paths(summary))


if __name__ == "__main__":
    main(sys.argv[1])
