"""An Optuna study that lies in the store: what it is asked, and what it samples with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study

from lungan.config import RunConfig
from lungan.config.search_space import Dimension
from lungan.errors import ConfigError
from lungan.runs import manifest
from lungan.runs.claim import exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for.

    compose: the config of the values of one trial, given as overrides.
    num_trials: of the study, those of earlier commands and other processes included.
    rungs: epochs at which a trial must be among the best ``1 / reduction`` so far to go on.
    """

    store: Path
    sweep: str
    command: str
    compose: Callable[[dict[str, str]], RunConfig]
    space: Sequence[Dimension]
    objective: str
    direction: Literal["minimize", "maximize"]
    sampler: str
    seed: int
    num_trials: int
    rungs: tuple[int, ...]
    reduction: int


def open_study(request: Request, space: dict[str, BaseDistribution]) -> Study:
    """The study in the store, begun or gone on with.

    Raises: ConfigError where a study of this name asks for something else.
    """
    path = request.store / manifest.SWEEPS / f"{request.sweep}.optuna.log"
    with exclusive(request.store):
        path.parent.mkdir(exist_ok=True)
        study = optuna.create_study(
            study_name=request.sweep,
            storage=JournalStorage(JournalFileBackend(str(path))),
            direction=request.direction,
            load_if_exists=True,
        )
        asked = {"objective": request.objective, "rungs": list(request.rungs)}
        for key, value in asked.items():
            before = study.user_attrs.get(key, value)
            if before != value:
                raise _other(request.sweep, f"--{key}", before, value)
            study.set_user_attr(key, value)
    if study.direction.name.lower() != request.direction:
        before = study.direction.name.lower()
        raise _other(request.sweep, "--direction", before, request.direction)
    for trial in study.get_trials(deepcopy=False):
        for key, before in trial.distributions.items():
            if key in space and _kind(before) != _kind(space[key]):
                raise _other(request.sweep, key, _kind(before), _kind(space[key]))
    return study


def distribution(dimension: Dimension) -> BaseDistribution:
    """Raises: ConfigError where the range is empty or impossible."""
    low, high, step = dimension.low, dimension.high, dimension.step
    try:
        if dimension.choices:
            return CategoricalDistribution(dimension.choices)
        if dimension.whole:
            return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
        return FloatDistribution(low, high, log=dimension.log, step=step)
    except ValueError as error:
        raise ConfigError(f"{dimension.key} cannot be searched: {error}") from error


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


def _other(sweep: str, key: str, before: Any, value: Any) -> ConfigError:
    return ConfigError(
        f"the search {sweep} was begun with {key} {before}, got {value}; "
        "choose another --sweep, or repeat that"
    )
