"""The trials of a study, each done once by whoever claims it first."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lungan.errors import ConfigError
from lungan.results.arms import ARMS, BASELINE
from lungan.runs.folder import read_summary
from lungan.runs.store import Busy, Claimed, Finished, Store
from lungan.utility.generators import Generators
from lungan.utility.trial import Bench, Settings, Trial

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """run_ids: of all trials of the study. num_busy: left to other processes and not done yet."""

    run_ids: set[str]
    num_done: int
    num_reused: int
    num_busy: int


def plan_trials(
    generators: Generators, arms: Sequence[str], ratios: Sequence[float], num_seeds: int
) -> list[Trial]:
    """Seed by seed, so that a study that was stopped early has whole seeds; the baseline first.

    Raises: ConfigError for an unknown arm.
    """
    for name in arms:
        if name not in ARMS:
            raise ConfigError(f"--arms must be among {', '.join(ARMS)}, got {name}")
    chosen = [arm for name, arm in ARMS.items() if name in arms or name == BASELINE]
    return [
        Trial(arm, generators.of(fraction, seed), ratio, seed)
        for seed in range(num_seeds)
        for fraction in generators.sets
        for arm in chosen
        for ratio in (ratios if arm.extra else [None])
    ]


def describe_plan(trials: Sequence[Trial], settings: Settings, root: Path) -> str:
    """How many trials there are, and how many of them the store has."""
    done = _num_done(trials, settings, root)
    real, recipe = settings.generators.real, settings.recipe
    dropped = sum(real.num_dropped.values())
    line = (
        f"{len(trials)} trials, {done} of them done: {recipe.classifier} classifier, "
        f"{recipe.updates} updates of {recipe.batch_size} images each, selected on "
        f"{len(real.validation)} images, tested on {len(real.test)}"
    )
    if dropped:
        line += f"; {dropped} copies of training or test images, or images of the same patients, "
        line += "are left out of these"
    if about_val := real.image_set.facts.about_val:
        line += f"\nnote: {about_val}"
    return line


def run_trials(trials: Sequence[Trial], settings: Settings, root: Path) -> Outcome:
    """Do what is left to do. Stopped anywhere, the same call goes on.

    Raises: RunFolderError where the store cannot be used.
    """
    store, bench = Store(root), Bench(settings, root)
    num_done = num_reused = 0
    elsewhere: list[Trial] = []
    with tqdm(total=len(trials), unit="trial", disable=None) as bar:
        for trial in trials:
            found = store.claim(trial.identity(settings))
            match found:
                case Finished():
                    num_reused += 1
                case Busy():
                    log.info("%s is under way elsewhere", trial.describe())
                    elsewhere.append(trial)
                case Claimed():
                    try:
                        began = time.perf_counter()
                        summary = bench.do(trial, found.folder)
                    finally:
                        found.claim.release()
                    num_done += 1
                    auc = summary["scores"]["values"].get("auc")
                    words = "diverged" if auc is None else f"AUC {auc:.4f}"
                    log.info("%s: %s, %.0f s", trial.describe(), words, time.perf_counter() - began)
            bar.update()
    run_ids = {trial.identity(settings).run for trial in trials}
    num_busy = len(elsewhere) - _num_done(elsewhere, settings, root)
    return Outcome(run_ids, num_done, num_reused, num_busy)


def _num_done(trials: Sequence[Trial], settings: Settings, root: Path) -> int:
    folders = (root / trial.identity(settings).name for trial in trials)
    return sum(read_summary(folder) is not None for folder in folders)
