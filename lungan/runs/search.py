"""A search: trials from an Optuna study that lies in the store, each an ordinary run there."""

from __future__ import annotations

import collections
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lungan.config import RunConfig
from lungan.config.compose import split_sweeps
from lungan.config.rules import at_least, rule
from lungan.errors import ConfigError, RunFolderError
from lungan.files import DamagedError, unwritable
from lungan.runs.folder import SWEEPS, Run, exclusive, write_manifest
from lungan.runs.jobs import do_tasks, wait_for
from lungan.runs.prepare import load_and_keep, prepare
from lungan.runs.run import StopSignal
from lungan.runs.store import Owner, Store, live_owner
from lungan.runs.sweep import PlannedRun

FOREIGN_SECONDS = 3600.0
"""How long a trial of another machine may show no live run before it is asked for again."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Request:
    """What a search is asked for, by the names of the command's options, with their rules.

    trials: of the study, those of earlier commands and other processes included.
    rungs: epochs at which a trial must be among the best ``1 / reduction`` so far to go on.
    """

    sweep: str
    trials: int = at_least(1, most=10**6)
    objective: str
    direction: str
    sampler: str
    sampler_seed: int = at_least(0)
    rungs: list[int] = rule(
        "rising numbers of epochs", lambda rungs: rungs == sorted(n for n in {*rungs} if n > 0)
    )
    reduction: int = at_least(2)


@dataclass
class Search:
    """A study and this process's part in it.

    compose: the config of the values of one trial, given as overrides.

    Raises: ConfigError where a study of this name asks for something else.
    """

    request: Request
    store: Path
    command: str
    compose: Callable[[dict[str, str]], RunConfig]
    space: dict[str, BaseDistribution]
    stop: StopSignal
    num_failed: int = 0

    def __post_init__(self) -> None:
        self.study = self._open_study()

    def run(self) -> None:
        """Do trials until the study has its number. Raises: KeyboardInterrupt."""
        with exclusive(self.store):
            # Once a command: what fails always must not keep it from ending.
            self._ask_again(TrialState.FAIL)
        while True:
            with exclusive(self.store):
                self._ask_again(TrialState.RUNNING)
                trial = self._ask()
            if trial is None:
                return
            self._try(trial)

    def describe(self) -> str:
        """What was found, for a terminal."""
        trials = self.study.get_trials(deepcopy=False)
        count = collections.Counter(trial.state for trial in trials)
        ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        said = ", ".join(f"{count[each]} {each.name.lower()}" for each in ended if count[each])
        if not count[TrialState.COMPLETE]:
            return f"search {self.request.sweep}: {said}; no trial has a score"
        best = self.study.best_trial
        values = " ".join(f"{key}={_text(value)}" for key, value in best.params.items())
        return (
            f"search {self.request.sweep}: {said}\n"
            f"best: {self.request.objective} {best.value:.6g} with {values} "
            f"({best.user_attrs['folder']})\n"
            f"It is the best of {count[ended[0]] + count[ended[1]]} by this very score, so its "
            "score flatters it: repeat it and a\nrival with new seeds before comparing: "
            f"python -m lungan.train --multirun {values} seed=1,2,3,4,5 ..."
        )

    def _open_study(self) -> Study:
        """The study in the store, begun or gone on with."""
        path = self.store / SWEEPS / f"{self.request.sweep}.optuna.log"
        with exclusive(self.store):
            path.parent.mkdir(exist_ok=True)
            study = self._read_study(path)
            for key in ("objective", "rungs"):
                value = getattr(self.request, key)
                self._check_same(f"--{key}", study.user_attrs.get(key, value), value)
                study.set_user_attr(key, value)
        self._check_same("--direction", study.direction.name.lower(), self.request.direction)
        for trial in study.get_trials(deepcopy=False):
            for key, before in trial.distributions.items():
                if key in self.space:
                    self._check_same(key, _kind(before), _kind(self.space[key]))
        return study

    def _read_study(self, path: Path) -> Study:
        """Raises: RunFolderError where the study's file is damaged or cannot be written."""
        try:
            study = optuna.create_study(
                study_name=self.request.sweep,
                storage=JournalStorage(_Journal(path)),
                direction=StudyDirection[self.request.direction.upper()],
                load_if_exists=True,
            )
            study.get_trials()
        except (OSError, RunFolderError):
            raise
        except Exception as error:  # Optuna believes what the file holds
            raise DamagedError(
                path,
                f"Optuna cannot read it ({type(error).__name__})",
                "remove it to begin the search anew; runs that are done are not trained again",
            ) from error
        return study

    def _check_same(self, key: str, before: Any, value: Any) -> None:
        if before != value:
            raise ConfigError(
                f"the search {self.request.sweep} was begun with {key} {before}, got {value}; "
                "choose another --sweep, or repeat that"
            )

    def _ask(self) -> Trial | None:
        """The next trial; None where the study has enough. Under the store's lock."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = [trial for trial in trials if trial.state is TrialState.WAITING]
        given = len(trials) - len(waiting) - len(self._replaced())
        if not waiting and given >= self.request.trials:
            return None
        # From seed and number, so that a search that was stopped goes on as if it had not been.
        self.study.sampler = sampler(self.request.sampler, self.request.sampler_seed, len(trials))
        trial = self.study.ask(self.space)
        trial.set_user_attr("owner", asdict(Owner.this_process()))
        return trial

    def _ask_again(self, state: TrialState) -> None:
        """Queue the values of the trials that failed, or whose process died."""
        replaced = self._replaced()
        for trial in self.study.get_trials(deepcopy=False, states=(state,)):
            if trial.number in replaced or not (state is TrialState.FAIL or self._is_lost(trial)):
                continue
            replaced.append(trial.number)
            self.study.set_user_attr("replaced", replaced)
            self.study.enqueue_trial(trial.params)
            if state is TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _replaced(self) -> list[int]:
        return list(self.study.user_attrs.get("replaced", []))

    def _is_lost(self, trial: FrozenTrial) -> bool:
        owner, folder = trial.user_attrs.get("owner"), trial.user_attrs.get("folder")
        dead = Owner(**owner).is_dead_here() if owner is not None else None
        if dead is not None or trial.datetime_start is None:
            return bool(dead)
        if time.time() - trial.datetime_start.timestamp() <= FOREIGN_SECONDS:
            return False
        return folder is None or live_owner(self.store / folder) is None

    def _try(self, trial: Trial) -> None:
        """Train and score one trial, and tell the study. Raises: ConfigError where no run has the
        objective."""
        try:
            state, score = self._train(trial)
        except ConfigError:
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        self.num_failed += state is TrialState.FAIL
        self.study.tell(trial, score, state)

    def _train(self, trial: Trial) -> tuple[TrialState, float | None]:
        """Rung by rung; gives what to tell the study."""
        values = {key: _text(value) for key, value in trial.params.items()}
        log.info("trial %d: %s", trial.number, " ".join(map("=".join, values.items())))
        objective, score = self.request.objective, math.nan
        for epochs in self.request.rungs or (None,):
            run = self._run(trial, values | ({"epochs": str(epochs)} if epochs else {}))
            if run is None or not run.has_result:
                return TrialState.FAIL, None
            if run.status == "diverged":  # told as the worst, so that the search turns away from it
                return TrialState.PRUNED, None
            if objective not in run.scores:
                have = ", ".join(key for key in run.scores if "." in key) or "no scores"
                raise ConfigError(
                    f"--objective must be a score of the runs ({have}), got {objective}"
                )
            if run.scores[objective] is None:
                reasons = run.summary["scores"]["reasons"]
                log.error("trial %d: %s is null: %s", trial.number, objective, reasons)
                return TrialState.FAIL, None
            score = float(run.scores[objective])
            log.info("trial %d: %s %.6g", trial.number, objective, score)
            if epochs is not None:
                trial.report(score, epochs)
                if epochs != self.request.rungs[-1] and not self._is_promising(epochs, score):
                    log.info("trial %d: not among the best at %d epochs", trial.number, epochs)
                    return TrialState.PRUNED, None
        return TrialState.COMPLETE, score

    def _run(self, trial: Trial, overrides: dict[str, str]) -> Run | None:
        """Train the run of these overrides; its result, None where it has none or cannot begin."""
        try:
            config = self.compose(overrides)
            planned = PlannedRun.of(prepare(config, load_and_keep), overrides, config.device)
        except ConfigError as error:
            log.error("trial %d: %s", trial.number, error)
            return None
        entry = planned.entry(Store(self.store))
        write_manifest(self.store, self.request.sweep, "", self.command, [entry])
        trial.set_user_attr("folder", entry["folder"])
        busy = do_tasks([planned], self.request.sweep, self.stop)
        wait_for(busy, self.request.sweep, self.stop)
        return Store(self.store).run(planned.identity)

    def _is_promising(self, epochs: int, score: float) -> bool:
        """Asynchronous successive halving: is it among the best of those that came this far?

        Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning".
        """
        trials = self.study.get_trials(deepcopy=False)
        sign = -1 if self.request.direction == "maximize" else 1
        reached = sorted(
            sign * trial.intermediate_values[epochs]
            for trial in trials
            if epochs in trial.intermediate_values
        )
        places = math.ceil(len(reached) / self.request.reduction)
        return sign * score <= reached[places - 1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


class _Journal(JournalFileBackend):
    """Optuna's file of a study, whose lock the system drops when its holder dies, and whose last
    line is taken away where a full disk or a kill tore it: Optuna would write on behind it, and
    could then read neither."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = FileLock(f"{path}.held")
        with self._held:
            self._drop_torn_line()
            super().__init__(str(path), self._held)  # type: ignore[arg-type]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            with self._held:
                self._drop_torn_line()
            raise unwritable(self._path, error) from error

    def _drop_torn_line(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("r+b") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            if end < len(content):
                file.truncate(end)


def search_space(overrides: Sequence[str]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """The keys that a search chooses, from Hydra's sweep syntax, and the other overrides.

    Raises: ConfigError where an override cannot be parsed, or none has a range or choices.
    """
    sweeps, others = split_sweeps(overrides)
    space = {key: _distribution(key, sweep) for key, sweep in sweeps.items()}
    for key, distribution in space.items():
        if distribution.single():
            raise ConfigError(f"{key} has one value to search; give a range or choices")
    if not space:
        raise ConfigError(
            "nothing to search: give a range or choices, such as 'lr=interval(1e-4,1e-2)' or "
            "optimizer=adam,rmsprop"
        )
    return space, others


def _distribution(key: str, override: Any) -> BaseDistribution:
    """override: as Hydra describes it, of several values or a range."""
    sweep = override.value()
    is_log = "log" in getattr(sweep, "tags", ())  # a glob has none
    try:
        if override.is_interval_sweep():
            ends, step = [sweep.start, sweep.end], None
        elif override.is_range_sweep():
            values = list(sweep.range())
            if not values:
                raise ConfigError(f"{override.input_line} is an empty range; give start < stop")
            ends, step = sorted((values[0], values[-1])), abs(sweep.step)
        else:
            return CategoricalDistribution(tuple(override.sweep_string_iterator()))
        if all(isinstance(end, int) for end in ends):
            return IntDistribution(ends[0], ends[1], log=is_log, step=int(step or 1))
        low, high = map(float, ends)
        return FloatDistribution(low, high, log=is_log, step=step and float(step))
    except ValueError as error:
        raise ConfigError(f"{key} cannot be searched: {error}") from error


def _kind(distribution: BaseDistribution) -> str:
    """What Optuna wants to stay the same in a study: the ends of a range may move."""
    if isinstance(distribution, CategoricalDistribution):
        return f"among {','.join(map(str, distribution.choices))}"
    whole = "whole " if isinstance(distribution, IntDistribution) else ""
    return f"{whole}numbers{' on a log scale' if getattr(distribution, 'log', False) else ''}"


def sampler(name: str, seed: int, number: int) -> BaseSampler:
    """For trial ``number`` alone: what it draws follows from ``seed`` and the trials so far."""
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "random":
        return RandomSampler(seed=own_seed)
    return TPESampler(seed=own_seed, constant_liar=True)
