"""Every score between two sets of encoded images, and its floor: the same between real images.

A floor is a distribution. The real images are divided into two random halves again and again, and
every score is taken between them, at the N of the comparison with generated images. All divisions
of a pool share its distances, so that hundreds cost little more than one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lungan import registry
from lungan.config import ScoreConfig
from lungan.errors import ConfigError, DataError
from lungan.scores.catalogue import floor_key
from lungan.scores.distances import (
    Features,
    as_rows,
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    kernel_distance,
    kernel_distances,
)
from lungan.scores.encoders import Encoded
from lungan.scores.prdc import Neighborhoods, manifold_scores

MANIFOLD = ("precision", "recall", "density", "coverage")

FEWEST_SPLITS = 40
"""A 2.5 % quantile of fewer values is a guess."""
POOLS = 10
"""Where there are more real images than twice N: random sets of 2N of them that are divided."""
SPLITS_PER_DIVISION = 5
"""One division into quarters, twelve comparisons of half the size, for so many into halves."""
MOST_EXTRAPOLATIONS = 40
MOST_OPERATIONS = 4e11
"""Of the Fréchet distances of one floor: 45 with 2,048 features, which take minutes otherwise."""

T = TypeVar("T")
Rows = NDArray[np.int64]
Members = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass
class Measures(Generic[T]):
    """Values by key; None where there is a reason instead."""

    values: dict[str, T | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def attempt(self, keys: Sequence[str], compute: Callable[[], Sequence[T]]) -> None:
        """Set ``keys`` to what ``compute`` gives, or to None with its DataError as the reason."""
        try:
            self.values.update(zip(keys, compute(), strict=True))
        except DataError as error:
            self.leave_out(keys, str(error))

    def leave_out(self, keys: Sequence[str], reason: str) -> None:
        self.values.update(dict.fromkeys(keys))
        self.reasons.update(dict.fromkeys(keys, reason))

    def update(self, other: Measures[T], prefix: str = "") -> None:
        self.values.update({prefix + key: value for key, value in other.values.items()})
        self.reasons.update({prefix + key: reason for key, reason in other.reasons.items()})


def compare(real: Encoded, generated: Encoded, config: ScoreConfig) -> Measures[float]:
    """All scores of ``generated`` against as many real images."""
    measures = Measures[float]()
    one, two = real.features, generated.features
    measures.attempt(
        ["inception_score", "inception_score.std"],
        lambda: inception_score(generated.logits, config.inception_splits),
    )
    measures.attempt(["frechet_distance"], lambda: [frechet_distance(one, two)])
    if config.extrapolate:
        measures.attempt(
            ["frechet_distance_infinity"],
            lambda: [frechet_distance_infinity(one, two, config.seed)],
        )

    def kernel() -> list[float]:
        size = kernel_subset_size(len(one), config)
        _, spread = kernel_distance(one, two, config.kernel_subsets, size, config.seed)
        return [kernel_distance(one, two, 1, len(one), config.seed)[0], spread]

    measures.attempt(["kernel_distance", "kernel_distance.std"], kernel)
    measures.attempt(MANIFOLD, lambda: manifold_scores(one, two, config.nearest_k))
    for name in config.extra:
        if name in measures.values:
            raise ConfigError(f"score.extra={name} has the name of a score of lungan's own")
        score = registry.builder("score", name)
        measures.attempt([name], lambda score=score: [float(score(one, two))])  # type: ignore[misc]
    return measures


def kernel_subset_size(num_images: int, config: ScoreConfig) -> int:
    """At most half of the images, so that the subsets differ and their std says something."""
    return min(config.kernel_subset_size, num_images // 2)


def reference_rows(count: int, num_images: int, config: ScoreConfig, groups: Rows | None) -> Rows:
    """Rows of the ``num_images`` reference images that generated ones are compared with.

    They are the same for the same seed and numbers: one half, which all seeds of a study share.
    """
    return next(_pools(count, num_images, config, groups))[:num_images]


def floors(
    real: Encoded, num_images: int, config: ScoreConfig, groups: Rows | None = None
) -> Measures[float]:
    """Floors of every score between disjoint random sets of ``num_images`` real images.

    groups: (count,) of the real images, which then stay on one side of a division, but for one
    group at most; None where they are not known.
    Keys: as ``lungan.scores.catalogue`` has them.
    """
    count = len(real.features)
    # Where there are few more images than 2N, all pools would be nearly the same set.
    pools = 1 if count <= 2 * num_images + 1 else POOLS
    wanted = max(config.floor_splits, FEWEST_SPLITS)
    halves, quarters = defaultdict[str, list[Values]](list), defaultdict[str, list[Values]](list)
    reasons: dict[str, str] = {}
    rng = np.random.default_rng([config.seed, count, num_images, 1])
    random_rows = _pools(count, num_images, config, groups)
    for number in tqdm(range(pools), "floors", leave=False, disable=None):
        rows = next(random_rows)
        pool = _Pool(
            as_rows("real features", real.features[rows]),
            real.logits[rows],
            None if groups is None else groups[rows],
            config,
            rng,
        )
        num_splits = wanted * (number + 1) // pools - wanted * number // pools
        found = pool.compare(*pool.halves(num_splits, first=number == 0), own=True)
        reasons |= found.reasons
        num_divisions = max(num_splits // SPLITS_PER_DIVISION, 1)
        of_quarters = pool.compare(*pool.quarters(num_divisions), own=False)
        for into, measured in ((halves, found), (quarters, of_quarters)):
            for key, value in measured.values.items():
                if value is not None:
                    into[key].append(value)
    measures = Measures[float]()
    for key, values in halves.items():
        if key not in reasons:
            measures.values |= summarize(np.concatenate(values), floor_key(key))
            if key in quarters:  # three comparisons with each reference
                shared = shared_variance(np.concatenate(quarters[key]).reshape(-1, 3))
                measures.values[f"{key}.floor_shared"] = shared
    for key, reason in reasons.items():
        measures.leave_out([floor_key(key)], reason)
    return measures


def summarize(values: Values, key: str) -> dict[str, float | None]:
    """Median, 2.5 % and 97.5 % quantiles and standard deviation of values (S,), under ``key``."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {
        key: float(middle),
        f"{key}_low": float(low),
        f"{key}_high": float(high),
        f"{key}_std": float(values.std()),
    }


