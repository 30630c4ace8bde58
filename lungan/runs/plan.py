"""What a sweep has to do, and what of it is written down.

The plan: its runs, along their trajectories, and what the store has of them. The manifest: what was
asked for, so that a missing run shows. The ledger: what was tried, a line an attempt.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungan.config import DataConfig, RunConfig, rules
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, RunFolderError
from lungan.runs.folder import (
    ATTEMPT,
    CHECKPOINT,
    SUMMARY,
    SWEEPS,
    append_line,
    read_manifest,
    read_metrics,
    read_summary,
    write_json,
)
from lungan.runs.prepare import Prepared, load_sets, prepare
from lungan.runs.reading import read_lines
from lungan.runs.store import Shorter, Store, exclusive, store_path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_RUNS_TIMED = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a sweep. ``overrides``: the swept keys and their values, as typed."""

    run_id: str
    trajectory_id: str
    folder: str
    overrides: dict[str, str]
    epochs: int


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of the sweep. ``overrides``: the swept keys and their values. ``device``: the
    config's own, where the plan was made for other machines."""

    prepared: Prepared
    overrides: dict[str, str]
    device: str

    @property
    def store(self) -> Path:
        return store_path(self.prepared.config)

    def entry(self, folders: dict[str, str]) -> Entry:
        """folders: the store's."""
        identity = self.prepared.identity
        folder = folders.get(identity.digits, identity.name)
        return Entry(identity.run, identity.trajectory, folder, self.overrides, identity.epochs)

    def has_result(self, folders: dict[str, str]) -> bool:
        """Whether the run is done or diverged. folders: the store's."""
        identity = self.prepared.identity
        try:
            summary = read_summary(self.store / folders.get(identity.digits, identity.name))
        except RunFolderError:
            return False
        return summary is not None and summary["status"] in ("done", "diverged")


Trajectory = Sequence[PlannedRun]
"""Runs that differ in their epochs only, fewest first: each goes on from the one before."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep has to do. ``state``: done, diverged, failed, continue or start, by run id."""

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

    def without_result(self) -> list[PlannedRun]:
        """The runs that are neither done nor diverged in the store now."""
        folders = Store(self.store).folders()
        return [run for run in self.runs if not run.has_result(folders)]

    def name(self) -> str:
        """A name made of the runs, for a sweep that was given none."""
        ids = sorted(run.prepared.identity.run for run in self.runs)
        return f"sweep-{hashlib.sha256(''.join(ids).encode()).hexdigest()[:8]}"

    def describe(self) -> str:
        """The plan as lines for a terminal."""
        count = {
            state: list(self.state.values()).count(state) for state in set(self.state.values())
        }
        parts = [f"{count[state]} {what}" for state, what in _STATES.items() if state in count]
        size = f"{len(self.state)} runs on {len(self.trajectories)} trajectories"
        lines = [f"{size}: {', '.join(parts)}"]
        if self.epochs_to_train:
            lines.append(
                f"{self.epochs_to_train} epochs to train, {self.epochs_saved} saved by going on "
                f"from shorter or stopped runs; {self._time()}"
            )
        return "\n".join(lines)

    def _time(self) -> str:
        if self.images_per_second is None:
            return "time unknown: no run of these networks in the store yet"
        minutes = self.images_to_show / self.images_per_second / 60
        return f"about {minutes:.0f} min of training in one process at the store's measured speed"


_STATES = {
    "done": "done",
    "diverged": "diverged before",
    "failed": "to try again",
    "continue": "to continue",
    "start": "to start",
}


def make_plan(configs: Sequence[tuple[RunConfig, dict[str, str]]], *, here: bool = True) -> Plan:
    """Prepare every run, so that whatever is wrong with any of them shows before the first.

    here: the runs will be done on this machine; if not, their devices are not looked for on it.

    Raises: ConfigError, DataError, RunFolderError.
    """
    loaded: dict[str, tuple[ImageSet, ImageSet]] = {}

    def load(config: DataConfig) -> tuple[ImageSet, ImageSet]:
        key = repr(config)
        if key not in loaded:
            loaded[key] = load_sets(config)
        return loaded[key]

    by_trajectory: dict[str, dict[int, PlannedRun]] = {}
    for config, overrides in configs:
        planned = config if here else dataclasses.replace(config, device="auto")
        run = PlannedRun(prepare(planned, load, here=here), overrides, config.device)
        identity = run.prepared.identity
        by_trajectory.setdefault(identity.trajectory, {})[identity.epochs] = run
    trajectories = tuple(
        tuple(by_epochs[epochs] for epochs in sorted(by_epochs))
        for by_epochs in by_trajectory.values()
    )
    return against_store(trajectories)


