"""What a sweep has to do: its runs, in chains along their trajectories, and what is done."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungan.config import RunConfig
from lungan.data import build as data
from lungan.data.images import ImageSet
from lungan.errors import RunFolderError
from lungan.runs import folder as names
from lungan.runs.manifest import Entry
from lungan.runs.run import Prepared, prepare
from lungan.runs.store import Store


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the sweep. ``overrides``: the swept keys and their values."""

    prepared: Prepared
    overrides: dict[str, str]

    @property
    def entry(self) -> Entry:
        identity = self.prepared.identity
        return Entry(
            identity.run, identity.trajectory, identity.name, self.overrides, identity.epochs
        )


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


def make_plan(configs: Sequence[tuple[RunConfig, dict[str, str]]]) -> Plan:
    """Prepare every run, so that whatever is wrong with any of them shows before the first.

    Raises: ConfigError, DataError, RunFolderError.
    """
    loaded: dict[str, ImageSet] = {}

    def load(config: object) -> ImageSet:
        key = repr(config)
        if key not in loaded:
            loaded[key] = data.load(config)  # type: ignore[arg-type]
        return loaded[key]

    by_trajectory: dict[str, dict[int, Job]] = {}
    for config, overrides in configs:
        job = Job(prepare(config, load), overrides)
        identity = job.prepared.identity
        by_trajectory.setdefault(identity.trajectory, {})[identity.epochs] = job
    chains = tuple(
        tuple(chain[epochs] for epochs in sorted(chain)) for chain in by_trajectory.values()
    )
    return _against_store(chains)


def _against_store(chains: tuple[tuple[Job, ...], ...]) -> Plan:
    state: dict[str, str] = {}
    to_train = saved = to_show = 0
    first = chains[0][0].prepared
    folders = Store(Path(first.config.store)).folders()
    for chain in chains:
        reached = 0
        for job in chain:
            identity = job.prepared.identity
            folder = Path(job.prepared.config.store) / folders.get(identity.digits, identity.name)
            summary = names.read_summary(folder)
            own = 0
            if summary is not None and summary["status"] != "failed":
                state[identity.run] = str(summary["status"])
                reached = max(reached, summary["epochs_done"])
                continue
            if summary is None and (folder / names.CHECKPOINT).exists():
                own = len(names.read_metrics(folder))
            begun = min(max(reached, own), identity.epochs)
            state[identity.run] = (
                "failed" if summary is not None else "continue" if begun else "start"
            )
            to_train += identity.epochs - begun
            saved += begun
            to_show += (identity.epochs - begun) * len(job.prepared.training_set)
            reached = identity.epochs
    return Plan(chains, state, to_train, saved, to_show, _speed(first.config))


def _speed(config: RunConfig) -> float | None:
    """Median images/s of the store's finished runs of the same networks; None without any."""
    speeds = []
    for name in Store(Path(config.store)).folders().values():
        folder = Path(config.store) / name
        try:
            summary, found = names.read_summary(folder), names.read_config(folder)
            if summary is None or summary["status"] != "done":
                continue
            if all(
                getattr(found, key) == getattr(config, key)
                for key in ("generator", "discriminator", "loss", "batch_size", "precision")
            ):
                speeds.append(names.read_metrics(folder)[-1]["images_per_second"])
        except (RunFolderError, LookupError):
            continue
    return statistics.median(speeds) if speeds else None