def shared_variance(values: Values) -> float:
    """The covariance of values (R, M) that share a reference, a row each, over their variance,
    from 0 to 1."""
    centered = values - values.mean()
    variance = float((centered**2).mean())
    number = values.shape[1]
    products = centered.sum(axis=1) ** 2 - (centered**2).sum(axis=1)
    covariance = float(products.mean()) / (number * (number - 1))
    return min(max(covariance / variance, 0.0), 1.0) if variance > 0 else 0.0


def _pools(count: int, num_images: int, config: ScoreConfig, groups: Rows | None) -> Iterator[Rows]:
    """Random sets of 2N rows without end, of which the first N are the reference's first half."""
    rng = np.random.default_rng([config.seed, count, num_images])
    while True:
        yield _order(count, groups, rng)[: 2 * num_images]


def _order(count: int, groups: Rows | None, rng: np.random.Generator) -> Rows:
    """All rows in random order; where there are groups, group after group."""
    order = rng.permutation(count)
    if groups is None:
        return order
    names, group = np.unique(groups, return_inverse=True)
    place = rng.permutation(len(names))
    return order[np.argsort(place[group[order]], kind="stable")]


@dataclass
class _Pool:
    """2N real images, whose distances serve all of its divisions."""

    features: Features
    logits: NDArray[np.float32]
    groups: Rows | None
    config: ScoreConfig
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self._compact = _compact(self.features)
        self._neighborhoods = Neighborhoods(self.features, self.config.nearest_k)

    def halves(self, count: int, first: bool) -> tuple[Members, Members]:
        """The members of either half in ``count`` divisions, both (count, 2N); ``first``: beginning
        with the division of the comparison."""
        size = len(self.features)
        orders = [_order(size, self.groups, self.rng) for _ in range(count)]
        if first:
            orders[0] = np.arange(size)
        one = np.zeros((count, size), dtype=bool)
        for member, order in zip(one, orders, strict=True):
            member[order[: size // 2]] = True
        return one, ~one

    def quarters(self, count: int) -> tuple[Members, Members]:
        """Every ordered pair of the quarters of ``count`` divisions, both (12 * count, 2N): each is
        the reference of the three others, so that what comparisons with one reference share can be
        seen."""
        size = len(self.features)
        one, two = [], []
        for _ in range(count):
            order = _order(size, self.groups, self.rng)
            member = np.zeros((4, size), dtype=bool)
            for quarter, rows in zip(member, order[: size // 4 * 4].reshape(4, -1), strict=True):
                quarter[rows] = True
            for number in range(4):
                one += [member[number]] * 3
                two += [member[other] for other in range(4) if other != number]
        return np.array(one), np.array(two)

    def compare(self, one: Members, two: Members, own: bool) -> Measures[Values]:
        """Values (S,) by score of S divisions (S, 2N) into two sides.

        own: whether the Inception Scores of the first sides, and the extrapolation, are wanted too.
        """
        config, sides = self.config, list(zip(one, two, strict=True))
        measures = Measures[Values]()

        def each(
            score: Callable[[Features, Features], float], rows: Features, most: int | None = None
        ) -> list[Values]:
            return [np.array([float(score(rows[a], rows[b])) for a, b in sides[:most]])]

        affordable = int(MOST_OPERATIONS / self._compact.shape[1] ** 3)
        most = max(FEWEST_SPLITS, affordable) // 3 * 3  # whole rows of comparisons that share
        measures.attempt(["frechet_distance"], lambda: each(frechet_distance, self._compact, most))
        measures.attempt(["kernel_distance"], lambda: [kernel_distances(self.features, one, two)])
        measures.attempt(MANIFOLD, lambda: list(self._neighborhoods.scores(one, two).T))
        if config.extrapolate and own:
            measures.attempt(
                ["frechet_distance_infinity"],
                lambda: each(
                    lambda a, b: frechet_distance_infinity(a, b, config.seed),
                    self.features,
                    MOST_EXTRAPOLATIONS,
                ),
            )
        for name in config.extra:
            score = registry.builder("score", name)
            measures.attempt([name], lambda score=score: each(score, self.features))  # type: ignore[misc]
        if own:
            splits = config.inception_splits
            measures.attempt(
                ["inception_score"],
                lambda: [np.array([inception_score(self.logits[a], splits)[0] for a in one])],
            )
        return measures


def _compact(features: Features) -> Features:
    """The same rows in as many dimensions as they span at most, all distances kept."""
    if features.shape[1] < len(features):
        return features
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered @ centered.T)
    kept = values > values[-1] * 1e-12
    compact: Features = vectors[:, kept] * np.sqrt(values[kept])
    return compact if kept.any() else features[:, :1]