def against_store(trajectories: tuple[Trajectory, ...]) -> Plan:
    """What the store lacks now. Raises: RunFolderError."""
    state: dict[str, str] = {}
    to_train = saved = to_show = 0
    first = trajectories[0][0].prepared
    store = Store(store_path(first.config))
    folders = store.folders()
    for trajectory in trajectories:
        # Runs of this plan are counted below; an earlier sweep may have left shorter ones.
        shorter = store.shorter(trajectory[0].prepared.identity, folders)
        reached = shorter.epochs if isinstance(shorter, Shorter) else 0
        for run in trajectory:
            identity = run.prepared.identity
            folder = run.store / folders.get(identity.digits, identity.name)
            again = ("failed", "diverged")[: 2 if run.prepared.config.retry == "diverged" else 1]
            summary: dict[str, Any] | None
            try:
                summary = read_summary(folder)
                own = 0
                if summary is None or summary["status"] == "failed":
                    own = _epochs_kept(folder)
            except RunFolderError as error:
                log.warning("%s", error)
                summary, own = {"status": "failed"}, 0
            if summary is not None and summary["status"] not in again:
                state[identity.run] = str(summary["status"])
                reached = max(reached, summary["epochs_done"])
                continue
            begun = min(max(reached, own), identity.epochs)
            if summary is not None:
                state[identity.run] = "failed"
            else:
                state[identity.run] = "continue" if begun else "start"
            to_train += identity.epochs - begun
            saved += begun
            to_show += (identity.epochs - begun) * len(run.prepared.training_set)
            reached = identity.epochs
    return Plan(trajectories, state, to_train, saved, to_show, _speed(first.config, folders))


def _epochs_kept(folder: Path) -> int:
    """Epochs of an unfinished run, about: its metrics may be ahead of its checkpoint."""
    return len(read_metrics(folder)) if (folder / CHECKPOINT).exists() else 0


def _shape(config: RunConfig) -> tuple[Any, ...]:
    """What the time of a step depends on."""
    return config.generator, config.discriminator, config.loss, config.batch_size


def _speed(config: RunConfig, folders: dict[str, str]) -> float | None:
    """Median images/s of finished runs of the same networks, the store's newest; None without."""
    shape = _shape(config)
    found = sorted(
        (path.stat().st_mtime, path.parent)
        for name in folders.values()
        if (path := store_path(config) / name / SUMMARY).exists()
    )
    speeds = []
    for _, folder in found[-MAX_RUNS_TIMED:]:
        try:
            summary = read_summary(folder)
            if summary is None or summary["status"] != "done":
                continue
            # Parsed, so that keys which came after the run stand at their neutral values.
            other = rules.parse(RunConfig, summary["config"])
            if _shape(other) == shape:
                speeds.append(read_metrics(folder)[-1]["images_per_second"])
        except (RunFolderError, ConfigError, LookupError):
            continue
    return statistics.median(speeds) if speeds else None


def manifest_path(store: Path, sweep: str) -> Path:
    return store / SWEEPS / f"{sweep}.json"


def ledger_path(store: Path, sweep: str) -> Path:
    return store / SWEEPS / f"{sweep}.ledger.jsonl"


def check_name(sweep: str) -> None:
    """Raises: ConfigError where the name would not do as a file's."""
    if not NAME.fullmatch(sweep):
        raise ConfigError(
            f"--sweep must be letters, digits, '.', '_' and '-', at most 100, got {sweep}"
        )


def write_manifest(
    store: Path, sweep: str, question: str, command: str, entries: Sequence[Entry]
) -> None:
    """Write what the sweep asks for, before anything runs, so that a missing run shows.

    Runs that an earlier command asked for under this name stay in it.

    Raises: RunFolderError where the store cannot be written.
    """
    path = manifest_path(store, sweep)
    with exclusive(store):
        before = read_manifest(store, sweep) if path.exists() else {}
        runs = {run["run_id"]: run for run in before.get("runs", [])}
        runs |= {entry.run_id: asdict(entry) for entry in entries}
        write_json(
            path,
            {
                "name": sweep,
                "question": question or before.get("question", ""),
                "command": command,
                "created": before.get("created", _now()),
                "runs": list(runs.values()),
            },
        )


def record_attempt(store: Path, sweep: str, summary: dict[str, Any]) -> None:
    """Add the end of one attempt at a run to the ledger. Raises: RunFolderError."""
    line = {key: summary[key] for key in ("run_id", "name", "status", "reason")}
    line["folder"] = line.pop("name")
    with exclusive(store):  # network file systems do not append as one act
        append_line(
            ledger_path(store, sweep),
            {**line, "seconds": summary["seconds"]["total"], "time": _now()},
        )


def ledger_size(store: Path, sweep: str) -> int:
    """Bytes in the ledger now: where ``read_ledger`` finds what comes after."""
    path = ledger_path(store, sweep)
    return path.stat().st_size if path.exists() else 0


def read_ledger(store: Path, sweep: str, begin: int) -> tuple[list[dict[str, Any]], int]:
    """The ledger's whole lines from byte ``begin`` on, and where they end. A line that a crash
    tore is passed over."""
    lines = []
    end = begin
    for line, end in read_lines(ledger_path(store, sweep), ATTEMPT, begin):  # noqa: B007
        if line is not None:
            lines.append(line)
    return lines, end


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
