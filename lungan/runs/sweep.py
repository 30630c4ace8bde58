"""A sweep: its plan, its manifest and ledger, its runs, each done once, and its tables.

The plan: its runs, along their trajectories, and what the store has of them. The manifest: what was
asked for, so that a missing run shows. The ledger: what was tried, a line an attempt.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lungan.config import RunConfig, rules
from lungan.errors import ConfigError, LunganError, RunFolderError
from lungan.runs.folder import (
    CHECKPOINT,
    SUMMARY,
    SWEEPS,
    Run,
    check_name,
    read_metrics,
    read_run,
    write_manifest,
)
from lungan.runs.jobs import Launcher, Task
from lungan.runs.naming import beside_folder, display_names, name_in_sweep
from lungan.runs.prepare import Prepared, load_and_keep, prepare, reader_of_sets
from lungan.runs.run import StopSignal, run
from lungan.runs.store import BusyError, Store, store_path

MAX_RUNS_TIMED = 50

Settings = Sequence[tuple[RunConfig, dict[str, str]]]
"""Configs of a sweep's runs, each with the swept keys and their values as typed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun(Task):
    """One run of the sweep. ``overrides``: the swept keys and their values as typed. ``device``:
    the config's own, where the plan was made for other machines."""

    prepared: Prepared
    overrides: dict[str, str]

    @classmethod
    def of(cls, prepared: Prepared, overrides: dict[str, str], device: str) -> Self:
        return cls(
            identity=prepared.identity,
            store=store_path(prepared.config),
            device=device,
            uses_cpu=prepared.device.type == "cpu",
            retries_diverged=prepared.config.retry == "diverged",
            prepared=prepared,
            overrides=overrides,
        )

    def describe(self, sweep: str, /) -> str:
        name = name_in_sweep(self.store, sweep, self.identity.run)
        return beside_folder(name, self.identity.name)

    def do(self, sweep: str, stop: StopSignal, /) -> Run:
        return run(self.prepared, sweep=sweep, stop=stop)

    def values(self) -> dict[str, Any]:
        # What auto stands for was decided with the plan: every machine does the run that it names.
        config = dataclasses.replace(self.prepared.config, precision=self.prepared.precision)
        return {"overrides": self.overrides, "config": dataclasses.asdict(config)}

    @classmethod
    def again(cls, values: Mapping[str, Any], device: str, share: int, /) -> Self:
        config: RunConfig = rules.parse(RunConfig, values["config"])
        config = dataclasses.replace(config, device=device)
        return cls.of(prepare(config, load_and_keep, share=share), values["overrides"], device)

    def entry(self, store: Store) -> dict[str, Any]:
        """The run in the sweep's manifest."""
        return {
            "run_id": self.identity.run,
            "trajectory_id": self.identity.trajectory,
            "folder": store.folder(self.identity).name,
            "overrides": self.overrides,
            "epochs": self.identity.epochs,
        }


Trajectory = Sequence[PlannedRun]
"""Runs that differ in their epochs only, fewest first: each goes on from the one before."""

