"""Every score between two sets of encoded images, and every floor: the same between real images.

A floor is a distribution, which ``as_floor`` sums up, and its draws come from one of two places.
``floors``: the images trained on are divided into two random halves again and again, and every
score is taken between them, at the N of the comparison with generated images. All divisions of a
pool share its distances, so that hundreds cost little more than one. ``bootstrap_floors``: scores
of memorization compare with held-out images, which are drawn again and again to stand on both
sides.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lungan import registry
from lungan.classifiers.measures import resamples
from lungan.config import ScoreConfig
from lungan.errors import DataError
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

Measured = dict[str, float | str]
"""By key: a value, or in words why there is none."""

Rows = NDArray[np.int64]
Values = NDArray[np.float64]
Draws = Values | str
"""A score's values between some pairs of sets, (S,), or in words why it has none."""
Parts = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]


def attempt(keys: Sequence[str], score: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What ``score`` gives, a value for each of ``keys``, or the words of its DataError."""
    try:
        found = score(*arguments)
    except DataError as error:
        return dict.fromkeys(keys, str(error))
    return dict(zip(keys, found if len(keys) > 1 else [found], strict=True))


def compare(real: Encoded, generated: Encoded, config: ScoreConfig) -> Measured:
    """All scores of ``generated`` against as many real images."""
    one, two, seed = real.features, generated.features, config.seed

    def kernel() -> tuple[float, float]:
        size = kernel_subset_size(len(one), config)
        _, spread = kernel_distance(one, two, config.kernel_subsets, size, seed)
        return kernel_distance(one, two, 1, len(one), seed)[0], spread

    keys = ("inception_score", "inception_score.std")
    found = attempt(keys, inception_score, generated.logits, config.inception_splits)
    found |= attempt(["frechet_distance"], frechet_distance, one, two)
    if config.extrapolate:
        found |= attempt(["frechet_distance_infinity"], frechet_distance_infinity, one, two, seed)
    found |= attempt(["kernel_distance", "kernel_distance.std"], kernel)
    found |= attempt(MANIFOLD, manifold_scores, one, two, config.nearest_k)
    for name in config.extra:
        found |= attempt([name], registry.builder("score", name), one, two)
    return found


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
) -> Measured:
    """Floors of every score between disjoint random sets of ``num_images`` real images.

    groups: (count,) of the real images, which then stay on one side of a division, but for one
    group at most; None where they are not known.
    Keys: as ``lungan.scores.catalogue`` has them.
    """
    count = len(real.features)
    # Where there are few more images than 2N, all pools would be nearly the same set.
    pools = 1 if count <= 2 * num_images + 1 else POOLS
    wanted = max(config.floor_splits, FEWEST_SPLITS)
    halves, quarters = (defaultdict[str, list[Draws]](list) for _ in range(2))
    rng = np.random.default_rng([config.seed, count, num_images, 1])
    drawn = itertools.islice(_pools(count, num_images, config, groups), pools)
    for number, rows in enumerate(tqdm(drawn, "floors", pools, leave=False, disable=None)):
        of_pool = None if groups is None else groups[rows]
        pool = _Pool(Encoded(real.features[rows], real.logits[rows]), config)
        num_splits = wanted * (number + 1) // pools - wanted * number // pools
        parts = _halves(len(rows), of_pool, num_splits, rng)
        if number == 0:  # the reference of the comparison itself is among them
            first = np.arange(len(rows)) < len(rows) // 2
            parts[0] = first, ~first
        for key, value in pool.compare_halves(parts).items():
            halves[key].append(value)
        parts = _quarters(len(rows), of_pool, max(num_splits // SPLITS_PER_DIVISION, 1), rng)
        for key, value in pool.compare(parts).items():
            quarters[key].append(value)
    measured: Measured = {}
    for key, values in halves.items():
        measured |= as_floor(key, values, quarters[key], 3)
    return measured


def bootstrap_floors(
    score: Callable[[Rows, Rows, np.random.Generator], Measured],
    num_held_out: int,
    num_images: int,
    config: ScoreConfig,
    groups: Rows | None,
) -> Measured:
    """Floors of scores that compare ``num_images`` images with ``num_held_out`` held-out ones.

    score: of the rows of held-out images that stand for generated and for held-out ones.
    groups: (num_held_out,), which are then drawn whole; None where they are not known.
    Each draw of held-out images is compared with two draws of the others.
    """
    rng = np.random.default_rng([config.seed, num_held_out, num_images])
    draws = defaultdict[str, list[Draws]](list)
    drawn_again = resamples(num_held_out, groups, rng)
    for unseen in itertools.islice(drawn_again, max(config.floor_splits, FEWEST_SPLITS)):
        one, two = (score(rng.integers(0, num_held_out, num_images), unseen, rng) for _ in range(2))
        for key in one:
            pair = [one[key], two[key]]
            reasons = [value for value in pair if isinstance(value, str)]
            draws[key].append(reasons[-1] if reasons else np.array(pair, dtype=np.float64))
    measured: Measured = {}
    for key, values in draws.items():
        measured |= as_floor(key, values, values, 2)
    return measured


def as_floor(
    key: str, draws: Sequence[Draws], of_shared: Sequence[Draws], num_sharing: int
) -> Measured:
    """One score's floor, by key: median, 95 % range, standard deviation and shared variance.

    of_shared: draws of which each ``num_sharing`` in a row were compared with the same images.
    """
    name = floor_key(key)
    if reasons := [each for each in draws if isinstance(each, str)]:
        return {name: reasons[-1]}
    values = np.concatenate([each for each in draws if not isinstance(each, str)])
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975]).tolist()
    found: Measured = {name: middle, f"{name}_low": low, f"{name}_high": high}
    found[f"{name}_std"] = float(values.std())
    if shared := [each for each in of_shared if not isinstance(each, str)]:
        table = np.concatenate(shared).reshape(-1, num_sharing)
        found[f"{key}.floor_shared"] = shared_variance(table)
    return found


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


def _halves(size: int, groups: Rows | None, number: int, rng: np.random.Generator) -> Parts:
    """Random halves of ``size`` images, each beside the other half."""
    halves = np.zeros((number, size), dtype=bool)
    for member in halves:
        member[_order(size, groups, rng)[: size // 2]] = True
    return [(half, ~half) for half in halves]


def _quarters(size: int, groups: Rows | None, number: int, rng: np.random.Generator) -> Parts:
    """Of each of ``number`` divisions of ``size`` images into quarters the 12 pairs, in which each
    quarter is the reference of the three others in turn."""
    parts: Parts = []
    for _ in range(number):
        quarters = np.zeros((4, size), dtype=bool)
        order = _order(size, groups, rng)[: size // 4 * 4]
        for member, rows in zip(quarters, order.reshape(4, -1), strict=True):
            member[rows] = True
        parts += itertools.permutations(quarters, 2)
    return parts


class _Pool:
    """Real images that are compared part with part; what all parts share is computed once."""

    def __init__(self, images: Encoded, config: ScoreConfig) -> None:
        self._features = as_rows("real features", images.features)
        self._logits = images.logits
        self._compact = _compact(self._features)
        self._neighborhoods = Neighborhoods(self._features, config.nearest_k)
        self._config = config

    def compare(self, parts: Parts) -> dict[str, Draws]:
        """By score: its values between the two parts of each pair."""
        affordable = int(MOST_OPERATIONS / self._compact.shape[1] ** 3)
        most = max(FEWEST_SPLITS, affordable) // 3 * 3  # whole rows of comparisons that share
        one, two = (np.array(members) for members in zip(*parts, strict=True))
        found = attempt(["frechet_distance"], _each, frechet_distance, self._compact, parts[:most])
        found |= attempt(["kernel_distance"], kernel_distances, self._features, one, two)
        found |= attempt(MANIFOLD, self._neighborhoods.scores, one, two)
        for name in self._config.extra:
            score = registry.builder("score", name)
            found |= attempt([name], _each, score, self._features, parts)
        return found

    def compare_halves(self, parts: Parts) -> dict[str, Draws]:
        """As ``compare``, with the scores that are taken between halves alone."""
        found = self.compare(parts)
        if self._config.extrapolate:
            score = partial(frechet_distance_infinity, seed=self._config.seed)
            some = parts[:MOST_EXTRAPOLATIONS]
            found |= attempt(["frechet_distance_infinity"], _each, score, self._features, some)
        return found | attempt(["inception_score"], self._inception_scores, parts)

    def _inception_scores(self, parts: Parts) -> Values:
        splits = self._config.inception_splits
        return np.array([inception_score(self._logits[one], splits)[0] for one, _ in parts])


def _each(score: Callable[..., float], rows: Features, parts: Parts) -> Values:
    return np.array([float(score(rows[one], rows[two])) for one, two in parts])


def _compact(features: Features) -> Features:
    """The same rows in as many dimensions as they span at most, all distances kept."""
    if features.shape[1] < len(features):
        return features
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered @ centered.T)
    kept = values > values[-1] * 1e-12
    compact: Features = vectors[:, kept] * np.sqrt(values[kept])
    return compact if kept.any() else features[:, :1]
