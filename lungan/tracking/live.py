"""Trackers while a run is under way: they follow its folder, and can neither stop nor slow it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungan.tracking.records import Records, Tracker, without_paths
from lungan.training.events import EpochStart, Event

POLL_SECONDS = 1.0
CLOSE_SECONDS = 3.0
"""What a run's end waits for its trackers. Python's own end waits ``wandb.FINISH_SECONDS`` more for
what W&B has not sent by then; together they are under five seconds."""

log = logging.getLogger(__name__)


class Followers:
    """A sink that has trackers follow the run folder, each in a thread of its own.

    The events only say which epochs are whole: what a tracker takes, it takes from the folder. So
    nothing waits in memory, and a tracker that falls behind or fails misses nothing for good.
    """

    def __init__(self, folder: Path, trackers: Mapping[str, Tracker]) -> None:
        self._folder = folder
        self._whole = 0  # epochs up to here are in the folder with their grids and scores
        self._summary: dict[str, Any] | None = None
        self._closing = threading.Event()
        self._abandoned = False
        self._threads = [
            threading.Thread(target=self._work, args=[name, tracker], name=name, daemon=True)
            for name, tracker in trackers.items()
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochStart):
            self._whole = event.epoch - 1

    def close(self, summary: dict[str, Any] | None = None) -> None:
        """Let all finish what the folder holds, or leave them behind; the first call counts.

        summary: what summary.json will hold; None for a run that was stopped.
        """
        if self._closing.is_set():
            return
        self._summary = without_paths(summary)
        self._closing.set()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._abandoned = True
                log.warning(
                    "tracker=%s did not finish within %.1f s and is left behind; the run folder "
                    "has all that it lacks",
                    thread.name,
                    CLOSE_SECONDS,
                )

    def _work(self, name: str, tracker: Tracker) -> None:
        try:
            self._follow(tracker)
        # wandb leaves some paths by sys.exit, which would end the thread without a word.
        except (Exception, SystemExit) as error:
            if not self._abandoned:
                log.warning(
                    "tracker=%s gets no more of this run, whose folder has it all: %s",
                    name,
                    in_words(error),
                )

    def _follow(self, tracker: Tracker) -> None:
        tracker.open()
        records = Records(self._folder)
        closing = False
        while not closing:
            closing = self._closing.wait(POLL_SECONDS)
            for epoch in records.new(None if self._summary is not None else self._whole):
                tracker.add(epoch)
        tracker.close(self._summary)


def in_words(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
