"""Every score between two sets of encoded images, with a reason where one cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lungan import registry
from lungan.config import ScoreConfig
from lungan.errors import ConfigError, DataError
from lungan.scores.encoders import Encoded
from lungan.scores.frechet import frechet_distance, frechet_distance_infinity
from lungan.scores.inception_score import InceptionScore, inception_score
from lungan.scores.kernel import kernel_distance
from lungan.scores.prdc import manifold_scores

MANIFOLD = ("precision", "recall", "density", "coverage")


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

    def update(self, other: Measures) -> None:
        self.values.update(other.values)
        self.reasons.update(other.reasons)


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
        spread = kernel_distance(one, two, config.kernel_subsets, size, config.seed).std
        return [kernel_distance(one, two, 1, len(one), config.seed).mean, spread]

    measures.attempt(["kernel_distance", "kernel_distance.std"], kernel)

    def manifold() -> list[float]:
        scores = manifold_scores(one, two, config.nearest_k)
        return [scores.precision, scores.recall, scores.density, scores.coverage]

    measures.attempt(MANIFOLD, manifold)
    for name in config.extra:
        if name in measures.values:
            raise ConfigError(f"score.extra={name} has the name of a score of lungan's own")
        measures.attempt([name], lambda name=name: [extra(name, one, two)])  # type: ignore[misc]
    return measures


def kernel_subset_size(num_images: int, config: ScoreConfig) -> int:
    """At most half of the images, so that the subsets differ and their std says something."""
    return min(config.kernel_subset_size, num_images // 2)


def classify(encoded: Encoded, config: ScoreConfig) -> Measures:
    """The Inception Score of one set of images."""
    measures = Measures()

    def score() -> list[float]:
        result = inception(encoded.logits, config)
        return [result.mean, result.std]

    measures.attempt(["inception_score", "inception_score.std"], score)
    return measures


def inception(logits: NDArray[np.float32], config: ScoreConfig) -> InceptionScore:
    if logits.shape[1] < 2:
        raise DataError("the encoder has no classes: it was trained without labels of two or more")
    return inception_score(logits, config.inception_splits)


def extra(name: str, real: NDArray[np.floating], generated: NDArray[np.floating]) -> float:
    """A plug-in's score of two sets of features (N, D)."""
    return float(registry.builder("score", name)(real, generated))
