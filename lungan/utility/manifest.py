"""A study's manifest: what was fixed before its first result, and what was added afterwards."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from lungan.errors import ConfigError, shown
from lungan.files import read_json, write_json
from lungan.results.read import Run
from lungan.runs.folder import UTILITY, Scalar, flatten
from lungan.utility.arms import ARMS

ENDING = ".study.json"

Made = TypeVar("Made")

_ARM = frozenset(ARMS)
_DESIGN = {
    "arms": [_ARM],
    "fractions": [(int, float)],
    "rare": str,
    "prevalences": [(int, float)],
    "ratios": [(int, float)],
    "first_seed?": int,
    "seeds": int,
}
_SHAPE = {
    "name": str,
    "created": str,
    "command": str,
    "asked": _ARM,
    "controls": [_ARM],
    "score": str,
    "planned": _DESIGN,
    "settings": dict,
    "results_before": int,
    "added": [{"time": str, "results_before": int, "design": _DESIGN}],
    "trials": [str],
    "weights?": {...: str},
}


Place: TypeAlias = tuple[Scalar, ...]
"""Arm, fraction, share of the rare class and ratio of a trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Which trials a study has: every arm at every fraction, share of the rare class and ratio that
    it has, with ``seeds`` seeds from ``first_seed`` on."""

    arms: tuple[str, ...]
    fractions: tuple[float, ...]
    rare: str = ""
    prevalences: tuple[float, ...] = ()
    ratios: tuple[float, ...] = (1.0,)
    first_seed: int = 0
    seeds: int = 5

    @property
    def places(self) -> set[Place]:
        """Those that each seed has a trial of."""
        return {
            (arm, fraction, share, ratio)
            for arm in self.arms
            for fraction in self.fractions
            for share in self.prevalences or [None]
            for ratio in (self.ratios if ARMS[arm].uses_ratio else [None])
        }

    def check(self, num_classes: int, batch_size: int) -> None:
        """Raises: ConfigError for an arm that is unknown or cannot be trained in this design."""
        for name in self.arms:
            if name not in ARMS:
                raise ConfigError(f"--arms must be among {', '.join(ARMS)}, got {name}")
            arm = ARMS[name]
            if self.rare and arm.uses_generator and not arm.balanced:
                fit = [
                    other.name
                    for other in ARMS.values()
                    if other.balanced or not (other.uses_generator or other.is_unlabelled)
                ]
                raise ConfigError(
                    f"--imbalance makes synthetic images of {self.rare} alone, which {name} has no "
                    f"use for; --arms may have {', '.join(fit)}"
                )
            if arm.is_unlabelled and (self.rare or max(self.fractions) == 1):
                raise ConfigError(
                    f"{name} takes the training images that a fraction leaves out as unlabelled "
                    "ones; give --fractions below 1, without --imbalance, or leave it out of --arms"
                )
            if arm.balanced and batch_size < 2 * num_classes:
                raise ConfigError(
                    f"--batch-size must be at least {2 * num_classes}, two images of each class, "
                    f"for {name}; got {batch_size}"
                )

    def holds(self, trial: Mapping[str, Scalar]) -> bool:
        """Whether a trial of this config is of the design, whatever its seed."""
        return _place(trial) in self.places

    def with_more(self, other: Design) -> Design:
        """What both have."""
        return Design(
            arms=tuple(dict.fromkeys([*self.arms, *other.arms])),
            fractions=tuple(sorted({*self.fractions, *other.fractions})),
            rare=self.rare,
            prevalences=tuple(sorted({*self.prevalences, *other.prevalences})),
            ratios=tuple(sorted({*self.ratios, *other.ratios})),
            first_seed=self.first_seed,
            seeds=max(self.seeds, other.seeds),
        )


@dataclass(frozen=True, slots=True)
class Addition:
    """A later design, when it was asked for, and how many of the study's results there were."""

    time: str
    results_before: int
    design: Design


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """asked, controls, score: the question, fixed with ``planned`` before the first result: the arm
    helps where it is better than each control, over all places of the design together.
    settings: recipe, data and generators. results_before: how many of the study's results there
    were when it was written. trials: ids of the study's trials, as far as they are known. weights:
    hashes of the generators that they use, by run folder, which may be gone when all is done."""

    name: str
    created: str
    command: str
    asked: str
    controls: tuple[str, ...]
    score: str
    planned: Design
    settings: dict[str, Any]
    results_before: int
    added: tuple[Addition, ...] = ()
    trials: tuple[str, ...] = ()
    weights: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def design(self) -> Design:
        """All that was ever asked for."""
        design = self.planned
        for addition in self.added:
            design = design.with_more(addition.design)
        return design

    @property
    def has_more_seeds(self) -> bool:
        """Whether seeds were added after a look at results."""
        return self.design.seeds > self.planned.seeds

    def check_same(
        self, design: Design, question: tuple[str, tuple[str, ...]] | None, settings: dict[str, Any]
    ) -> None:
        """Check that a command asks what this study asks; its fractions, ratios, arms and number of
        seeds may be others. question: None for the study's.

        Raises: ConfigError for another question, first seed or rare class, or other settings.
        """

        def asks(
            design: Design, question: tuple[str, tuple[str, ...]], settings: dict[str, Any]
        ) -> dict[str, Scalar]:
            return flatten(settings) | {
                "question": f"{question[0]}:{','.join(question[1])}",
                "seed": design.first_seed,
                "imbalance": design.rare or None,
            }

        own = self.asked, self.controls
        had = asks(self.planned, own, {key: self.settings.get(key) for key in settings})
        asked_now = asks(design, question or own, settings)
        keys = dict.fromkeys([*asked_now, *had])
        if differing := [key for key in keys if had.get(key) != asked_now.get(key)]:
            before, after = (
                ", ".join(f"{key}={shown(each.get(key))}" for key in differing)
                for each in (had, asked_now)
            )
            raise ConfigError(
                f"study {self.name} has {before}, and this command {after}; give --study NAME to "
                "begin another study"
            )

    def is_planned(self, trial: Run) -> bool:
        """Whether the trial was fixed before the first result."""
        return self.results_before == 0 and self.is_of_plan(trial)

    def is_of_plan(self, trial: Run) -> bool:
        """Whether the trial is of the first design and its seeds."""
        seed = trial.config.get("seed")
        first = self.planned.first_seed
        is_early = isinstance(seed, int) and first <= seed < first + self.planned.seeds
        return is_early and self.planned.holds(trial.config)

    def whole_seeds(self, trials: Sequence[Run]) -> list[int]:
        """The planned seeds of which every planned trial is among ``trials``."""
        found: dict[int, set[Place]] = {}
        for trial in filter(self.is_of_plan, trials):
            found.setdefault(int(str(trial.config["seed"])), set()).add(_place(trial.config))
        places = self.planned.places
        return sorted(seed for seed, own in found.items() if own == places)


