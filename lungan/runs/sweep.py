"""A sweep: say the plan, write the manifest, do each run once, and leave the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungan.commands import INTERRUPTED
from lungan.config import RunConfig
from lungan.errors import LunganError, RunFolderError
from lungan.runs import folder as names
from lungan.runs import manifest
from lungan.runs.plan import Job, Plan, make_plan
from lungan.runs.run import BusyError, run
from lungan.runs.stopping import StopSignal
from lungan.training.loop import Interrupted

POLL_SECONDS = 5.0
FAILED = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    configs: Sequence[tuple[RunConfig, dict[str, str]]]
    name: str | None
    question: str
    command: str
    dry_run: bool


def run_sweep(request: Request) -> int:
    """Gives the command's exit code: 0, or 1 where a run failed, or 130.

    Raises: ConfigError, DataError, RunFolderError before the first run.
    """
    plan = make_plan(request.configs)
    sweep = request.name or plan.name()
    print(f"sweep {sweep}: {plan.describe()}", flush=True)
    if request.dry_run:
        for job in plan.jobs:
            identity = job.prepared.identity
            print(f"  {plan.state[identity.run]:9} {identity.name}")
        return 0
    store = Path(plan.jobs[0].prepared.config.store)
    manifest.write_manifest(
        store, sweep, request.question, request.command, [job.entry for job in plan.jobs]
    )
    stop = StopSignal()
    with stop.installed():
        try:
            failures = _run_here(plan, sweep, stop)
        except (Interrupted, KeyboardInterrupt):
            print("interrupted; the same command goes on with what is left", flush=True)
            return INTERRUPTED
    _write_results(store, sweep)
    return FAILED if failures else 0


def run_chain(chain: Sequence[Job], sweep: str, stop: StopSignal, say: str = "") -> list[Job]:
    """Do the runs of one trajectory that nobody has done; gives those under way elsewhere.

    A run that fails is written to the ledger and its log, and the longer ones are tried still.

    Raises: Interrupted, KeyboardInterrupt.
    """
    busy = []
    for job in chain:
        name = job.prepared.identity.name
        store = Path(job.prepared.config.store)
        try:
            result = run(job.prepared, sweep=sweep, stop=stop)
        except BusyError as error:
            log.info("%s%s", say, error)
            busy.append(job)
            continue
        except Exception as error:
            log.error("%s%s failed: %s: %s", say, name, type(error).__name__, error)
            manifest.record(store, sweep, _failure(job, error))
            continue
        if not result.reused:
            manifest.record(store, sweep, result.summary)
        status = "was finished before" if result.reused else result.summary["status"]
        log.info("%s%s: %s", say, name, status)
    return busy


def _run_here(plan: Plan, sweep: str, stop: StopSignal) -> int:
    """Do all runs in this process, and wait for those that others have; gives how many failed."""
    waiting: list[Job] = []
    for number, chain in enumerate(plan.chains, start=1):
        waiting += run_chain(chain, sweep, stop, f"[{number}/{len(plan.chains)}] ")
    while waiting:
        time.sleep(POLL_SECONDS)
        # A run whose owner died meanwhile is taken over here.
        waiting = run_chain(waiting, sweep, stop)
    return sum(not _has_result(job) for job in plan.jobs)


def _has_result(job: Job) -> bool:
    store = Path(job.prepared.config.store)
    try:
        summary = names.read_summary(store / job.prepared.identity.name)
    except RunFolderError:
        return False
    return summary is not None and summary["status"] in ("done", "diverged")


def _failure(job: Job, error: Exception) -> dict[str, Any]:
    return {
        "run_id": job.prepared.identity.run,
        "name": job.prepared.identity.name,
        "status": "failed",
        "reason": f"{type(error).__name__}: {error}",
        "seconds": {"total": None},
    }


def _write_results(store: Path, sweep: str) -> None:
    """The sweep's tables, figures and report, beside its manifest."""
    from lungan.results import write_results  # pandas and matplotlib, only when all is done

    out = store / manifest.SWEEPS / sweep
    try:
        write_results(store, sweep, out)
    except LunganError as error:
        log.error("the results could not be written: %s", error)
        return
    print(f"results: {out / 'report.html'}, {out / 'results.csv'}, {out / 'summary.csv'}")
