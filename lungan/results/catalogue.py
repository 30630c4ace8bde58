"""What each score is called and which way is better: the one place that says so.

The order of the catalogue is the order of every table and figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

SATELLITES = (".floor_std", ".floor", ".std", ".real_std", ".real")
"""Endings of keys that belong to another score instead of being one."""


@dataclass(frozen=True, slots=True)
class Score:
    """``direction``: ``higher`` or ``lower`` is better, ``target`` where ``best`` lies between
    worse values on both sides, ``floor`` where that is real images' own, ``unknown`` for a score
    that the catalogue does not have.
    limit: whether the floor is where a perfect generator would arrive.
    """

    title: str
    direction: str
    best: float | None = None
    limit: bool = False

    @property
    def hint(self) -> str:
        """The direction in words, for headings."""
        if self.direction in ("higher", "lower"):
            return f"{self.direction} is better"
        if self.direction == "floor":
            return "best at the floor"
        return f"best {self.best:g}" if self.best is not None else "no direction known"


CATALOGUE = {
    "frechet_distance": Score("Fréchet distance", "lower", 0.0, limit=True),
    "frechet_distance_infinity": Score("Fréchet distance at N→∞", "lower", 0.0, limit=True),
    "kernel_distance": Score("Kernel distance", "lower", 0.0, limit=True),
    "precision": Score("Precision", "higher", 1.0, limit=True),
    "recall": Score("Recall", "higher", 1.0, limit=True),
    "density": Score("Density", "higher", limit=True),
    "coverage": Score("Coverage", "higher", 1.0, limit=True),
    "memorization_distance_ratio": Score("Memorization: distance ratio", "target", 1.0),
    "memorization_share": Score("Memorization: share too near", "lower", 0.0),
    # Images of noise are authentic too: above the floor is no better than at it.
    "authenticity": Score("Authenticity", "floor"),
    "memorization_c_t": Score("Memorization: C_T", "target", 0.0),
    "auc": Score("AUC", "higher", 1.0),
    "accuracy": Score("Accuracy", "higher", 1.0),
    "balanced_accuracy": Score("Balanced accuracy", "higher", 1.0),
    "sensitivity_at_95_specificity": Score("Sensitivity at 95 % specificity", "higher", 1.0),
    "expected_calibration_error": Score("Calibration error", "lower", 0.0),
    "inception_score": Score("Inception Score", "higher"),
}

_ORDER = {name: index for index, name in enumerate(CATALOGUE)}


@lru_cache(maxsize=4096)
def is_score(key: str) -> bool:
    """Whether a flat key is a score of its own, not the floor or spread of another."""
    return not key.endswith(SATELLITES)


def is_inception_score(key: str) -> bool:
    """Inception Scores are never shown alone: see docs/scores.md."""
    return split_key(key)[1] == "inception_score"


def split_key(key: str) -> tuple[str, str]:
    """``domain.frechet_distance`` to (``domain``, ``frechet_distance``)."""
    encoder, _, name = key.rpartition(".")
    return encoder, name


@lru_cache(maxsize=4096)
def describe(key: str) -> Score:
    name = split_key(key)[1]
    return CATALOGUE.get(name) or Score(name.replace("_", " "), "unknown")


def title(key: str) -> str:
    encoder, _ = split_key(key)
    return f"{describe(key).title} ({encoder})" if encoder else describe(key).title


@lru_cache(maxsize=4096)
def order(key: str) -> tuple[str, float, str]:
    """Sort key: by encoder, then in the catalogue's order; scores that it does not have stand
    before the Inception Score, which says the least and so comes last."""
    encoder, name = split_key(key)
    return encoder, _ORDER.get(name, len(_ORDER) - 1.5), key
