"""The sweep's side of a launcher: hand out chains, watch the store, and see what is left."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lungan.runs import manifest
from lungan.runs.jobs import Place, stop_jobs, write_jobs
from lungan.runs.plan import Job, Plan, against_store
from lungan.runs.stopping import StopSignal
from lungan.runs.store import Store
from lungan.training.loop import Interrupted

WATCH_SECONDS = 0.5
POLL_SECONDS = 5.0
QUEUE_SECONDS = 10.0
GONE_SECONDS = 30.0
SPEAK_SECONDS = 30.0

log = logging.getLogger(__name__)

Chain = Sequence[Job]


class Launcher(Protocol):
    """A way to run jobs. ``elsewhere``: on machines that may differ from this one."""

    name: str
    elsewhere: bool

    def place(self, num_jobs: int, /) -> Place: ...

    def launch(self, folder: Path, sweep: str, num_jobs: int) -> None:
        """Run ``jobs.run_job(folder, number)`` for every number, until all have ended."""

    def queued(self) -> bool | None:
        """Whether a job of the last launch waits or runs; None where the launcher cannot tell."""

    def drop_waiting(self) -> None:
        """Take back the jobs of the last launch that have not begun, where that is possible."""


class Launching:
    """A sweep's chains in a launcher's hands."""

    def __init__(self, plan: Plan, sweep: str, launcher: Launcher, stop: StopSignal) -> None:
        self._plan = plan
        self._store = plan.jobs[0].store
        self._sweep = sweep
        self._launcher = launcher
        self._stop = stop
        self._ledger = manifest.ledger_size(self._store, sweep)
        self._failed: set[str] = set()
        self._left = plan.epochs_to_train

    def run(self) -> None:
        """Return when every run has a result, has failed, or was lost by the launcher.

        Raises: Interrupted, KeyboardInterrupt.
        """
        pending = self._unfinished(self._plan.chains)
        while pending:
            busy = self._busy(pending)
            free = [chain for chain in pending if chain not in busy]
            if not free:
                log.info("%d trajectories are under way in other processes; waiting", len(busy))
                pending = self._wait(busy)
                continue
            broke = self._launch(free)
            pending = self._unfinished(pending)
            if not (broke and self._progressed()):
                # What neither finished nor failed nor is under way was taken from the launcher.
                now_busy = self._busy(pending)
                pending = [chain for chain in pending if chain in busy or chain in now_busy]

    def _launch(self, chains: list[Chain]) -> bool:
        """Run one job a chain; gives whether the launcher broke off."""
        folder = self._new_folder()
        place = self._launcher.place(len(chains))
        write_jobs(folder, self._sweep, chains, place)
        log.info("%d jobs by %s, their logs in %s", len(chains), self._launcher.name, folder)
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._launcher.launch(folder, self._sweep, len(chains))
            except BaseException as error:
                errors.append(error)

        # The main thread stays free for signals and for what the jobs write.
        thread = threading.Thread(target=work, name="launcher", daemon=True)
        thread.start()
        self._watch(thread, folder)
        if self._stop.requested():
            raise Interrupted
        for error in errors:
            first_line = (str(error).strip().splitlines() or [""])[0]
            log.error("%s broke off: %s: %s", self._launcher.name, type(error).__name__, first_line)
        return bool(errors)

    def _watch(self, thread: threading.Thread, folder: Path) -> None:
        """Wait for the launcher, and for jobs that a launcher which broke off left queued."""
        told = False
        looked = spoke = time.monotonic()
        seen: float | None = None  # when a job was last known to be queued
        with self._stop.deferred():
            while True:
                thread.join(WATCH_SECONDS)
                self._report()
                if self._stop.requested() and not told:
                    told = True
                    stop_jobs(folder)
                    self._launcher.drop_waiting()
                    log.info("waiting for the jobs to stop; Ctrl-C again leaves them to it")
                now = time.monotonic()
                if now - spoke >= SPEAK_SECONDS:
                    spoke = now
                    log.info("%d of %d runs have a result", self._count(), len(self._plan.jobs))
                if thread.is_alive() and now - looked < QUEUE_SECONDS:
                    continue
                queued, looked = self._launcher.queued(), now
                if queued:
                    seen = now
                elif not thread.is_alive():
                    return
                elif queued is False and seen is not None and now - seen > GONE_SECONDS:
                    return  # for jobs that were taken away, their launcher would wait for ever
                if not thread.is_alive():
                    time.sleep(POLL_SECONDS)

    def _report(self) -> None:
        """Say what the ledger was told since the last time."""
        lines, self._ledger = manifest.read_ledger(self._store, self._sweep, self._ledger)
        for line in lines:
            if line["status"] == "failed":
                self._failed.add(line["run_id"])
                log.error("%s failed: %s", line["folder"], line["reason"])
            else:
                log.info("%s: %s", line["folder"], line["status"])

    def _unfinished(self, chains: Sequence[Chain]) -> list[Chain]:
        """The chains with a run that has neither a result nor failed in this sweep."""
        self._report()
        folders = Store(self._store).folders()
        return [
            chain
            for chain in chains
            if not all(
                job.prepared.identity.run in self._failed or job.has_result(folders)
                for job in chain
            )
        ]

    def _busy(self, chains: Sequence[Chain]) -> list[Chain]:
        """The chains with a run that another process is at work on."""
        store = Store(self._store)
        folders = store.folders()
        return [
            chain
            for chain in chains
            if any(
                not job.has_result(folders) and store.owner(job.prepared.identity, folders)
                for job in chain
            )
        ]

    def _wait(self, chains: list[Chain]) -> list[Chain]:
        """Until one of the chains can be claimed; gives those that are not finished."""
        with self._stop.deferred():
            while chains and len(self._busy(chains)) == len(chains):
                if self._stop.requested():
                    raise Interrupted
                time.sleep(POLL_SECONDS)
                chains = self._unfinished(chains)
        return chains

    def _progressed(self) -> bool:
        """Whether fewer epochs are left than after the last launch."""
        before = self._left
        self._left = against_store(self._plan.chains).epochs_to_train
        return self._left < before

    def _count(self) -> int:
        folders = Store(self._store).folders()
        return sum(job.has_result(folders) for job in self._plan.jobs)

    def _new_folder(self) -> Path:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        root = self._store / manifest.SWEEPS / self._sweep / "launcher"
        folder = root / f"{stamp}-{os.getpid()}"
        folder.mkdir(parents=True)
        return folder.resolve()
