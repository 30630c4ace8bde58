"""Ctrl-C and SIGTERM, turned into a question that the training loop asks between steps."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

LOOK_EVERY_SECONDS = 1.0

log = logging.getLogger(__name__)


class StopSignal:
    """``requested()`` is True once a signal came while ``deferred`` was entered, or once ``file``
    exists, which is how the jobs of a sweep on other processes or machines are stopped.

    Elsewhere, and at Ctrl-C after another signal, KeyboardInterrupt is raised as usual.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.received: set[int] = set()
        self._file = file
        self._looked = -LOOK_EVERY_SECONDS
        self._requested = False
        self._deferring = False

    def requested(self) -> bool:
        now = time.monotonic()
        if self._file is not None and now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            self._requested = self._requested or self._file.exists()
        return self._requested

    @contextlib.contextmanager
    def installed(
        self, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
    ) -> Iterator[StopSignal]:
        """Handle the signals inside; they reach only a process's main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in signals}
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = not self.received
        self.received.add(number)
        if not first and number != signal.SIGINT:
            return  # clusters send several of them at once
        if not first or not self._deferring:
            raise KeyboardInterrupt
        self._requested = True
        log.info("%s: stopping after this step with a checkpoint", signal.Signals(number).name)