def parse_question(text: str, arms: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The asked arm and its controls, from ``ASKED:CONTROL,CONTROL``.

    Raises: ConfigError where an arm of the question is not among ``arms``.
    """
    asked, _, rest = text.partition(":")
    controls = tuple(name.strip() for name in rest.split(",") if name.strip())
    for name in (asked, *controls):
        if name not in arms:
            raise ConfigError(
                f"--question must be of arms of the study, {', '.join(arms)}, got {name or 'none'}"
            )
    if not controls or asked in controls:
        raise ConfigError(f"--question must be ASKED:CONTROL,CONTROL, got {text}")
    return asked, controls


def _place(trial: Mapping[str, Scalar]) -> Place:
    return tuple(trial.get(key) for key in ("arm", "data.fraction", "data.prevalence", "ratio"))


def manifest_path(store: Path, name: str) -> Path:
    return store / UTILITY / f"{name}{ENDING}"


def read_manifest(path: Path) -> Manifest:
    """Raises: RunFolderError where it is absent or damaged."""
    values = _tuples(read_json(path, _SHAPE))
    values["planned"] = _make(Design, values["planned"])
    for added in values["added"]:
        added["design"] = _make(Design, added["design"])
    values["added"] = tuple(_make(Addition, added) for added in values["added"])
    return _make(Manifest, values)


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, however deep."""
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _make(kind: type[Made], values: Mapping[str, Any]) -> Made:
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{key: one for key, one in values.items() if key in fields})


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Raises: RunFolderError where the store cannot be written."""
    path = manifest_path(store, manifest.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(manifest))


def manifests(store: Path) -> Sequence[Path]:
    """Those of a store, by name."""
    return sorted((store / UTILITY).glob(f"*{ENDING}"))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
