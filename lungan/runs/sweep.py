"""A sweep: the plan, the manifest, each run once by a launcher, and the tables at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lungan.config import RunConfig
from lungan.errors import ConfigError, LunganError, RunFolderError
from lungan.runs.folder import SWEEPS, Run
from lungan.runs.naming import name_runs
from lungan.runs.plan import (
    Plan,
    PlannedRun,
    Trajectory,
    make_plan,
    record_attempt,
    write_manifest,
)
from lungan.runs.run import run
from lungan.runs.stopping import StopSignal
from lungan.runs.store import BusyError, Store
from lungan.training.loop import Interrupted

POLL_SECONDS = 5.0

log = logging.getLogger(__name__)


class Launcher(Protocol):
    """How the runs of a plan are done. ``elsewhere``: on machines that may differ from this one."""

    name: str
    elsewhere: bool

    def describe(self, plan: Plan, /) -> str:
        """How it will do the plan, as lines for a terminal; empty where there is nothing to say."""

    def run(self, plan: Plan, sweep: str, stop: StopSignal) -> None:
        """Return when every run has a result, has failed, or was lost.

        Raises: Interrupted, KeyboardInterrupt.
        """


def plan_sweep(
    configs: Sequence[tuple[RunConfig, dict[str, str]]],
    launcher: Launcher,
    tell: Callable[[str], object] = log.info,
) -> Plan:
    """The plan of configs, each with the swept keys and their values as typed.

    Raises: ConfigError, DataError, RunFolderError.
    """
    if len({config.store for config, _ in configs}) > 1:
        raise ConfigError("store must be the same for all runs of a sweep")
    if launcher.elsewhere:
        for config, _ in configs:
            if config.precision == "auto" and config.device.startswith("cuda"):
                raise ConfigError(
                    f"precision must be fp32 or bf16 with device={config.device} and a launcher, "
                    "since this machine cannot see what that device computes in; got auto"
                )
    plan = make_plan(configs, here=not launcher.elsewhere)
    precisions = {planned.prepared.precision for planned in plan.runs}
    if launcher.elsewhere and any(config.precision == "auto" for config, _ in configs):
        tell(f"precision=auto is {'/'.join(precisions)} on this machine, and so in every job")
    return plan


def run_sweep(
    plan: Plan,
    launcher: Launcher,
    *,
    name: str,
    question: str = "",
    command: str = "",
    stop: StopSignal | None = None,
) -> list[PlannedRun]:
    """Write the manifest and do every run once; gives the runs that have no result then.

    Raises: RunFolderError before the first run; Interrupted, KeyboardInterrupt where it was
    stopped: the same call goes on with what is left.
    """
    stop = stop or StopSignal()
    folders = Store(plan.store).folders()
    entries = [planned.entry(folders) for planned in plan.runs]
    write_manifest(plan.store, name, question, command, entries)
    with stop.installed():
        launcher.run(plan, name, stop)
    return plan.without_result()


def run_trajectories(
    trajectories: Sequence[Trajectory],
    sweep: str,
    stop: StopSignal,
    waiting: Iterable[PlannedRun] = (),
) -> None:
    """Do all runs in this process, one after another, and wait for those that others have.

    waiting: runs that were under way elsewhere before.
    """
    waiting = list(waiting)
    for number, trajectory in enumerate(trajectories, start=1):
        waiting += run_trajectory(trajectory, sweep, stop, f"[{number}/{len(trajectories)}] ")
    while waiting:
        time.sleep(POLL_SECONDS)
        # A run whose owner died meanwhile is taken over here.
        waiting = run_trajectory(waiting, sweep, stop)


def run_trajectory(
    trajectory: Iterable[PlannedRun], sweep: str, stop: StopSignal, prefix: str = ""
) -> list[PlannedRun]:
    """Do the runs of one trajectory that nobody has done, each going on from the one before; gives
    those under way elsewhere. prefix: of lines in the log.

    A run that fails is written to the ledger and its log, and the longer ones are tried still.

    Raises: Interrupted, KeyboardInterrupt.
    """
    busy = []
    for planned in trajectory:
        if stop.requested():
            raise Interrupted
        try:
            record_result(planned, sweep, run(planned.prepared, sweep=sweep, stop=stop), prefix)
        except BusyError as error:
            log.info("%s%s", prefix, error)
            busy.append(planned)
        except Interrupted:
            raise
        except Exception as error:
            record_failure(planned, sweep, error, prefix)
    return busy


def record_result(planned: PlannedRun, sweep: str, result: Run, prefix: str = "") -> None:
    """Write a result to the log, and a new one to the ledger."""
    if not result.reused:
        record_attempt(planned.store, sweep, result.summary)
    status = "was finished before" if result.reused else result.status
    log.info("%s%s: %s", prefix, _called(planned, sweep), status)


def record_failure(planned: PlannedRun, sweep: str, error: Exception, prefix: str = "") -> None:
    identity = planned.prepared.identity
    said = f"{type(error).__name__}: {error}"
    log.error("%s%s failed: %s", prefix, _called(planned, sweep), said)
    record_attempt(planned.store, sweep, failed_summary(identity.run, identity.name, error))


def _called(planned: PlannedRun, sweep: str) -> str:
    """What sets the run apart in its sweep, and its folder's name."""
    identity = planned.prepared.identity
    try:
        name = name_runs(planned.store, sweep).get(identity.run)
    except RunFolderError:
        name = None
    return f"{name} ({identity.name})" if name else identity.name


def failed_summary(run_id: str, name: str, error: Exception) -> dict[str, Any]:
    """What the ledger holds of a run that ended in an error."""
    return {
        "run_id": run_id,
        "name": name,
        "status": "failed",
        "reason": f"{type(error).__name__}: {error}",
        "seconds": {"total": None},
    }


def write_results(store: Path, sweep: str) -> Path | None:
    """Write the sweep's tables, figures and page beside its manifest; gives their folder."""
    from lungan import results  # pandas and matplotlib, only when all is done

    out = store / SWEEPS / sweep
    try:
        results.write_results(store, sweep, out)
    except LunganError as error:
        log.error("the results could not be written: %s", error)
        return None
    except Exception:  # a fault of lungan's own, for which no sweep that is done fails
        log.exception("the results could not be written; the runs are whole")
        return None
    return out
