"""Two sets of encoded images side by side: every score, with a reason where one cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lungan.config import ScoreConfig
from lungan.errors import DataError
from lungan.scores.encoders import Encoded
from lungan.scores.frechet import frechet_distance, frechet_distance_infinity
from lungan.scores.inception_score import inception_score
from lungan.scores.kernel import kernel_distance
from lungan.scores.memorization import (
    Nearness,
    authenticity,
    copying_statistic,
    distance_ratio,
    share_near,
)
from lungan.scores.prdc import manifold_scores

MANIFOLD = ("precision", "recall", "density", "coverage")
RELATIVE = {
    "memorization_distance_ratio": distance_ratio,
    "memorization_share": share_near,
    "memorization_c_t": copying_statistic,
}
"""What needs held-out images; authenticity does without."""


@dataclass
class Measures:
    """Values by key; None where there is a reason instead."""

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def attempt(self, keys: Sequence[str], compute: Callable[[], Sequence[float]]) -> None:
        """Set ``keys`` to what ``compute`` gives, or to None with its DataError as the reason."""
        try:
            self.values.update(zip(keys, map(float, compute()), strict=True))
        except DataError as error:
            self.leave_out(keys, str(error))

    def leave_out(self, keys: Sequence[str], reason: str) -> None:
        for key in keys:
            self.values[key] = None
            self.reasons[key] = reason


def take(encoded: Encoded, rows: NDArray[np.int64]) -> Encoded:
    return Encoded(encoded.features[rows], encoded.logits[rows])


def compare(real: Encoded, generated: Encoded, config: ScoreConfig) -> Measures:
    """Distances and manifold scores between two sets of the same number of images."""
    measures = Measures()
    one, two = real.features, generated.features
    measures.attempt(["frechet_distance"], lambda: [frechet_distance(one, two)])
    if config.extrapolate:
        measures.attempt(
            ["frechet_distance_infinity"],
            lambda: [frechet_distance_infinity(one, two, config.seed)],
        )

    def kernel() -> list[float]:
        size = kernel_subset_size(len(one), config)
        distance = kernel_distance(one, two, config.kernel_subsets, size, config.seed)
        return [distance.mean, distance.std]

    measures.attempt(["kernel_distance", "kernel_distance.std"], kernel)

    def manifold() -> list[float]:
        scores = manifold_scores(one, two, config.nearest_k)
        return [scores.precision, scores.recall, scores.density, scores.coverage]

    measures.attempt(MANIFOLD, manifold)
    return measures


def kernel_subset_size(num_images: int, config: ScoreConfig) -> int:
    """At most half of the images, so that the subsets differ and their std says something."""
    return min(config.kernel_subset_size, num_images // 2)


def classify(encoded: Encoded, config: ScoreConfig) -> Measures:
    """The Inception Score of one set of images."""
    measures = Measures()

    def score() -> list[float]:
        result = inception_score(encoded.logits, config.inception_splits)
        return [result.mean, result.std]

    measures.attempt(["inception_score", "inception_score.std"], score)
    return measures


def compare_halves(
    real: Encoded, num_images: int, config: ScoreConfig, step: Callable[[], None]
) -> Measures:
    """Every score between disjoint random sets of ``num_images`` real images: mean and std.

    Keys: ``<score>.floor`` and ``<score>.floor_std``, and the Inception Score as ``.real`` and
    ``.real_std``. ``step`` is called after every one of ``config.floor_splits`` splits.
    """
    splits: list[tuple[Measures, Measures]] = []
    for one, two in halves(len(real.features), num_images, config):
        first = take(real, one)
        splits.append((compare(first, take(real, two), config), classify(first, config)))
        step()
    floors = summarize([comparison for comparison, _ in splits], ".floor")
    own = summarize([score for _, score in splits], ".real")
    return Measures(floors.values | own.values, floors.reasons | own.reasons)


def halves(
    count: int, num_images: int, config: ScoreConfig
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Disjoint pairs of ``num_images`` random rows, the same for the same seed and numbers."""
    rng = np.random.default_rng([config.seed, count, num_images])
    orders = [rng.permutation(count) for _ in range(config.floor_splits)]
    return [(order[:num_images], order[num_images : 2 * num_images]) for order in orders]


def summarize(splits: Sequence[Measures], suffix: str) -> Measures:
    """Mean and population std of each score over splits, under ``suffix`` and ``suffix_std``."""
    summary = Measures()
    for key in splits[0].values:
        if key.endswith(".std"):
            continue
        found = [measures.values[key] for measures in splits]
        present = [value for value in found if value is not None]
        keys = [f"{key}{suffix}", f"{key}{suffix}_std"]
        if len(present) == len(found):
            summary.values.update(zip(keys, (_mean(present), float(np.std(present))), strict=True))
        else:
            reason = next(one.reasons[key] for one in splits if key in one.reasons)
            summary.leave_out(keys, reason)
    return summary


def compare_nearness(
    generated: Nearness, held_out: Nearness | None, config: ScoreConfig
) -> Measures:
    """The memorization scores, and their floors between random halves of the held-out images."""
    measures = Measures()
    measures.attempt(["authenticity"], lambda: [authenticity(generated)])
    if held_out is None or len(held_out) < 2:
        reason = "no real images were held out from training to compare with"
        measures.leave_out(list(RELATIVE), reason)
        measures.leave_out(["authenticity.floor", "authenticity.floor_std"], reason)
        return measures
    _relate(measures, generated, held_out)
    rng = np.random.default_rng([config.seed, len(held_out)])
    middle = len(held_out) // 2
    splits = []
    for _ in range(config.floor_splits):
        order = rng.permutation(len(held_out))
        one, two = held_out.take(order[:middle]), held_out.take(order[middle:])
        split = Measures()
        split.attempt(["authenticity"], lambda half=one: [authenticity(half)])  # type: ignore[misc]
        _relate(split, one, two)
        splits.append(split)
    floors = summarize(splits, ".floor")
    return Measures(measures.values | floors.values, measures.reasons | floors.reasons)


def _relate(measures: Measures, one: Nearness, two: Nearness) -> None:
    for key, score in RELATIVE.items():
        measures.attempt([key], lambda score=score: [score(one, two)])  # type: ignore[misc]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
