"""What a sweep has to do: its runs, in chains along their trajectories, and what is done."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungan.config import DataConfig, RunConfig, checks
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, RunFolderError
from lungan.runs import folder as names
from lungan.runs.manifest import Entry
from lungan.runs.prepare import Prepared, load_sets, prepare
from lungan.runs.store import Shorter, Store

MAX_RUNS_TIMED = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the sweep. ``overrides``: the swept keys and their values. ``device``: the
    config's own, where the plan was made for other machines."""

    prepared: Prepared
    overrides: dict[str, str]
    device: str

    @property
    def store(self) -> Path:
        return Path(self.prepared.config.store)

    def entry(self, folders: dict[str, str]) -> Entry:
        """folders: the store's."""
        identity = self.prepared.identity
        folder = folders.get(identity.digits, identity.name)
        return Entry(identity.run, identity.trajectory, folder, self.overrides, identity.epochs)

    def has_result(self, folders: dict[str, str]) -> bool:
        """Whether the run is done or diverged. folders: the store's."""
        identity = self.prepared.identity
        try:
            summary = names.read_summary(self.store / folders.get(identity.digits, identity.name))
        except RunFolderError:
            return False
        return summary is not None and summary["status"] in ("done", "diverged")


@dataclass(frozen=True, slots=True)
class Plan:
    """``chains``: jobs of one trajectory each, fewest epochs first, since each goes on from the
    one before. ``state``: done, diverged, continue or start, by run id."""

    chains: tuple[tuple[Job, ...], ...]
    state: dict[str, str]
    epochs_to_train: int
    epochs_saved: int
    images_to_show: int
    images_per_second: float | None

    @property
    def jobs(self) -> list[Job]:
        return [job for chain in self.chains for job in chain]

    def name(self) -> str:
        """A name made of the runs, for a sweep that was given none."""
        ids = sorted(job.prepared.identity.run for job in self.jobs)
        return f"sweep-{hashlib.sha256(''.join(ids).encode()).hexdigest()[:8]}"

    def describe(self) -> str:
        """The plan as lines for a terminal."""
        count = {
            state: list(self.state.values()).count(state) for state in set(self.state.values())
        }
        parts = [f"{count[state]} {what}" for state, what in _STATES.items() if state in count]
        lines = [f"{len(self.state)} runs on {len(self.chains)} trajectories: {', '.join(parts)}"]
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

    by_trajectory: dict[str, dict[int, Job]] = {}
    for config, overrides in configs:
        planned = config if here else dataclasses.replace(config, device="auto")
        job = Job(prepare(planned, load), overrides, config.device)
        identity = job.prepared.identity
        by_trajectory.setdefault(identity.trajectory, {})[identity.epochs] = job
    chains = tuple(
        tuple(chain[epochs] for epochs in sorted(chain)) for chain in by_trajectory.values()
    )
    return against_store(chains)


def against_store(chains: tuple[tuple[Job, ...], ...]) -> Plan:
    """What the store lacks now. Raises: RunFolderError."""
    state: dict[str, str] = {}
    to_train = saved = to_show = 0
    first = chains[0][0].prepared
    store = Store(Path(first.config.store))
    folders = store.folders()
    for chain in chains:
        # Runs of this plan are counted below; an earlier sweep may have left shorter ones.
        shorter = store.shorter(chain[0].prepared.identity, folders)
        reached = shorter.epochs if isinstance(shorter, Shorter) else 0
        for job in chain:
            identity = job.prepared.identity
            folder = job.store / folders.get(identity.digits, identity.name)
            again = ("failed", "diverged")[: 2 if job.prepared.config.retry == "diverged" else 1]
            summary: dict[str, Any] | None
            try:
                summary = names.read_summary(folder)
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
            to_show += (identity.epochs - begun) * len(job.prepared.training_set)
            reached = identity.epochs
    return Plan(chains, state, to_train, saved, to_show, _speed(first.config, folders))


def _epochs_kept(folder: Path) -> int:
    """Epochs of an unfinished run, about: its metrics may be ahead of its checkpoint."""
    return len(names.read_metrics(folder)) if (folder / names.CHECKPOINT).exists() else 0


def _shape(config: RunConfig) -> tuple[Any, ...]:
    """What the time of a step depends on."""
    return config.generator, config.discriminator, config.loss, config.batch_size


def _speed(config: RunConfig, folders: dict[str, str]) -> float | None:
    """Median images/s of finished runs of the same networks, the store's newest; None without."""
    shape = _shape(config)
    found = sorted(
        (path.stat().st_mtime, path.parent)
        for name in folders.values()
        if (path := Path(config.store) / name / names.SUMMARY).exists()
    )
    speeds = []
    for _, folder in found[-MAX_RUNS_TIMED:]:
        try:
            summary = names.read_summary(folder)
            if summary is None or summary["status"] != "done":
                continue
            # Parsed, so that keys which came after the run stand at their neutral values.
            other = checks.parse(summary["config"])
            if _shape(other) == shape:
                speeds.append(names.read_metrics(folder)[-1]["images_per_second"])
        except (RunFolderError, ConfigError, LookupError):
            continue
    return statistics.median(speeds) if speeds else None
