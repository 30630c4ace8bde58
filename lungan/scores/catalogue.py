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

from dataclasses import dataclass
from functools import lru_cache

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
    asks: the question that the score answers. good: the direction in a table's few words.
    limit: whether the floor is where a perfect generator would arrive.
    low, high: the least and the greatest possible value, None where there is none.
    scale: ``log`` for a positive and skewed score, which is compared by ratios; else ``linear``.
    around_zero: whether the floor scatters round 0, so that a ratio to it means nothing.
    """

    title: str
    direction: str
    asks: str = ""
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


def _distance(title: str, asks: str) -> Score:
    return Score(title, "lower", asks, "low", best=0.0, limit=True, low=0.0, scale="log")


def _unbiased(title: str, asks: str) -> Score:
    """A distance whose estimate falls on both sides of 0 where the distributions are equal."""
    return Score(
        title, "lower", asks, "low, may be negative", best=0.0, limit=True, around_zero=True
    )


def _share(title: str, asks: str) -> Score:
    return Score(title, "higher", asks, "high", best=1.0, limit=True, low=0.0, high=1.0)


def _classifier(title: str, asks: str) -> Score:
    return Score(title, "higher", asks, "high", best=1.0, low=0.0, high=1.0)


CATALOGUE = {
    "frechet_distance": _distance(
        "Fréchet distance", "how far apart are Gaussians fitted to the features?"
    ),
    "frechet_distance_infinity": _unbiased(
        "Fréchet distance at N→∞",
        "how far apart would the Gaussians be with infinitely many images?",
    ),
    "kernel_distance": _unbiased(
        "Kernel distance", "how far apart are the features, without a Gaussian?"
    ),
    "precision": _share("Precision", "do generated images lie where real ones do?"),
    "recall": _share("Recall", "are there generated images wherever real ones are?"),
    "density": Score(
        "Density",
        "higher",
        "how many real images' neighborhoods hold a generated image?",
        "high",
        limit=True,
        low=0.0,
    ),
    "coverage": _share("Coverage", "how many real images have a generated image near?"),
    "memorization_distance_ratio": Score(
        "Memorization: distance ratio",
        "target",
        "are generated images nearer to training images than unseen real ones are?",
        "not far below 1",
        best=1.0,
        low=0.0,
    ),
    "memorization_share": Score(
        "Memorization: share too near",
        "lower",
        "how many are nearer than the nearest 1 % of unseen real images?",
        "not far above 0.01",
        best=0.0,
        low=0.0,
        high=1.0,
    ),
    # Images of noise are authentic too: above the floor is no better than at it.
    "authenticity": Score(
        "Authenticity",
        "floor",
        "how many are farther from a training image than that image's own neighbor?",
        "not far below its floor",
        low=0.0,
        high=1.0,
    ),
    "memorization_c_t": Score(
        "Memorization: C_T",
        "target",
        "are they nearer to training images than unseen ones, as a z-score over cells?",
        "not far below 0",
        best=0.0,
        around_zero=True,
    ),
    "near_copies": Score(
        "Near copies",
        "lower",
        "how many look like a training image, moved, brightened, blurred or mirrored?",
        "not above its floor",
        best=0.0,
        low=0.0,
        high=1.0,
    ),
    "auc": _classifier("AUC", "how often does a positive image get the higher probability?"),
    "average_precision": _classifier(
        "Average precision", "of the images with the highest probabilities, how many are positive?"
    ),
    "accuracy": _classifier("Accuracy", "how many images are recognized?"),
    "balanced_accuracy": _classifier(
        "Balanced accuracy", "how many images of a class are recognized, on average over classes?"
    ),
    "sensitivity_at_95_specificity": _classifier(
        "Sensitivity at 95 % specificity", "how many positives are found at 5 % false alarms?"
    ),
    "specificity": _classifier(
        "Specificity at that threshold", "how many negatives are left alone by it?"
    ),
    "expected_calibration_error": Score(
        "Calibration error",
        "lower",
        "how far are probabilities from how often they come true?",
        "low",
        best=0.0,
        low=0.0,
        high=1.0,
    ),
    "inception_score": Score(
        "Inception Score",
        "higher",
        "is the classifier sure of each image, and does it see many classes?",
        "high",
        low=1.0,
        scale="log",
    ),
}

_ORDER: dict[str, float] = {name: index for index, name in enumerate(CATALOGUE)}


def add(name: str, score: Score) -> None:
    """Say what a plug-in's score is called and which way is better: ``score.extra=[name]``.

    It stands before the Inception Score in tables. Without this a score has no direction, and so
    no verdict.
    """
    CATALOGUE[name] = score
    _ORDER.setdefault(name, _ORDER["inception_score"] - 0.5)
    describe.cache_clear()
    order.cache_clear()


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


def floor_key(key: str) -> str:
    """The key of what real images give: ``<key>.floor``, or ``<key>.real`` for Inception Scores."""
    return f"{key}.{REAL if is_inception_score(key) else FLOOR}"


@lru_cache(maxsize=4096)
def order(key: str) -> tuple[str, float, str]:
    """Sort key: by encoder, then in the catalogue's order; scores that it does not have stand
    before the Inception Score, which says the least and so comes last."""
    encoder, name = split_key(key)
    return encoder, _ORDER.get(name, _ORDER["inception_score"] - 0.5), key
