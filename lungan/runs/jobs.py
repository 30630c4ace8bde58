"""A launcher's jobs: what each is told, in one file of the store, and what each does.

A job does one chain. It runs in another process, perhaps on another machine, and leaves what it
made in the store; nothing is returned.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lungan import registry
from lungan.config import DataConfig, RunConfig, checks
from lungan.data.images import ImageSet
from lungan.errors import ConfigError
from lungan.runs import folder as names
from lungan.runs import manifest
from lungan.runs.chain import failure, run_chain
from lungan.runs.plan import Job
from lungan.runs.prepare import load_sets, prepare
from lungan.runs.stopping import StopSignal
from lungan.training.loop import Interrupted

JOBS = "jobs.json"
STOP = "stop"
POLL_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs run. ``processes``: how many at a time share a machine and its GPUs; 0 where
    the launcher gives each job its own. ``threads``: of a job whose config leaves them open; 0
    leaves them to torch. ``wait_seconds``: how long a job waits for runs under way elsewhere."""

    processes: int
    threads: int
    wait_seconds: float


def write_jobs(folder: Path, sweep: str, chains: Sequence[Sequence[Job]], place: Place) -> None:
    """Write what the jobs of a launch are told. Raises: RunFolderError."""
    told = [[_told(job) for job in chain] for chain in chains]
    names.write_json(
        folder / JOBS,
        {
            "sweep": sweep,
            "cwd": str(Path.cwd()),
            "place": dataclasses.asdict(place),
            "plugins": [dataclasses.asdict(plugin) for plugin in registry.loaded_files()],
            "chains": told,
        },
    )


def stop_jobs(folder: Path) -> None:
    """Tell all jobs of a launch, those that have not begun too, to stop with a checkpoint."""
    (folder / STOP).touch()


def run_job(
    folder: Path, number: int, signals: Sequence[int] = (signal.SIGTERM,)
) -> Collection[int]:
    """Do job ``number`` of the launch in ``folder``; gives the signals that stopped it.

    signals: those that stop it with a checkpoint, as the sweep's Ctrl-C does by a file.
    """
    told = names.read_json(folder / JOBS)
    os.chdir(told["cwd"])
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches all processes of a terminal: the sweep's own decides for the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = StopSignal(folder / STOP)
    path = folder / f"job-{number}.log"
    with path.open("a", encoding="utf-8") as stream, _log_to(stream), stop.installed(signals):
        try:
            place = Place(**told["place"])
            with _slot(folder, place.processes) as slot:
                _run(told, number, place, slot, stop)
        except (Interrupted, KeyboardInterrupt):
            log.info("stopped; the sweep's command goes on from the last checkpoint")
    return stop.received


def _told(job: Job) -> dict[str, Any]:
    prepared = job.prepared
    # What auto stands for was decided with the plan: every machine does the run that it names.
    config = dataclasses.replace(prepared.config, precision=prepared.precision, device=job.device)
    return {
        "run_id": prepared.identity.run,
        "name": prepared.identity.name,
        "overrides": job.overrides,
        "config": dataclasses.asdict(config),
    }


def _run(told: dict[str, Any], number: int, place: Place, slot: int, stop: StopSignal) -> None:
    sweep, chain = told["sweep"], []
    for item in told["chains"][number]:
        try:
            registry.load_again(told["plugins"])
            config = checks.parse(item["config"])
            chain.append(_prepared(item, _placed(config, place, slot)))
        except Exception as error:
            log.exception("%s cannot be prepared on %s", item["name"], socket.gethostname())
            failed = failure(item["run_id"], item["name"], error)
            manifest.record(Path(item["config"]["store"]), sweep, failed)
    busy = run_chain(chain, sweep, stop)
    waited_from = time.monotonic()
    while busy and time.monotonic() - waited_from < place.wait_seconds:
        time.sleep(POLL_SECONDS)
        busy = run_chain(busy, sweep, stop)


def _prepared(item: dict[str, Any], config: RunConfig) -> Job:
    job = Job(prepare(config, load_and_keep), item["overrides"], config.device)
    if job.prepared.identity.run != item["run_id"]:
        raise ConfigError(
            f"the training images on {socket.gethostname()} are not those that the sweep was "
            "planned with; give all machines the same data, or plan the sweep there"
        )
    return job


def _placed(config: RunConfig, place: Place, slot: int) -> RunConfig:
    """The config with its share of the machine, where it leaves that open."""
    import torch

    changes: dict[str, Any] = {}
    if config.threads == 0:
        changes["threads"] = place.threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if config.device == "auto" and place.processes and torch.cuda.is_available():
        changes["device"] = f"cuda:{slot % torch.cuda.device_count()}"
    return dataclasses.replace(config, **changes)


_last_loaded: dict[str, tuple[ImageSet, ImageSet]] = {}


def load_and_keep(config: DataConfig) -> tuple[ImageSet, ImageSet]:
    """The data, kept for the next run of this process."""
    key = repr(config)
    if key not in _last_loaded:
        _last_loaded.clear()
        _last_loaded[key] = load_sets(config)
    return _last_loaded[key]


@contextlib.contextmanager
def _slot(folder: Path, count: int) -> Iterator[int]:
    """A number below ``count`` that no other job of the launch holds; 0 where count is 0."""
    if count == 0:
        yield 0
        return
    for number in itertools.cycle(range(count)):
        with (folder / f"slot-{number}").open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.1)
                continue
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
