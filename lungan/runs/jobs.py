"""Jobs: the runs of a sweep and the trials of a utility study, each done once by whoever claims it
first, in this process or in others, perhaps on other machines.

For others, the command writes what each job has to do into one file of the store, hands the jobs
to an engine, and watches the store. A job leaves what it made in the store; nothing is returned.
Where an engine loses jobs, what they left undone is handed out again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import logging
import math
import os
import pkgutil
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

import torch
from filelock import FileLock, Timeout

from lungan import registry
from lungan.errors import ConfigError, RunFolderError
from lungan.files import at_home, read_json, write_json
from lungan.runs.folder import SWEEPS, Run, read_ledger, read_metrics, record_attempt
from lungan.runs.run import StopSignal
from lungan.runs.store import LEASE_SECONDS, BusyError, RunIdentity, Store, live_owner
from lungan.training.loop import Interrupted

JOBS = "jobs.json"
STOP = "stop"
POLL_SECONDS = 5.0
WATCH_SECONDS = 0.5
QUEUE_SECONDS = 10.0
GONE_SECONDS = 30.0
SPEAK_SECONDS = 30.0
MOST_SHOWN = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(ABC):
    """What leaves one folder with a result in a store: a run of a sweep, or a trial of a utility
    study. ``device``: as it was asked for."""

    identity: RunIdentity
    store: Path
    device: str
    uses_cpu: bool
    retries_diverged: bool = False

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


Tasks = Sequence[Task]
"""A job: what is done one after another, such as the runs of a trajectory, fewest epochs first."""


class Place(NamedTuple):
    """Where jobs run. ``processes``: how many at a time share a machine and its GPUs; 0 where
    the launcher gives each job its own. ``threads``: of a job whose config leaves them open; 0
    is all cores that it may use."""

    processes: int
    threads: int


class Launcher(ABC):
    """How jobs are done. ``elsewhere``: on machines that may differ from this one."""

    name: str
    elsewhere: bool

    def place(self, _jobs: Sequence[Tasks], /) -> Place:
        return Place(processes=0, threads=0)

    @abstractmethod
    def launch(self, folder: Path, num_jobs: int, place: Place) -> None:
        """Run ``run_job(folder, number)`` for every number, until all have ended."""

    def queued(self) -> bool | None:
        """Whether a job of the last launch waits or runs; None where the engine cannot tell."""
        return None

    def drop_waiting(self) -> None:  # noqa: B027  (an engine without a queue has nothing to do)
        """Take back the jobs of the last launch that have not begun, where that is possible."""

    def describe(self, jobs: Sequence[Tasks], /) -> str:
        """How it will do them, as lines for a terminal; empty where there is nothing to say."""
        return f"by hydra/launcher={self.name}, in {len(jobs)} jobs"

    def run(self, jobs: Sequence[Tasks], sweep: str, stop: StopSignal) -> None:
        """Return when every task has a result, has failed, or was lost by the engine. sweep: whose
        ledger has what was tried.

        Raises: ConfigError where the engine breaks off before any job has done anything;
        Interrupted, KeyboardInterrupt.
        """
        _Launches(jobs, sweep, self, stop).run()


class _Launches:
    """The command's side of jobs in other processes: hand them out, watch the store, and see what
    is left."""

    def __init__(
        self, jobs: Sequence[Tasks], sweep: str, launcher: Launcher, stop: StopSignal
    ) -> None:
        self._jobs = jobs
        self._sweep = sweep
        self._root = jobs[0][0].store
        self._launcher = launcher
        self._stop = stop
        _, self._ledger = read_ledger(self._root, sweep, 0)
        self._failed: set[str] = set()
        store = Store(self._root)
        self._to_retry = {
            task.identity.run
            for task in itertools.chain(*jobs)
            if task.retries_diverged and store.run(task.identity).status == "diverged"
        }

    def run(self) -> None:
        pending, any_done = self._unfinished(self._jobs), False
        while pending:
            left = sum(left for _, left in self._lacking())
            busy = self._busy(pending)
            if len(busy) == len(pending):
                log.info("what is left of %d jobs is under way elsewhere; waiting", len(busy))
                pending = self._wait(busy)
                continue
            broke = self._launch([tasks for tasks in pending if tasks not in busy])
            pending = self._unfinished(pending)
            if broke and sum(now_left for _, now_left in self._lacking()) < left:
                any_done = True
                continue
            now_busy = self._busy(pending)
            if broke and not (any_done or self._failed or now_busy):
                raise ConfigError(
                    f"hydra/launcher={self._launcher.name} got no job done: {broke}; give other "
                    "hydra.launcher.<key>=..., or another hydra/launcher"
                )
            # What neither finished nor failed nor is under way was taken from the launcher.
            pending = [tasks for tasks in pending if tasks in busy or tasks in now_busy]

    def _launch(self, jobs: list[Tasks]) -> str:
        """Run the jobs; gives why the launcher broke off, or nothing."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        launches = self._root / SWEEPS / self._sweep / "launcher"
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
        seen = math.inf  # when a job was last known to be queued
        while True:
            thread.join(WATCH_SECONDS)
            self._report()
            if self._stop.requested() and not asked:
                asked = True
                (folder / STOP).touch()
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
            elif not thread.is_alive() or (queued is False and now - seen > GONE_SECONDS):
                return  # for jobs that were taken away, their launcher would wait for ever
            if not thread.is_alive():
                time.sleep(POLL_SECONDS)

    def _report(self) -> None:
        """Log what the ledger has got since the last time."""
        lines, self._ledger = read_ledger(self._root, self._sweep, self._ledger)
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
        store = Store(self._root)

        def is_left(task: Task) -> bool:
            run = task.identity.run
            has_ended = run in self._failed or store.run(task.identity).has_result
            return run in self._to_retry or not has_ended

        return [tasks for tasks in jobs if any(map(is_left, tasks))]

    def _busy(self, jobs: Sequence[Tasks]) -> list[Tasks]:
        """The jobs with a task that another process is at work on."""
        store = Store(self._root)

        def is_busy(task: Task) -> bool:
            return store.is_busy(task.identity) and not store.run(task.identity).has_result

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

    def _lacking(self) -> list[tuple[Task, int]]:
        """The tasks without a result, each with the epochs that it lacks."""
        store, found = Store(self._root), []
        for task in itertools.chain(*self._jobs):
            if not (run := store.run(task.identity)).has_result:
                left = task.identity.epochs
                with contextlib.suppress(RunFolderError):  # or the job will say why not
                    left -= len(read_metrics(run.folder))
                found.append((task, left))
        return found

    def _progress(self) -> str:
        """How many tasks have a result, and how far those are that are under way."""
        count, store, lacking = sum(map(len, self._jobs)), Store(self._root), self._lacking()
        under_way = [
            task.describe(self._sweep)
            + (f" after epoch {epochs}" if (epochs := task.identity.epochs - left) else "")
            for task, left in lacking
            if live_owner(store.folder(task.identity)) is not None
        ]
        more = f" and {len(under_way) - MOST_SHOWN} more" if len(under_way) > MOST_SHOWN else ""
        return (
            f"{count - len(lacking)} of {count} have a result; under way: "
            f"{', '.join(under_way[:MOST_SHOWN]) or 'none'}{more}"
        )