_STATES = {
    "done": "done",
    "diverged": "diverged before",
    "failed": "to try again",
    "continue": "to continue",
    "start": "to start",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep has to do. ``sweep``: its name, one made of the runs where it was given none.
    ``state``: done, diverged, failed, continue or start, by run id. ``images_per_second``: at which
    runs of the same networks in the store were trained; None where there is none."""

    sweep: str
    trajectories: tuple[Trajectory, ...]
    state: dict[str, str]
    epochs_to_train: int
    epochs_saved: int
    images_to_show: int
    images_per_second: float | None

    @property
    def runs(self) -> list[PlannedRun]:
        return [run for trajectory in self.trajectories for run in trajectory]

    @property
    def store(self) -> Path:
        return self.runs[0].store

    def entries(self) -> list[dict[str, Any]]:
        """The runs in the sweep's manifest."""
        store = Store(self.store)
        return [run.entry(store) for run in self.runs]

    def describe(self) -> str:
        """The plan as lines for a terminal."""
        count = collections.Counter(self.state.values())
        parts = [f"{count[state]} {what}" for state, what in _STATES.items() if state in count]
        lines = f"{len(self.state)} runs on {len(self.trajectories)} trajectories: "
        lines += ", ".join(parts)
        if self.epochs_to_train:
            how_long = "time unknown: no run of these networks in the store yet"
            if self.images_per_second is not None:
                how_long = (
                    f"about {self.images_to_show / self.images_per_second / 60:.0f} min of "
                    "training in one process at the store's measured speed"
                )
            lines += (
                f"\n{self.epochs_to_train} epochs to train, {self.epochs_saved} saved by going on "
                f"from shorter or stopped runs; {how_long}"
            )
        return lines

    def list_runs(self) -> str:
        """A line for each run: its state, what sets it apart, and its folder's name."""
        names = display_names(self.entries())
        return "\n".join(
            f"  {self.state[each.run]:9} {beside_folder(names[each.run], each.name)}"
            for each in (run.identity for run in self.runs)
        )


def plan_sweep(
    configs: Settings,
    launcher: Launcher,
    name: str | None = None,
    tell: Callable[[str], object] = log.info,
) -> Plan:
    """The plan of a sweep that the launcher will do. Every run is prepared, so that whatever is
    wrong with any of them shows before the first. name: None for one made of the runs. tell: takes
    what the user should know.

    Raises: ConfigError, DataError, RunFolderError.
    """
    if name is not None:
        check_name(name, "the sweep's name")
    if len(stores := sorted({config.store for config, _ in configs})) > 1:
        raise ConfigError(
            f"store must be the same for all runs of a sweep, got {', '.join(stores[:3])}; give one"
        )
    elsewhere = launcher.elsewhere
    is_auto = [config for config, _ in configs if elsewhere and config.precision == "auto"]
    for config in is_auto:
        if config.device.startswith("cuda"):
            raise ConfigError(
                f"precision must be fp32 or bf16 with device={config.device} and a launcher, "
                "since this machine cannot see what that device computes in; got auto"
            )
    load = reader_of_sets()
    by_trajectory: dict[str, dict[int, PlannedRun]] = {}
    for config, overrides in configs:
        # Devices of other machines are not looked for on this one.
        there = dataclasses.replace(config, device="auto") if elsewhere else config
        planned = PlannedRun.of(prepare(there, load, here=not elsewhere), overrides, config.device)
        of_trajectory = by_trajectory.setdefault(planned.identity.trajectory, {})
        of_trajectory[planned.identity.epochs] = planned
    trajectories = tuple(
        tuple(of_trajectory[epochs] for epochs in sorted(of_trajectory))
        for of_trajectory in by_trajectory.values()
    )
    runs = [planned for each in trajectories for planned in each]
    if is_auto:
        precisions = "/".join({planned.prepared.precision for planned in runs})
        tell(f"precision=auto is {precisions} on this machine, and so in every job")
    if name is None:
        ids = sorted(planned.identity.run for planned in runs)
        name = f"sweep-{hashlib.sha256(''.join(ids).encode()).hexdigest()[:8]}"
    return against_store(name, trajectories)


def against_store(sweep: str, trajectories: tuple[Trajectory, ...]) -> Plan:
    """What the store lacks now. Raises: RunFolderError."""
    states: dict[str, str] = {}
    to_train = saved = to_show = 0
    first = trajectories[0][0]
    store = Store(first.store)
    for trajectory in trajectories:
        # Runs of this plan are counted below; an earlier sweep may have left shorter ones.
        reached = 0
        with contextlib.suppress(BusyError):
            if shorter := store.shorter(trajectory[0].identity):
                reached = shorter.summary["epochs_done"]
        for planned in trajectory:
            state, epochs = _state_in_store(planned, store)
            reached = max(reached, epochs)
            if state not in ("done", "diverged"):
                begun = min(reached, planned.identity.epochs)
                state = state or ("continue" if begun else "start")
                to_train += planned.identity.epochs - begun
                saved += begun
                to_show += (planned.identity.epochs - begun) * len(planned.prepared.training_set)
                reached = planned.identity.epochs
            states[planned.identity.run] = state
    speed = _speed(first.prepared.config, store)
    return Plan(sweep, trajectories, states, to_train, saved, to_show, speed)


def _state_in_store(planned: PlannedRun, store: Store) -> tuple[str, int]:
    """``done``, ``diverged``, ``failed``, which is tried again, or empty where it has not ended;
    and the epochs that can be gone on from, about: an unfinished run's metrics may be ahead of its
    checkpoint."""
    folder = store.folder(planned.identity)
    try:
        run = read_run(folder)
        if run.status in ("unfinished", "failed"):
            kept = len(read_metrics(folder)) if (folder / CHECKPOINT).exists() else 0
            return run.status.replace("unfinished", ""), kept
    except RunFolderError as error:
        log.warning("%s", error)
        return "failed", 0
    if run.status == "diverged" and planned.retries_diverged:
        return "failed", 0
    return run.status, run.summary["epochs_done"]


def _speed(config: RunConfig, store: Store) -> float | None:
    """Median images/s of finished runs of the same networks, the store's newest; None without."""

    def shape(config: RunConfig) -> list[Any]:
        return [config.generator, config.discriminator, config.loss, config.batch_size]

    own = shape(config)
    paths = (store.root / name / SUMMARY for name in store.names.values())
    found = sorted((path.stat().st_mtime, path.parent) for path in paths if path.exists())
    speeds = []
    for _, folder in found[-MAX_RUNS_TIMED:]:
        with contextlib.suppress(RunFolderError, ConfigError, LookupError):
            run = read_run(folder)
            # Parsed, so that keys which came after the run stand at their neutral values.
            if run.status == "done" and shape(rules.parse(RunConfig, run.summary["config"])) == own:
                speeds.append(read_metrics(folder)[-1]["images_per_second"])
    return statistics.median(speeds) if speeds else None


def run_sweep(
    plan: Plan,
    launcher: Launcher,
    *,
    question: str = "",
    command: str = "",
    stop: StopSignal | None = None,
) -> list[Run]:
    """Write the manifest and do every run once; gives the plan's runs, whatever became of them.

    Raises: RunFolderError before the first run; KeyboardInterrupt where it was stopped: the same
    call goes on with what is left.
    """
    stop = stop or StopSignal()
    write_manifest(plan.store, plan.sweep, question, command, plan.entries())
    with stop.installed():
        launcher.run(plan.trajectories, plan.sweep, stop)
    store = Store(plan.store)
    return [store.run(planned.identity) for planned in plan.runs]


def write_results(store: Path, sweep: str) -> Path | None:
    """Write the sweep's tables, figures and page beside its manifest; gives their folder."""
    from lungan.results import report  # pandas and matplotlib, only when all is done

    out = store / SWEEPS / sweep
    try:
        report.write_results(store, sweep, out)
    except LunganError as error:
        log.error("the results could not be written: %s", error)
        return None
    except Exception:  # a fault of lungan's own, for which no sweep that is done fails
        log.exception("the results could not be written; the runs are whole")
        return None
    return out
