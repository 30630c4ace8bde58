"""The trials of a study as tasks, each done once by whoever claims it first: this process, the jobs
of a launcher, or other commands that share the store."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from lungan.classifiers.train import Recipe
from lungan.config import DataConfig, DiscriminatorConfig, rules
from lungan.device import choose_threads, resolve_device
from lungan.errors import LunganError, RunFolderError
from lungan.generation.source import Source, read_source
from lungan.runs.folder import SWEEPS, Run
from lungan.runs.jobs import Launcher, Task
from lungan.runs.run import StopSignal
from lungan.runs.store import Store
from lungan.training.loop import Interrupted
from lungan.utility.arms import ARMS
from lungan.utility.generators import GeneratorSet
from lungan.utility.images import Scenario, read_real
from lungan.utility.runner import TrialRunner
from lungan.utility.trial import Settings, Trial

PLAIN = ("positive", "precision", "tested_on", "tuned", "first_seed")
"""The settings that a job takes as they are; it reads the images itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTask(Task):
    """threads: of the CPU; 0 is a job's share of the cores."""

    trial: Trial
    settings: Settings
    runner: TrialRunner
    threads: int

    @classmethod
    def of(
        cls,
        trial: Trial,
        settings: Settings,
        root: Path,
        runner: TrialRunner,
        device: str,
        threads: int,
    ) -> Self:
        """root: the trials' store."""
        return cls(
            identity=trial.identity(settings),
            store=root,
            device=device,
            uses_cpu=settings.device.type == "cpu",
            trial=trial,
            settings=settings,
            runner=runner,
            threads=threads,
        )

    def describe(self, _study: str, /) -> str:
        return self.trial.describe()

    def do(self, _study: str, _stop: StopSignal, /) -> Run:
        found = Store(self.store).claim(self.identity)
        if isinstance(found, Run):
            return found
        try:
            return Run(found.folder, self.runner.do(self.trial, found.folder), reused=False)
        except LunganError:
            raise
        except Exception:  # a fault of lungan's own, or of the machine's
            log.exception("%s failed", self.trial.describe())
            raise
        finally:
            found.claim.release()

    def values(self) -> dict[str, Any]:
        trial, settings = self.trial, self.settings
        generators = dataclasses.asdict(dataclasses.replace(trial.generators, by_class={}))
        sources = trial.generators.by_class.items()
        return {
            "arm": trial.arm.name,
            "ratio": trial.ratio,
            "seed": trial.seed,
            "generators": generators
            | {"by_class": {name: str(source.path) for name, source in sources}},
            "settings": {key: getattr(settings, key) for key in PLAIN}
            | {"recipe": dataclasses.asdict(settings.recipe)}
            | {"data": dataclasses.asdict(settings.real.data)},
            "threads": self.threads,
        }

    @classmethod
    def again(cls, values: Mapping[str, Any], device: str, share: int, /) -> Self:
        torch.set_num_threads(choose_threads(values["threads"], share))
        shared = json.dumps(values["settings"], sort_keys=True)
        settings, runner = _read_settings(shared, device, values["store"])
        made = dict(values["generators"])
        made["scenario"] = Scenario(**made["scenario"])
        chosen = made["discriminator"]
        made["discriminator"] = rules.parse_choice(DiscriminatorConfig, "discriminator", chosen)
        if made["by_class"]:
            made["by_class"] = {name: _read(path) for name, path in made["by_class"].items()}
            made["weights"] = {name: one.weights_hash for name, one in made["by_class"].items()}
        generators = GeneratorSet(**made)
        trial = Trial(ARMS[values["arm"]], generators, values["ratio"], values["seed"])
        root = Path(values["store"])
        return cls.of(trial, settings, root, runner, device, values["threads"])


@functools.lru_cache(maxsize=1)
def _read_settings(shared: str, device: str, root: str) -> tuple[Settings, TrialRunner]:
    """shared: as JSON. Kept for the next job, since the trials of a study share their images."""
    values = json.loads(shared)
    settings = Settings(
        real=read_real(rules.parse_choice(DataConfig, "data", values.pop("data"))),
        recipe=Recipe(**values.pop("recipe")),
        device=resolve_device(device),
        **values,
    )
    return settings, TrialRunner(settings, Path(root))


@functools.lru_cache(maxsize=8)
def _read(path: str) -> Source:
    return read_source(Path(path))


Jobs = list[tuple[TrialTask, ...]]


def plan_jobs(
    trials: Sequence[Trial], settings: Settings, root: Path, device: str, threads: int
) -> Jobs:
    """A job for the trials of one seed and scenario, which lie beside each other and share real and
    synthetic images and the real-only classifier. root: the trials' store."""
    runner = TrialRunner(settings, root)
    tasks = [TrialTask.of(trial, settings, root, runner, device, threads) for trial in trials]

    def shared(task: TrialTask) -> tuple[int, Scenario]:
        return task.trial.seed, task.trial.generators.scenario

    return [tuple(job) for _, job in itertools.groupby(tasks, shared)]


def do_trials(jobs: Jobs, study: str, launcher: Launcher) -> None:
    """Do every trial once. Stopped anywhere, the same call goes on.

    Raises: RunFolderError where a trial has no result then; KeyboardInterrupt where it was stopped.
    """
    root, tasks = jobs[0][0].store, list(itertools.chain(*jobs))

    def lacking() -> list[TrialTask]:
        store = Store(root)
        return [task for task in tasks if not store.run(task.identity).has_result]

    if not lacking():
        return
    (root / SWEEPS).mkdir(parents=True, exist_ok=True)
    stop = StopSignal(after="the trials under way")
    try:
        with stop.installed():
            launcher.run(jobs, study, stop)
    except Interrupted:
        raise KeyboardInterrupt from None  # a trial has no checkpoint, which the other speaks of
    if left := lacking():
        raise RunFolderError(
            f"{len(left)} of {len(tasks)} trials have no result, such as {left[0].identity.name}; "
            f"why is in {root / SWEEPS / study}.ledger.jsonl, and the same command tries "
            "them again"
        )
