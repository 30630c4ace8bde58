"""Ctrl-C, SIGTERM and SIGHUP, turned into a question that training asks between steps."""

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
    """``requested()`` is True once a signal came, or once ``file`` exists, which is how the jobs
    of a sweep on other processes or machines are stopped.

    Outside of ``deferred``, and at Ctrl-C after another signal, KeyboardInterrupt is raised too.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.received: set[int] = set()
        self._file = file
        self._looked = -LOOK_EVERY_SECONDS
        self._requested = False
        self._deferring = False
        self._interrupted = False

    def requested(self) -> bool:
        now = time.monotonic()
        if self._file is not None and now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            self._requested = self._requested or self._file.exists()
        return self._requested

    @contextlib.contextmanager
    def installed(
        self, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ) -> Iterator[StopSignal]:
        """Handle the signals inside; they reach only a process's main thread.

        SIGHUP stays ignored where the process was started so, as nohup does it. SIGINT does not: a
        shell has it ignored by every command in the background, and may still be asked to stop one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in signals}
        if before.get(signal.SIGHUP) is signal.SIG_IGN:
            del before[signal.SIGHUP]
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
        except Exception as error:
            # The writer of a checkpoint turns an interrupt into an error of its own.
            if self._interrupted:
                raise KeyboardInterrupt from error
            raise
        finally:
            self._deferring = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = not self.received
        self.received.add(number)
        if not first and number != signal.SIGINT:
            return  # clusters send several of them at once
        self._requested = True
        if not first or not self._deferring:
            self._interrupted = True  # what is being imported may turn it into an error of its own
            raise KeyboardInterrupt
        log.info("%s: stopping after this step with a checkpoint", signal.Signals(number).name)
