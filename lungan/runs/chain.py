"""The runs of one trajectory, one after another: each goes on from the one before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lungan.runs import manifest
from lungan.runs.plan import Job
from lungan.runs.run import BusyError, run
from lungan.runs.stopping import StopSignal
from lungan.runs.work import Result
from lungan.training.loop import Interrupted

log = logging.getLogger(__name__)


def run_chain(chain: Sequence[Job], sweep: str, stop: StopSignal, say: str = "") -> list[Job]:
    """Do the runs of one trajectory that nobody has done; gives those under way elsewhere.

    A run that fails is written to the ledger and its log, and the longer ones are tried still.

    Raises: Interrupted, KeyboardInterrupt.
    """
    busy = []
    for job in chain:
        if stop.requested():
            raise Interrupted
        try:
            record(job, sweep, run(job.prepared, sweep=sweep, stop=stop), say)
        except BusyError as error:
            log.info("%s%s", say, error)
            busy.append(job)
        except Interrupted:
            raise
        except Exception as error:
            record_failure(job, sweep, error, say)
    return busy


def record(job: Job, sweep: str, result: Result, say: str = "") -> None:
    """Tell the log, and of a new result the ledger."""
    if not result.reused:
        manifest.record(job.store, sweep, result.summary)
    status = "was finished before" if result.reused else result.summary["status"]
    log.info("%s%s: %s", say, job.prepared.identity.name, status)


def record_failure(job: Job, sweep: str, error: Exception, say: str = "") -> None:
    identity = job.prepared.identity
    log.error("%s%s failed: %s: %s", say, identity.name, type(error).__name__, error)
    manifest.record(job.store, sweep, failure(identity.run, identity.name, error))


def failure(run_id: str, name: str, error: Exception) -> dict[str, Any]:
    """What the ledger is told of a run that ended in an error."""
    return {
        "run_id": run_id,
        "name": name,
        "status": "failed",
        "reason": f"{type(error).__name__}: {error}",
        "seconds": {"total": None},
    }
