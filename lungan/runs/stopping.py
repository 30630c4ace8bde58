"""Ctrl-C and SIGTERM, turned into a question that the training loop asks between steps."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)


class StopSignal:
    """``requested()`` is True once a signal came while ``deferred`` was entered.

    Elsewhere, and at a second signal, KeyboardInterrupt is raised as usual.
    """

    def __init__(self) -> None:
        self._requested = False
        self._deferring = False

    def requested(self) -> bool:
        return self._requested

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Handle SIGINT and SIGTERM inside; signals reach only a process's main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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
        if self._requested or not self._deferring:
            raise KeyboardInterrupt
        self._requested = True
        log.info("%s: stopping after this step with a checkpoint", signal.Signals(number).name)
