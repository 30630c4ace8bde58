"""A study's manifest: what was fixed before its first result, and what was added afterwards."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungan.files import read_json, write_json
from lungan.results.read import Run, Scalar
from lungan.runs.folder import UTILITY

ENDING = ".study.json"

_DESIGN = {
    "arms": [str],
    "fractions": [(int, float)],
    "rare": str,
    "prevalences": [(int, float)],
    "ratios": [(int, float)],
    "seeds": int,
}
_SHAPE = {
    "name": str,
    "created": str,
    "command": str,
    "asked": str,
    "controls": [str],
    "score": str,
    "planned": _DESIGN,
    "settings": dict,
    "results_before": int,
    "added": [{"time": str, "results_before": int, "design": _DESIGN}],
    "trials": [str],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Which trials a study has: every arm at every fraction, share of the rare class and ratio that
    it has, with seeds from 0 on."""

    arms: tuple[str, ...]
    fractions: tuple[float, ...]
    rare: str = ""
    prevalences: tuple[float, ...] = ()
    ratios: tuple[float, ...] = (1.0,)
    seeds: int = 5

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Design:
        lists = ("arms", "fractions", "prevalences", "ratios")
        fields: dict[str, Any] = {
            key: tuple(one) if key in lists else one for key, one in values.items()
        }
        return cls(**fields)

    def as_json(self) -> dict[str, Any]:
        return {
            "arms": list(self.arms),
            "fractions": list(self.fractions),
            "rare": self.rare,
            "prevalences": list(self.prevalences),
            "ratios": list(self.ratios),
            "seeds": self.seeds,
        }

    def holds(self, trial: Mapping[str, Scalar]) -> bool:
        """Whether a trial of this config is of the design, whatever its seed."""
        prevalence, ratio = trial.get("data.prevalence"), trial.get("ratio")
        return (
            trial.get("arm") in self.arms
            and trial.get("data.fraction") in self.fractions
            and (prevalence in self.prevalences if self.prevalences else prevalence is None)
            and (ratio is None or ratio in self.ratios)
        )

    def with_more(self, other: Design) -> Design:
        """What both have."""
        return Design(
            arms=tuple(dict.fromkeys([*self.arms, *other.arms])),
            fractions=tuple(sorted({*self.fractions, *other.fractions})),
            rare=self.rare,
            prevalences=tuple(sorted({*self.prevalences, *other.prevalences})),
            ratios=tuple(sorted({*self.ratios, *other.ratios})),
            seeds=max(self.seeds, other.seeds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """asked, controls, score: the question, fixed with ``planned`` before the first result: the arm
    helps where it is better than each control, over all places of the design together.
    settings: recipe, data and generators. results_before: how many of the study's results there
    were when it was written. added: later designs, each with its time and how many there were then.
    trials: ids of the study's trials, as far as they are known."""

    name: str
    created: str
    command: str
    asked: str
    controls: tuple[str, ...]
    score: str
    planned: Design
    settings: dict[str, Any]
    results_before: int
    added: tuple[tuple[str, int, Design], ...] = ()
    trials: tuple[str, ...] = ()

    @property
    def design(self) -> Design:
        """All that was ever asked for."""
        design = self.planned
        for _, _, more in self.added:
            design = design.with_more(more)
        return design

    @property
    def has_more_seeds(self) -> bool:
        """Whether seeds were added after a look at results."""
        return self.design.seeds > self.planned.seeds

    def is_planned(self, trial: Run) -> bool:
        """Whether the trial was fixed before the first result."""
        seed = trial.config.get("seed")
        is_early = isinstance(seed, int) and seed < self.planned.seeds
        return self.results_before == 0 and is_early and self.planned.holds(trial.config)


def manifest_path(store: Path, name: str) -> Path:
    return store / UTILITY / f"{name}{ENDING}"


def read_manifest(path: Path) -> Manifest:
    """Raises: RunFolderError where it is absent or damaged."""
    values = read_json(path, _SHAPE)
    added = tuple(
        (one["time"], one["results_before"], Design.of(one["design"])) for one in values["added"]
    )
    changes = {
        "controls": tuple(values["controls"]),
        "planned": Design.of(values["planned"]),
        "added": added,
        "trials": tuple(values["trials"]),
    }
    return Manifest(**{key: values[key] for key in _SHAPE} | changes)


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Raises: RunFolderError where the store cannot be written."""
    added = [
        {"time": time, "results_before": number, "design": design.as_json()}
        for time, number, design in manifest.added
    ]
    path = manifest_path(store, manifest.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            **{key: getattr(manifest, key) for key in _SHAPE},
            "controls": list(manifest.controls),
            "planned": manifest.planned.as_json(),
            "added": added,
            "trials": list(manifest.trials),
        },
    )


def manifests(store: Path) -> Sequence[Path]:
    """Those of a store, by name."""
    return sorted((store / UTILITY).glob(f"*{ENDING}"))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