def do_jobs(jobs: Sequence[Tasks], sweep: str, stop: StopSignal) -> None:
    """Do all jobs in this process, one after another, and wait for what others have."""
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
    tasks: Iterable[Task], sweep: str, stop: StopSignal, prefix: str = "", *, again: bool = False
) -> list[Task]:
    """Do the tasks of one job that nobody has done; gives those under way elsewhere. prefix: of
    lines in the log. again: the log has them under way.

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
            log.info("%s: %s", called, "was finished before" if result.reused else result.status)
        except BusyError as error:
            if not again:
                log.info("%s: it, or a shorter one, is %s", called, error.state)
            busy.append(task)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            log.error("%s failed: %s", called, said)
            record_attempt(store, sweep, run_id, folder, "failed", said)
    return busy


def write_jobs(folder: Path, sweep: str, jobs: Sequence[Tasks], place: Place) -> None:
    """Write what each job of a launch has to do. Raises: RunFolderError."""

    def described(task: Task) -> dict[str, Any]:
        own = {"run_id": task.identity.run, "name": task.identity.name}
        return own | {"store": str(task.store), "device": task.device} | task.values()

    kind = type(jobs[0][0])
    values = {
        "sweep": sweep,
        "cwd": str(Path.cwd()),
        "place": place._asdict(),
        "plugins": [dataclasses.asdict(plugin) for plugin in registry.loaded_files()],
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "jobs": [[described(task) for task in tasks] for tasks in jobs],
    }
    write_json(folder / JOBS, values)


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
            place = Place(jobs["place"]["processes"], jobs["place"]["threads"])
            with _slot(folder, place.processes) as slot:
                _do_job(jobs, number, place, slot, stop)
        except KeyboardInterrupt:
            log.info("stopped; the same command goes on")
    return stop.received


def _do_job(jobs: dict[str, Any], number: int, place: Place, slot: int, stop: StopSignal) -> None:
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
            store, said = at_home(item["store"]), f"{type(error).__name__}: {error}"
            record_attempt(store, sweep, item["run_id"], item["name"], "failed", said)
    # An owner on another machine, which a requeued job had, is dead when its lease has ended.
    patience = 0.0 if place.processes else LEASE_SECONDS + 30
    wait_for(do_tasks(tasks, sweep, stop), sweep, stop, patience)


def _placed(device: str, place: Place, slot: int) -> str:
    """The job's GPU, where ``device`` leaves that open and processes share a machine."""
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
        try:
            held = FileLock(folder / f"slot-{number}").acquire(blocking=False)
        except Timeout:
            time.sleep(0.1)
            continue
        with held:
            yield number
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
