"""Jobs: a sweep's trajectories or a study's trials done by other processes, perhaps on other
machines.

The command writes what each job has to do into one file of the store, hands the jobs to an engine,
and watches the store. A job leaves what it made in the store; nothing is returned. Where an engine
loses jobs, what they left undone is handed out again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import logging
import os
import pkgutil
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from lungan import registry
from lungan.errors import ConfigError, RunFolderError
from lungan.files import at_home, read_json, write_json
from lungan.runs.folder import SWEEPS, read_ledger, read_metrics, record_attempt
from lungan.runs.run import StopSignal
from lungan.runs.store import LEASE_SECONDS, Store, live_owner
from lungan.runs.tasks import POLL_SECONDS, Task, Tasks, do_tasks, wait_for
from lungan.training.loop import Interrupted

JOBS = "jobs.json"
STOP = "stop"
WATCH_SECONDS = 0.5
QUEUE_SECONDS = 10.0
GONE_SECONDS = 30.0
SPEAK_SECONDS = 30.0
MOST_SHOWN = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs run. ``processes``: how many at a time share a machine and its GPUs; 0 where
    the launcher gives each job its own. ``threads``: of a job whose config leaves them open; 0
    is all cores that it may use. ``wait_seconds``: how long a job waits for runs under way
    elsewhere."""

    processes: int
    threads: int
    wait_seconds: float


class JobLauncher(ABC):
    """Does jobs in other processes. An engine's launcher says how they run.

    ``elsewhere``: on machines that may differ from this one.
    """

    name: str
    elsewhere: bool

    def place(self, _jobs: Sequence[Tasks], /) -> Place:
        # Longer than a claim outlives an owner on another machine, which a requeued job had.
        return Place(processes=0, threads=0, wait_seconds=LEASE_SECONDS + 30)

    @abstractmethod
    def launch(self, folder: Path, num_jobs: int, place: Place) -> None:
        """Run ``run_job(folder, number)`` for every number, until all have ended."""

    def queued(self) -> bool | None:
        """Whether a job of the last launch waits or runs; None where the engine cannot tell."""
        return None

    def drop_waiting(self) -> None:  # noqa: B027  (an engine without a queue has nothing to do)
        """Take back the jobs of the last launch that have not begun, where that is possible."""

    def describe(self, jobs: Sequence[Tasks], /) -> str:
        return f"by hydra/launcher={self.name}, in {len(jobs)} jobs"

    def run(self, jobs: Sequence[Tasks], sweep: str, stop: StopSignal) -> None:
        _Jobs(jobs, sweep, self, stop).run()


