"""A sweep: say the plan, write the manifest, do each run once, and leave the table."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungan.cli import INTERRUPTED
from lungan.config import RunConfig
from lungan.errors import ConfigError, LunganError
from lungan.launchers.jobs import Launcher, Launching
from lungan.launchers.stacked import run_stack
from lungan.runs import manifest
from lungan.runs.chain import run_chain
from lungan.runs.plan import Job, Plan, make_plan
from lungan.runs.stacking import Arrangement, Stacking, arrange
from lungan.runs.stopping import StopSignal
from lungan.runs.store import Store
from lungan.training.loop import Interrupted

POLL_SECONDS = 5.0
FAILED = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for. ``launcher``: None for this process."""

    configs: Sequence[tuple[RunConfig, dict[str, str]]]
    name: str | None
    question: str
    command: str
    dry_run: bool
    launcher: Launcher | Stacking | None = None


def run_sweep(request: Request) -> int:
    """Gives the command's exit code: 0, or 1 where a run failed, or 130.

    Raises: ConfigError, DataError, RunFolderError before the first run.
    """
    launcher = request.launcher
    plan = _plan(request)
    sweep = request.name or plan.name()
    print(f"sweep {sweep}: {plan.describe()}", flush=True)
    stop = StopSignal()
    do: Callable[[], None]
    match launcher:
        case None:
            do = functools.partial(_run_here, plan.chains, sweep, stop)
        case Stacking():
            arrangement = arrange(plan, launcher)
            print(arrangement.describe(), flush=True)
            do = functools.partial(_run_stacked, arrangement, sweep, stop)
        case _:
            print(f"by hydra/launcher={launcher.name}, a job a trajectory", flush=True)
            do = functools.partial(_launch, launcher, plan, sweep, stop)
    if request.dry_run:
        for job in plan.jobs:
            identity = job.prepared.identity
            print(f"  {plan.state[identity.run]:9} {identity.name}")
        return 0
    store = plan.jobs[0].store
    folders = Store(store).folders()
    entries = [job.entry(folders) for job in plan.jobs]
    manifest.write_manifest(store, sweep, request.question, request.command, entries)
    with stop.installed():
        try:
            do()
        except (Interrupted, KeyboardInterrupt):
            print("interrupted; the same command goes on with what is left", flush=True)
            return INTERRUPTED
    write_results(store, sweep)
    return _count_failures(plan)


def _plan(request: Request) -> Plan:
    """Raises: ConfigError, DataError, RunFolderError."""
    configs = request.configs
    launcher = request.launcher
    here = launcher is None or isinstance(launcher, Stacking) or not launcher.elsewhere
    if len({config.store for config, _ in configs}) > 1:
        raise ConfigError("store must be the same for all runs of a sweep")
    if not here:
        for config, _ in configs:
            if config.precision == "auto" and config.device.startswith("cuda"):
                raise ConfigError(
                    f"precision must be fp32 or bf16 with device={config.device} and a launcher, "
                    "since this machine cannot see what that device computes in; got auto"
                )
    plan = make_plan(configs, here=here)
    precisions = {job.prepared.precision for job in plan.jobs}
    if not here and any(config.precision == "auto" for config, _ in configs):
        print(f"precision=auto is {'/'.join(precisions)} on this machine, and so in every job")
    return plan


def _launch(launcher: Launcher, plan: Plan, sweep: str, stop: StopSignal) -> None:
    Launching(plan, sweep, launcher, stop).run()


def _run_stacked(arrangement: Arrangement, sweep: str, stop: StopSignal) -> None:
    """Do all runs in this process, those of one shape as one."""
    waiting: list[Job] = []
    for number, stack in enumerate(arrangement.stacks, start=1):
        waiting += run_stack(stack, sweep, stop, f"[stack {number}/{len(arrangement.stacks)}] ")
    chains = [*(chain for chain, _ in arrangement.alone), *arrangement.finished]
    _run_here(chains, sweep, stop, waiting)


def _run_here(
    chains: Sequence[Sequence[Job]], sweep: str, stop: StopSignal, waiting: Sequence[Job] = ()
) -> None:
    """Do all runs in this process, one after another, and wait for those that others have."""
    waiting = list(waiting)
    for number, chain in enumerate(chains, start=1):
        waiting += run_chain(chain, sweep, stop, f"[{number}/{len(chains)}] ")
    while waiting:
        time.sleep(POLL_SECONDS)
        # A run whose owner died meanwhile is taken over here.
        waiting = run_chain(waiting, sweep, stop)


def _count_failures(plan: Plan) -> int:
    """Gives the exit code, and says what has no result."""
    folders = Store(plan.jobs[0].store).folders()
    lacking = [job for job in plan.jobs if not job.has_result(folders)]
    if lacking:
        log.error("%d of %d runs have no result:", len(lacking), len(plan.jobs))
        for job in lacking[:10]:
            log.error("  %s", job.prepared.identity.name)
        log.error("the same command tries them again; why is in each folder's log.txt")
    return FAILED if lacking else 0


def write_results(store: Path, sweep: str) -> None:
    """The sweep's tables, figures and report, beside its manifest."""
    from lungan import results  # pandas and matplotlib, only when all is done

    out = store / manifest.SWEEPS / sweep
    try:
        results.write_results(store, sweep, out)
    except LunganError as error:
        log.error("the results could not be written: %s", error)
        return
    print(f"results: {out / 'report.html'}, {out / 'results.csv'}, {out / 'summary.csv'}")
