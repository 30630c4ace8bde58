"""Trackers while a run is under way: they follow its folder, and can neither stop nor slow it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungan.tracking.records import Records, Tracker, without_paths
from lungan.training.events import EpochEnd, EpochStart, Event, RunEnd

CLOSE_SECONDS = 4.5
"""How much longer a run may take at most than without a tracker that does not say so itself."""

log = logging.getLogger(__name__)


class Follower:
    """A sink that has a tracker follow the run folder in a thread of its own.

    The events only say that there is news: what the tracker takes, it takes from the folder. So
    nothing waits in memory, and a tracker that falls behind or fails misses nothing for good.
    """

    def __init__(self, name: str, tracker: Tracker, folder: Path) -> None:
        self._name = name
        self._tracker = tracker
        self._folder = folder
        self._news = threading.Event()
        self._whole = 0  # epochs up to here are in the folder with their grids and scores
        self._summary: dict[str, Any] | None = None
        self._closing = False
        self._deadline = self._patience_seconds = 0.0
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        match event:
            case EpochStart() | EpochEnd():
                self._whole = event.epoch - 1
            case RunEnd():
                self._summary = without_paths(event.summary)
            case _:
                return
        self._news.set()

    def end(self) -> None:
        """Let the tracker finish what the folder holds; returns at once."""
        seconds = getattr(self._tracker, "close_seconds", None)
        self._patience_seconds = CLOSE_SECONDS if seconds is None else seconds
        self._deadline = time.monotonic() + self._patience_seconds
        self._closing = True
        self._news.set()

    def wait(self) -> None:
        """Wait for the end that ``end`` asked for, or leave the tracker behind."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if self._thread.is_alive() and not self._abandoned:
            self._abandoned = True
            log.warning(
                "tracker=%s did not finish within %.1f s and is left behind; the run folder has "
                "all that it lacks",
                self._name,
                self._patience_seconds,
            )

    def _work(self) -> None:
        try:
            self._follow()
        # wandb leaves some paths by sys.exit, which would end the thread without a word.
        except (Exception, SystemExit) as error:
            if not self._abandoned:
                log.warning(
                    "tracker=%s gets no more of this run, whose folder has it all: %s",
                    self._name,
                    in_words(error),
                )

    def _follow(self) -> None:
        self._tracker.open()
        records = Records(self._folder)
        closing = False
        while not closing:
            self._news.wait()
            self._news.clear()
            closing = self._closing
            for epoch in records.new(None if self._summary is not None else self._whole):
                self._tracker.add(epoch)
        self._tracker.close(self._summary)


class Followers:
    """Several as one sink."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = followers

    def __call__(self, event: Event) -> None:
        for follower in self._followers:
            follower(event)

    def close(self) -> None:
        """End all, and wait for all of them at once."""
        for follower in self._followers:
            follower.end()
        for follower in self._followers:
            follower.wait()


def in_words(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