class _Jobs:
    """The command's side of its jobs: hand them out, watch the store, and see what is left."""

    def __init__(
        self, jobs: Sequence[Tasks], sweep: str, launcher: JobLauncher, stop: StopSignal
    ) -> None:
        self._jobs = jobs
        self._sweep = sweep
        self._store = Store(jobs[0][0].store)
        self._launcher = launcher
        self._stop = stop
        _, self._ledger = read_ledger(self._store.root, sweep, 0)
        self._failed: set[str] = set()
        folders = self._store.folders()
        self._to_retry = {
            task.identity.run
            for task in itertools.chain(*jobs)
            if task.retries_diverged and task.result(folders) == "diverged"
        }
        self._left = self._epochs_left()

    def run(self) -> None:
        """Return when every task has a result, has failed, or was lost by the launcher.

        Raises: ConfigError where the launcher breaks off before any job has done anything;
        Interrupted, KeyboardInterrupt.
        """
        pending = self._unfinished(self._jobs)
        any_done = False
        while pending:
            busy = self._busy(pending)
            free = [tasks for tasks in pending if tasks not in busy]
            if not free:
                log.info("what is left of %d jobs is under way elsewhere; waiting", len(busy))
                pending = self._wait(busy)
                continue
            broke = self._launch(free)
            pending = self._unfinished(pending)
            progressed = bool(broke) and self._progressed()
            any_done |= progressed
            if broke and not (any_done or self._failed or self._busy(pending)):
                raise ConfigError(
                    f"hydra/launcher={self._launcher.name} got no job done: {broke}; give other "
                    "hydra.launcher.<key>=..., or another hydra/launcher"
                )
            if not progressed:
                # What neither finished nor failed nor is under way was taken from the launcher.
                now_busy = self._busy(pending)
                pending = [each for each in pending if each in busy or each in now_busy]

    def _launch(self, jobs: list[Tasks]) -> str:
        """Run the jobs; gives why the launcher broke off, or nothing."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        launches = self._store.root / SWEEPS / self._sweep / "launcher"
        folder = (launches / f"{stamp}-{os.getpid()}").resolve()
        place = self._launcher.place(self._jobs)
        write_jobs(folder, self._sweep, jobs, place)
        log.info("%d jobs by %s, their logs in %s", len(jobs), self._launcher.name, folder)
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._launcher.launch(folder, len(jobs), place)
            except BaseException as error:
                errors.append(error)

        # The main thread stays free for signals and for what the jobs write.
        thread = threading.Thread(target=work, name="launcher", daemon=True)
        thread.start()
        with self._stop.deferred():
            self._watch(thread, folder)
        if self._stop.requested():
            raise Interrupted
        if not errors:
            return ""
        first_line = (str(errors[0]).strip().splitlines() or [""])[0][:300]
        reason = f"{type(errors[0]).__name__}: {first_line}"
        log.error("%s broke off: %s", self._launcher.name, reason)
        return reason

    def _watch(self, thread: threading.Thread, folder: Path) -> None:
        """Wait for the launcher, and for jobs that a launcher which broke off left queued."""
        asked = False
        looked = spoke = time.monotonic()
        seen: float | None = None  # when a job was last known to be queued
        while True:
            thread.join(WATCH_SECONDS)
            self._report()
            if self._stop.requested() and not asked:
                asked = True
                stop_jobs(folder)
                self._launcher.drop_waiting()
                log.info("waiting for the jobs to stop; Ctrl-C again leaves them to it")
            now = time.monotonic()
            if now - spoke >= SPEAK_SECONDS:
                spoke = now
                log.info("%s", self._progress())
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
        """Log what the ledger has got since the last time."""
        lines, self._ledger = read_ledger(self._store.root, self._sweep, self._ledger)
        for line in lines:
            self._to_retry.discard(line["run_id"])
            if line["status"] == "failed":
                self._failed.add(line["run_id"])
                log.error("%s failed: %s", line["folder"], line["reason"])
            else:
                log.info("%s: %s", line["folder"], line["status"])

    def _unfinished(self, jobs: Sequence[Tasks]) -> list[Tasks]:
        """The jobs with a task that has neither a result nor failed in this command."""
        self._report()
        folders = self._store.folders()

        def is_left(task: Task) -> bool:
            run = task.identity.run
            return run in self._to_retry or not (run in self._failed or task.has_result(folders))

        return [tasks for tasks in jobs if any(map(is_left, tasks))]

    def _busy(self, jobs: Sequence[Tasks]) -> list[Tasks]:
        """The jobs with a task that another process is at work on."""
        folders = self._store.folders()

        def is_busy(task: Task) -> bool:
            return self._store.is_busy(task.identity, folders) and not task.has_result(folders)

        return [tasks for tasks in jobs if any(map(is_busy, tasks))]

    def _wait(self, jobs: list[Tasks]) -> list[Tasks]:
        """Until what is left of one job can be claimed; gives the jobs that are not finished."""
        with self._stop.deferred():
            while jobs and len(self._busy(jobs)) == len(jobs):
                if self._stop.requested():
                    raise Interrupted
                time.sleep(POLL_SECONDS)
                jobs = self._unfinished(jobs)
        return jobs

    def _progressed(self) -> bool:
        """Whether fewer epochs are left than after the last launch."""
        before = self._left
        self._left = self._epochs_left()
        return self._left < before

    def _epochs_left(self) -> int:
        return sum(task.identity.epochs - epochs for task, epochs in self._without_result())

    def _without_result(self) -> list[tuple[Task, int]]:
        """The tasks that have no result, each with the epochs that it has reached."""
        folders, found = self._store.folders(), []
        for task in itertools.chain(*self._jobs):
            if not task.has_result(folders):
                epochs = 0
                with contextlib.suppress(RunFolderError):  # or the job will say why not
                    epochs = len(read_metrics(task.folder(folders)))
                found.append((task, epochs))
        return found

    def _progress(self) -> str:
        """How many tasks have a result, and how far those are that are under way."""
        count, folders = sum(map(len, self._jobs)), self._store.folders()
        unfinished = self._without_result()
        under_way = [
            task.describe(self._sweep) + (f" after epoch {epochs}" if epochs else "")
            for task, epochs in unfinished
            if live_owner(task.folder(folders)) is not None
        ]
        more = f" and {len(under_way) - MOST_SHOWN} more" if len(under_way) > MOST_SHOWN else ""
        return (
            f"{count - len(unfinished)} of {count} have a result; under way: "
            f"{', '.join(under_way[:MOST_SHOWN]) or 'none'}{more}"
        )


def write_jobs(folder: Path, sweep: str, jobs: Sequence[Tasks], place: Place) -> None:
    """Write what each job of a launch has to do. Raises: RunFolderError."""

    def described(task: Task) -> dict[str, Any]:
        own = {"run_id": task.identity.run, "name": task.identity.name}
        return own | {"store": str(task.store), "device": task.device} | task.values()

    kind = type(jobs[0][0])
    values = {
        "sweep": sweep,
        "cwd": str(Path.cwd()),
        "place": dataclasses.asdict(place),
        "plugins": [dataclasses.asdict(plugin) for plugin in registry.loaded_files()],
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "jobs": [[described(task) for task in tasks] for tasks in jobs],
    }
    write_json(folder / JOBS, values)


def stop_jobs(folder: Path) -> None:
    """Tell all jobs of a launch, those that have not begun too, to stop with a checkpoint."""
    (folder / STOP).touch()


def run_job(
    folder: Path, number: int, signals: Sequence[int] = (signal.SIGTERM,)
) -> Collection[int]:
    """Do job ``number`` of the launch in ``folder``; gives the signals that stopped it.

    signals: those that stop it with a checkpoint, as the sweep's Ctrl-C does by a file.
    """
    jobs = read_json(folder / JOBS)
    os.chdir(jobs["cwd"])
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches all processes of a terminal: the sweep's own decides for the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = StopSignal(folder / STOP)
    path = folder / f"job-{number}.log"
    with path.open("a", encoding="utf-8") as stream, _log_to(stream), stop.installed(signals):
        try:
            place = Place(**jobs["place"])
            with _slot(folder, place.processes) as slot:
                _run(jobs, number, place, slot, stop)
        except KeyboardInterrupt:
            log.info("stopped; the same command goes on")
    return stop.received


def _run(jobs: dict[str, Any], number: int, place: Place, slot: int, stop: StopSignal) -> None:
    sweep, tasks = jobs["sweep"], []
    share = place.threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    for item in jobs["jobs"][number]:
        try:
            registry.load_again(jobs["plugins"])
            kind: type[Task] = pkgutil.resolve_name(jobs["kind"])
            task = kind.again(item, _placed(item["device"], place, slot), share)
            if task.identity.run != item["run_id"]:
                raise ConfigError(
                    f"the images or generators on {socket.gethostname()} are not those that this "
                    "was planned with; give all machines the same files, or plan it there"
                )
            tasks.append(task)
        except Exception as error:
            log.exception("%s cannot be prepared on %s", item["name"], socket.gethostname())
            reason = f"{type(error).__name__}: {error}"
            record_attempt(
                at_home(item["store"]), sweep, item["run_id"], item["name"], "failed", reason
            )
    wait_for(do_tasks(tasks, sweep, stop), sweep, stop, place.wait_seconds)


def _placed(device: str, place: Place, slot: int) -> str:
    """The job's GPU, where ``device`` leaves that open and processes share a machine."""
    import torch

    if device != "auto" or not place.processes or not torch.cuda.is_available():
        return device
    return f"cuda:{slot % torch.cuda.device_count()}"


@contextlib.contextmanager
def _slot(folder: Path, count: int) -> Iterator[int]:
    """A number below ``count`` that no other job of the launch holds; 0 where count is 0."""
    if count == 0:
        yield 0
        return
    for number in itertools.cycle(range(count)):
        held = FileLock(folder / f"slot-{number}")
        try:
            held.acquire(blocking=False)
        except Timeout:
            time.sleep(0.1)
            continue
        try:
            yield number
        finally:
            held.release()
        return


@contextlib.contextmanager
def _log_to(stream: TextIO) -> Iterator[None]:
    """lungan's log, and lines instead of bars, in the job's own file: the terminal is the
    sweep's."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("lungan")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with contextlib.redirect_stderr(stream):
            yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
