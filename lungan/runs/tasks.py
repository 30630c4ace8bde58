"""Tasks: the runs of a sweep and the trials of a utility study, each done once by whoever claims it
first, and the launchers that do them."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from lungan.runs.folder import Run, record_attempt, run_so_far
from lungan.runs.run import StopSignal
from lungan.runs.store import BusyError, RunIdentity
from lungan.training.loop import Interrupted

POLL_SECONDS = 5.0

log = logging.getLogger(__name__)


class Task(ABC):
    """What leaves one folder with a result in a store: a run of a sweep, or a trial of a utility
    study. ``device``: as it was asked for."""

    __slots__ = ()

    device: str

    @property
    @abstractmethod
    def identity(self) -> RunIdentity: ...

    @property
    @abstractmethod
    def store(self) -> Path: ...

    @property
    @abstractmethod
    def uses_cpu(self) -> bool: ...

    @abstractmethod
    def describe(self, sweep: str, /) -> str:
        """What the log calls it."""

    @abstractmethod
    def do(self, sweep: str, stop: StopSignal, /) -> Run:
        """Do it, or find that it was done.

        Raises: BusyError where another process has it, KeyboardInterrupt where it was stopped.
        """

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """What a job makes it again from, perhaps on another machine: plain values for JSON."""

    @classmethod
    @abstractmethod
    def again(cls, values: Mapping[str, Any], device: str, share: int, /) -> Self:
        """From ``values()``, on this device; another task where this machine's files are others.
        share: the job's CPU cores; 0 where it has all."""

    def folder(self, folders: dict[str, str]) -> Path:
        """folders: the store's."""
        return self.store / self.identity.folder_among(folders)

    def result(self, folders: dict[str, str]) -> str:
        """done, diverged, or empty where neither is so. folders: the store's."""
        found = run_so_far(self.folder(folders))
        return found.status if found.has_result else ""

    def has_result(self, folders: dict[str, str]) -> bool:
        return bool(self.result(folders))

    @property
    def retries_diverged(self) -> bool:
        return False


Tasks = Sequence[Task]
"""What a job does, one after another."""


class Launcher(Protocol):
    """How jobs are done. ``elsewhere``: on machines that may differ from this one."""

    name: str
    elsewhere: bool

    def describe(self, jobs: Sequence[Tasks], /) -> str:
        """How it will do them, as lines for a terminal; empty where there is nothing to say."""

    def run(self, jobs: Sequence[Tasks], sweep: str, stop: StopSignal) -> None:
        """Return when every task has a result, has failed, or was lost. sweep: whose ledger has
        what was tried.

        Raises: KeyboardInterrupt.
        """


def do_jobs(jobs: Sequence[Tasks], sweep: str, stop: StopSignal) -> None:
    """Do all tasks in this process, one after another, and wait for those that others have."""
    busy = []
    for number, tasks in enumerate(jobs, start=1):
        busy += do_tasks(tasks, sweep, stop, f"[{number}/{len(jobs)}] ")
    wait_for(busy, sweep, stop)


def wait_for(busy: Tasks, sweep: str, stop: StopSignal, seconds: float = math.inf) -> None:
    """Wait for tasks that others are at work on, so long at most, and do those that they leave."""
    began = time.monotonic()
    while busy and time.monotonic() - began < seconds:
        time.sleep(POLL_SECONDS)
        busy = do_tasks(busy, sweep, stop, again=True)


def do_tasks(
    tasks: Iterable[Task],
    sweep: str,
    stop: StopSignal,
    prefix: str = "",
    *,
    again: bool = False,
) -> list[Task]:
    """Do the tasks of one job that nobody has done, the runs of a trajectory each going on from the
    one before; gives those under way elsewhere. prefix: of lines in the log. again: the log has
    them under way.

    A task that fails is written to the ledger and its log, and those after it are tried still.

    Raises: KeyboardInterrupt.
    """
    busy = []
    for task in tasks:
        if stop.requested():
            raise Interrupted
        store, run_id, folder = task.store, task.identity.run, task.identity.name
        called = prefix + task.describe(sweep)
        try:
            result = task.do(sweep, stop)
            if not result.reused:
                reason, seconds = result.summary["reason"], result.summary["seconds"]["total"]
                folder = result.folder.name
                record_attempt(store, sweep, run_id, folder, result.status, reason, seconds)
            status = "was finished before" if result.reused else result.status
            log.info("%s: %s", called, status)
        except BusyError as error:
            if not again:
                log.info("%s: it, or a shorter one, is %s", called, error.state)
            busy.append(task)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            log.error("%s failed: %s", called, said)
            record_attempt(store, sweep, run_id, folder, "failed", said)
    return busy
