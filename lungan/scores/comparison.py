"""Every score between two sets of encoded images, and its floor: the same between real images.

A floor is a distribution. The real images are divided into two random halves again and again, and
every score is taken between them, at the N of the comparison with generated images. All divisions
of a pool share its distances, so that hundreds cost little more than one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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

Measured = dict[str, float | str]
"""By key: a value, or in words why there is none."""

Rows = NDArray[np.int64]
Values = NDArray[np.float64]
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
        if name in found:
            raise ConfigError(f"score.extra={name} has the name of a score of lungan's own")
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
    halves, quarters = defaultdict[str, list[Any]](list), defaultdict[str, list[Any]](list)
    rng = np.random.default_rng([config.seed, count, num_images, 1])
    random_rows = _pools(count, num_images, config, groups)
    for number in tqdm(range(pools), "floors", leave=False, disable=None):
        rows = next(random_rows)
        pool = Encoded(real.features[rows], real.logits[rows])
        num_splits = wanted * (number + 1) // pools - wanted * number // pools
        of_pool = None if groups is None else groups[rows]
        found = _divide(pool, of_pool, num_splits, number == 0, config, rng)
        for into, of_parts in zip((halves, quarters), found, strict=True):
            for key, value in of_parts.items():
                into[key].append(value)
    measured: Measured = {}
    for key, values in halves.items():
        if reasons := [value for value in values if isinstance(value, str)]:
            measured[floor_key(key)] = reasons[-1]
            continue
        measured |= summarize(np.concatenate(values), floor_key(key))
        shared = [value for value in quarters[key] if not isinstance(value, str)]
        if shared:  # three comparisons with each reference
            table = np.concatenate(shared).reshape(-1, 3)
            measured[f"{key}.floor_shared"] = shared_variance(table)
    return measured


def summarize(values: Values, key: str) -> dict[str, float]:
    """Median, 2.5 % and 97.5 % quantiles and standard deviation of values (S,), under ``key``."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975]).tolist()
    spread = float(values.std())
    return {key: middle, f"{key}_low": low, f"{key}_high": high, f"{key}_std": spread}


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


def _divide(
    pool: Encoded,
    groups: Rows | None,
    num_splits: int,
    is_first: bool,
    config: ScoreConfig,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of 2N real images, by score: values (num_splits,) between halves, and (12 D,) between the
    quarters of D divisions, each the reference of the three others in turn.

    is_first: whether the division of the comparison itself, in the order given, begins.
    """
    features = as_rows("real features", pool.features)
    compact = _compact(features)
    neighborhoods = Neighborhoods(features, config.nearest_k)
    size = len(features)

    def each(
        score: Callable[..., float], rows: Features, parts: Parts, most: int | None = None
    ) -> Values:
        return np.array([float(score(rows[a], rows[b])) for a, b in parts[:most]])

    def compare_all(parts: Parts) -> dict[str, Any]:
        affordable = int(MOST_OPERATIONS / compact.shape[1] ** 3)
        most = max(FEWEST_SPLITS, affordable) // 3 * 3  # whole rows of comparisons that share
        one, two = (np.array(members) for members in zip(*parts, strict=True))
        found = attempt(["frechet_distance"], each, frechet_distance, compact, parts, most)
        found |= attempt(["kernel_distance"], kernel_distances, features, one, two)
        found |= attempt(MANIFOLD, neighborhoods.scores, one, two)
        for name in config.extra:
            found |= attempt([name], each, registry.builder("score", name), features, parts)
        return found

    def extrapolate(first: Features, second: Features) -> float:
        return frechet_distance_infinity(first, second, config.seed)

    def inception_scores(parts: Parts) -> Values:
        splits = config.inception_splits
        return np.array([inception_score(pool.logits[a], splits)[0] for a, _ in parts])

    halves = np.zeros((num_splits, size), dtype=bool)
    for member in halves:
        member[_order(size, groups, rng)[: size // 2]] = True
    if is_first:
        halves[0] = np.arange(size) < size // 2
    parts = [(half, ~half) for half in halves]
    of_halves = compare_all(parts)
    if config.extrapolate:
        key = "frechet_distance_infinity"
        of_halves |= attempt([key], each, extrapolate, features, parts, MOST_EXTRAPOLATIONS)
    of_halves |= attempt(["inception_score"], inception_scores, parts)

    parts = []
    for _ in range(max(num_splits // SPLITS_PER_DIVISION, 1)):
        quarters = np.zeros((4, size), dtype=bool)
        order = _order(size, groups, rng)[: size // 4 * 4]
        for member, rows in zip(quarters, order.reshape(4, -1), strict=True):
            member[rows] = True
        parts += itertools.permutations(quarters, 2)
    return of_halves, compare_all(parts)


def _compact(features: Features) -> Features:
    """The same rows in as many dimensions as they span at most, all distances kept."""
    if features.shape[1] < len(features):
        return features
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered @ centered.T)
    kept = values > values[-1] * 1e-12
    compact: Features = vectors[:, kept] * np.sqrt(values[kept])
    return compact if kept.any() else features[:, :1]
