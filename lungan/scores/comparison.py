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
from collections.abc import Callable, Sequence
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
Draws = list[float | str]
"""A score's values between some pairs of sets, or in words why it has none."""
Parts = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Pairs of parts of a set of rows, (S, P) each."""


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
    rng = np.random.default_rng([config.seed, count, num_images])
    return _order(count, groups, rng)[:num_images]


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
    of_halves, of_quarters = (defaultdict[str, Draws](list) for _ in range(2))
    of_pools = np.random.default_rng([config.seed, count, num_images])
    rng = np.random.default_rng([config.seed, count, num_images, 1])
    for number in tqdm(range(pools), "floors", leave=False, disable=None):
        rows = _order(count, groups, of_pools)[: 2 * num_images]
        its_groups = None if groups is None else groups[rows]
        num_splits = wanted * (number + 1) // pools - wanted * number // pools
        halves = _halves(len(rows), its_groups, num_splits, rng)
        if number == 0:  # the reference of the comparison itself is among them
            halves[0] = np.arange(len(rows)) < len(rows) // 2
        divisions = max(num_splits // SPLITS_PER_DIVISION, 1)
        quarters = _quarters(len(rows), its_groups, divisions, rng)
        pool = Encoded(real.features[rows], real.logits[rows])
        found = _compare_parts(pool, (halves, ~halves), quarters, config)
        for draws, of_pool in zip((of_halves, of_quarters), found, strict=True):
            for key, values in of_pool.items():
                draws[key] += [values] if isinstance(values, str) else list(values)
    measured: Measured = {}
    for key, half_draws in of_halves.items():
        measured |= as_floor(key, half_draws, of_quarters[key], 3)
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
    draws = defaultdict[str, Draws](list)
    drawn_again = resamples(num_held_out, groups, rng)
    for unseen in itertools.islice(drawn_again, max(config.floor_splits, FEWEST_SPLITS)):
        for _ in range(2):
            found = score(rng.integers(0, num_held_out, num_images), unseen, rng)
            for key, value in found.items():
                draws[key].append(value)
    measured: Measured = {}
    for key, values in draws.items():
        measured |= as_floor(key, values, values, 2)
    return measured


def as_floor(key: str, draws: Draws, of_shared: Draws, num_sharing: int) -> Measured:
    """One score's floor, by key: median, 95 % range, standard deviation and shared variance.

    of_shared: draws of which each ``num_sharing`` in a row were compared with the same images.
    """
    name = floor_key(key)
    if reasons := [each for each in draws if isinstance(each, str)]:
        return {name: reasons[-1]}
    values = np.array(draws, dtype=np.float64)
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975]).tolist()
    found: Measured = {name: middle, f"{name}_low": low, f"{name}_high": high}
    found[f"{name}_std"] = float(values.std())
    if shared := [each for each in of_shared if not isinstance(each, str)]:
        found[f"{key}.floor_shared"] = shared_variance(np.reshape(shared, (-1, num_sharing)))
    return found


def shared_variance(values: Features) -> float:
    """The covariance of values (R, M) that share a reference, a row each, over their variance,
    from 0 to 1."""
    centered = values - values.mean()
    variance = float((centered**2).mean())
    number = values.shape[1]
    products = centered.sum(axis=1) ** 2 - (centered**2).sum(axis=1)
    covariance = float(products.mean()) / (number * (number - 1))
    return min(max(covariance / variance, 0.0), 1.0) if variance > 0 else 0.0


def _order(count: int, groups: Rows | None, rng: np.random.Generator) -> Rows:
    """All rows in random order; where there are groups, group after group."""
    order = rng.permutation(count)
    if groups is None:
        return order
    names, group = np.unique(groups, return_inverse=True)
    place = rng.permutation(len(names))
    return order[np.argsort(place[group[order]], kind="stable")]


def _halves(
    size: int, groups: Rows | None, number: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(number, size): of each division of ``size`` images into random halves the first."""
    halves = np.zeros((number, size), dtype=bool)
    for member in halves:
        member[_order(size, groups, rng)[: size // 2]] = True
    return halves


def _quarters(size: int, groups: Rows | None, number: int, rng: np.random.Generator) -> Parts:
    """Of each of ``number`` divisions of ``size`` images into quarters the 12 pairs, in which each
    quarter is the reference of the three others in turn."""
    pairs: list[tuple[NDArray[np.bool_], ...]] = []
    for _ in range(number):
        quarter = np.full(size, -1)
        quarter[_order(size, groups, rng)[: size // 4 * 4]] = np.repeat(range(4), size // 4)
        pairs += itertools.permutations(quarter == np.arange(4)[:, None], 2)
    one, two = zip(*pairs, strict=True)
    return np.array(one), np.array(two)


def _compare_parts(
    images: Encoded, halves: Parts, quarters: Parts, config: ScoreConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By score, its values between the two parts of each pair of ``images``, or in words why there
    are none: for all scores between halves, and for those that have a reference between quarters.

    What all parts share is computed once.
    """
    features = images.features.astype(np.float64)
    compact = _compact(features)
    neighborhoods = Neighborhoods(features, config.nearest_k)
    affordable = int(MOST_OPERATIONS / compact.shape[1] ** 3)
    most = max(FEWEST_SPLITS, affordable) // 3 * 3  # whole rows of comparisons that share

    def between(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> dict[str, Any]:
        some = one[:most], two[:most]
        found = attempt(["frechet_distance"], _each, frechet_distance, compact, *some)
        found |= attempt(["kernel_distance"], kernel_distances, features, one, two)
        found |= attempt(MANIFOLD, neighborhoods.scores, one, two)
        for name in config.extra:
            score = registry.builder("score", name)
            found |= attempt([name], _each, score, images.features, one, two)
        return found

    def inception_scores(parts: NDArray[np.bool_]) -> list[float]:
        return [inception_score(images.logits[one], config.inception_splits)[0] for one in parts]

    found = between(*halves)
    if config.extrapolate:
        at_infinity = partial(frechet_distance_infinity, seed=config.seed)
        some = [part[:MOST_EXTRAPOLATIONS] for part in halves]
        found |= attempt(["frechet_distance_infinity"], _each, at_infinity, features, *some)
    found |= attempt(["inception_score"], inception_scores, halves[0])
    return found, between(*quarters)


def _each(
    score: Callable[..., float], rows: Features, first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> list[float]:
    return [float(score(rows[one], rows[two])) for one, two in zip(first, second, strict=True)]


def _compact(features: Features) -> Features:
    """The same rows in as many dimensions as they span at most, all distances kept."""
    if features.shape[1] < len(features):
        return features
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered @ centered.T)
    kept = values > values[-1] * 1e-12
    compact: Features = vectors[:, kept] * np.sqrt(values[kept])
    return compact if kept.any() else features[:, :1]
