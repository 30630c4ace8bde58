"""Every score: its key, name, direction, words, range and scale, said once.

The order of the catalogue is the order of every table and figure. A score's key is
``<encoder>.<score>``; the pixel audit has no encoder and stands under ``pixels``. Beside a score
stand keys with one of these endings:

``.floor``: median of the same score between disjoint sets of real images. ``.floor_low`` and
``.floor_high``: its 2.5 % and 97.5 % quantiles. ``.floor_std``: its standard deviation.
``.floor_shared``: from 0 to 1, the share of the floor's variance that comes from the reference
half. All seeds of a study are compared with one reference half, so where they equal real images
the mean of k seeds has the variance ``floor_std² (shared + (1 - shared) / k)`` about the floor.
``.real``, ``.real_low``, ``.real_high``, ``.real_std``: the same of N real images' own Inception
Score, which looks at one side only. ``.std``: over the parts that the score itself averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_type_hints

FLOOR, REAL = "floor", "real"

SATELLITES = (
    ".std",
    *(f".{kind}{spread}" for kind in (REAL, FLOOR) for spread in ("", "_low", "_high", "_std")),
    ".floor_shared",
)
"""Endings of keys that belong to another score instead of being one."""


@dataclass(frozen=True, slots=True)
class Score:
    """``direction``: ``higher`` or ``lower`` is better, ``target`` where ``best`` lies between
    worse values on both sides, ``floor`` where that is real images' own, ``unknown`` for a score
    that the catalogue does not have.
    good: the direction in a table's few words.
    limit: whether the floor is where a perfect generator would arrive.
    low, high: the least and the greatest possible value, None where there is none.
    scale: ``log`` for a positive and skewed score, which is compared by ratios; else ``linear``.
    around_zero: whether the floor scatters round 0, so that a ratio to it means nothing.
    """

    title: str
    direction: str
    good: str = ""
    best: float | None = None
    limit: bool = False
    low: float | None = None
    high: float | None = None
    scale: str = "linear"
    around_zero: bool = False

    @property
    def hint(self) -> str:
        """The direction in words, for headings."""
        if self.direction in ("higher", "lower"):
            return f"{self.direction} is better"
        if self.direction == "floor":
            return "best at the floor"
        return f"best {self.best:g}" if self.best is not None else "no direction known"


_distance = partial(
    Score, direction="lower", good="low", best=0.0, limit=True, low=0.0, scale="log"
)
# The estimate falls on both sides of 0 where the distributions are equal.
_unbiased = partial(
    Score, direction="lower", good="low, may be negative", best=0.0, limit=True, around_zero=True
)
_share = partial(Score, direction="higher", good="high", best=1.0, limit=True, low=0.0, high=1.0)
_of_classifier = partial(Score, direction="higher", good="high", best=1.0, low=0.0, high=1.0)
_fault = partial(Score, direction="lower", best=0.0, low=0.0, high=1.0)

CATALOGUE = {
    "frechet_distance": _distance("Fréchet distance"),
    "frechet_distance_infinity": _unbiased("Fréchet distance at N→∞"),
    "kernel_distance": _unbiased("Kernel distance"),
    "precision": _share("Precision"),
    "recall": _share("Recall"),
    "density": Score("Density", "higher", "high", limit=True, low=0.0),
    "coverage": _share("Coverage"),
    "memorization_distance_ratio": Score(
        "Memorization: distance ratio", "target", "not far below 1", best=1.0, low=0.0
    ),
    "memorization_share": _fault("Memorization: share too near", good="not far above 0.01"),
    # Images of noise are authentic too: above the floor is no better than at it.
    "authenticity": Score("Authenticity", "floor", "not far below its floor", low=0.0, high=1.0),
    "memorization_c_t": Score(
        "Memorization: C_T", "target", "not far below 0", best=0.0, around_zero=True
    ),
    "near_copies": _fault("Near copies", good="not above its floor"),
    "auc": _of_classifier("AUC"),
    "average_precision": _of_classifier("Average precision"),
    "accuracy": _of_classifier("Accuracy"),
    "balanced_accuracy": _of_classifier("Balanced accuracy"),
    "sensitivity_at_95_specificity": _of_classifier("Sensitivity at 95 % specificity"),
    "specificity": _of_classifier("Specificity at that threshold"),
    "expected_calibration_error": _fault("Calibration error", good="low"),
    "inception_score": Score("Inception Score", "higher", "high", low=1.0, scale="log"),
}

LEADING = "frechet_distance"
"""The one score by which a run's best epoch is chosen, and of which a report's answer is."""

_ORDER = {name: index for index, name in enumerate(CATALOGUE)}
"""Of lungan's own scores."""


def add(name: str, score: Score) -> None:
    """Say what a plug-in's score is called and which way is better: ``score.extra=[name]``.

    It stands before the Inception Score in tables. Without this a score has no direction, and so
    no verdict.
    """
    CATALOGUE[name] = score


def add_recorded(described: Mapping[str, Any]) -> None:
    """``add`` plug-ins' scores as a run folder keeps them (``asdict`` of a Score, by name), where
    the plug-ins are not at hand. What the catalogue has stays, and what is no Score is left out."""
    kinds = get_type_hints(Score)
    for name, values in described.items():
        if (
            name not in CATALOGUE
            and isinstance(values, dict)
            and set(values) == set(kinds)
            and all(isinstance(values[key], kind) for key, kind in kinds.items())
            and values["direction"] in ("higher", "lower", "target", "floor")
            and values["title"].isprintable()
        ):
            add(name, Score(**values))


def is_score(key: str) -> bool:
    """Whether a flat key is a score of its own, not the floor or spread of another."""
    return not key.endswith(SATELLITES)


def is_own(name: str) -> bool:
    """Whether a score is lungan's own, so that no plug-in's can have its name."""
    return name in _ORDER


def is_inception_score(key: str) -> bool:
    """Inception Scores are never shown alone: see docs/scores.md."""
    return name_of(key) == "inception_score"


def encoder_of(key: str) -> str:
    """``domain`` of ``domain.frechet_distance``; empty where a key has none."""
    return key.rpartition(".")[0]


def name_of(key: str) -> str:
    """``frechet_distance`` of ``domain.frechet_distance``."""
    return key.rpartition(".")[2]


def describe(key: str) -> Score:
    name = name_of(key)
    return CATALOGUE.get(name) or Score(name.replace("_", " "), "unknown")


def title(key: str) -> str:
    encoder = encoder_of(key)
    return f"{describe(key).title} ({encoder})" if encoder else describe(key).title


def floor_key(key: str) -> str:
    """The key of what real images give: ``<key>.floor``, or ``<key>.real`` for Inception Scores."""
    return f"{key}.{REAL if is_inception_score(key) else FLOOR}"


def order(key: str) -> tuple[str, float, str]:
    """Sort key: by encoder, then in the catalogue's order; scores that it does not have stand
    before the Inception Score, which says the least and so comes last."""
    return encoder_of(key), _ORDER.get(name_of(key), _ORDER["inception_score"] - 0.5), key
