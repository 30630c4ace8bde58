"""The floors of scores: what they are between real images.

A floor is a distribution. The real images are divided into two random halves again and again, and
every score is taken between them, at the N of the comparison with generated images. All divisions
of a pool share its distances, so that hundreds cost little more than one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungan.config import ScoreConfig
from lungan.errors import DataError
from lungan.scores.comparison import MANIFOLD, Measures, extra, inception
from lungan.scores.encoders import Encoded
from lungan.scores.features import Features, as_rows
from lungan.scores.frechet import frechet_distance, frechet_distance_infinity
from lungan.scores.kernel import kernel_distances
from lungan.scores.memorization import (
    Nearness,
    authenticity,
    copying_statistic,
    distance_ratio,
    share_near,
)
from lungan.scores.prdc import Neighborhoods

RELATIVE = {
    "memorization_distance_ratio": distance_ratio,
    "memorization_share": share_near,
    "memorization_c_t": copying_statistic,
}
"""What needs held-out images; authenticity does without, but its floor does not."""

FEWEST_SPLITS = 40
"""A 2.5 % quantile of fewer values is a guess."""
POOLS = 10
"""Where there are more real images than twice N: random sets of 2N of them that are divided."""
SPLITS_PER_DIVISION = 5
"""One division into quarters, twelve comparisons of half the size, for so many into halves."""
MOST_EXTRAPOLATIONS = 40
MOST_OPERATIONS = 4e11
"""Of the Fréchet distances of one floor: 45 with 2,048 features, which take minutes otherwise."""

FEWEST_HELD_OUT = 20
FEWEST_HELD_OUT_FOR_SHARE = 100
"""The nearest 1 % of fewer images is less than one image."""


def reference_rows(
    count: int, num_images: int, config: ScoreConfig, groups: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Rows of the ``num_images`` reference images that generated ones are compared with.

    They are the same for the same seed and numbers: one half, which all seeds of a study share.
    """
    return next(_pools(count, num_images, config, groups))[:num_images]


def compare_halves(
    real: Encoded,
    num_images: int,
    config: ScoreConfig,
    groups: NDArray[np.int64] | None = None,
    step: Callable[[], None] = lambda: None,
) -> Measures:
    """Floors of every score between disjoint random sets of ``num_images`` real images.

    groups: (count,) of the real images, which then stay on one side of a division, but for one
    group at most; None where they are not known.
    Keys: as ``lungan.scores.catalogue`` has them. ``step`` is called after each of
    ``num_pools`` pools.
    """
    count = len(real.features)
    pools = num_pools(count, num_images)
    wanted = max(config.floor_splits, FEWEST_SPLITS)
    halves: dict[str, list[NDArray[np.float64]]] = {}
    quarters: dict[str, list[NDArray[np.float64]]] = {}
    reasons: dict[str, str] = {}
    rng = np.random.default_rng([config.seed, count, num_images, 1])
    for number, rows in zip(range(pools), _pools(count, num_images, config, groups), strict=False):
        num_splits = wanted * (number + 1) // pools - wanted * number // pools
        pool = _Pool(
            as_rows("real features", real.features[rows]),
            real.logits[rows],
            None if groups is None else groups[rows],
            config,
            rng,
        )
        _collect(halves, reasons, pool.scores(pool.halves(num_splits, first=number == 0)))
        num_divisions = max(num_splits // SPLITS_PER_DIVISION, 1)
        _collect(quarters, {}, pool.scores(pool.quarters(num_divisions), own=False))
        step()
    floors = Measures()
    for key, found in halves.items():
        if key in reasons:
            continue
        if key == "inception_score":
            floors.values |= summarize(np.concatenate(found), f"{key}.real")
            continue
        floors.values |= summarize(np.concatenate(found), f"{key}.floor")
        if key in quarters:
            floors.values[f"{key}.floor_shared"] = _shared(quarters[key])
    for key, reason in reasons.items():
        floors.leave_out([f"{key}.{'real' if key == 'inception_score' else 'floor'}"], reason)
    return floors


def num_pools(count: int, num_images: int) -> int:
    """How many sets of 2N are divided: one where they would be nearly the same set."""
    return 1 if count <= 2 * num_images + 1 else POOLS


def summarize(values: NDArray[np.float64], key: str) -> dict[str, float | None]:
    """Median, 2.5 % and 97.5 % quantiles and standard deviation of values (S,), under ``key``."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {
        key: float(middle),
        f"{key}_low": float(low),
        f"{key}_high": float(high),
        f"{key}_std": float(values.std()),
    }


def compare_nearness(
    generated: Nearness,
    held_out: Nearness | None,
    config: ScoreConfig,
    groups: NDArray[np.int64] | None = None,
) -> Measures:
    """The memorization scores, and their floors: what unseen real images would give.

    The floor draws N images and as many held-out ones as there are from the held-out images, with
    replacement, so that N, the training images and the number of held-out images are those of the
    score. groups: (H,) of the held-out images, which are then drawn whole.
    """
    measures = Measures()
    measures.attempt(["authenticity"], lambda: [authenticity(generated)])
    if held_out is None or len(held_out) < FEWEST_HELD_OUT:
        reason = (
            "no real images were held out from training to compare with"
            if held_out is None
            else f"too few held-out images for a verdict: {len(held_out)}, at least "
            f"{FEWEST_HELD_OUT} are needed"
        )
        measures.leave_out([*RELATIVE, "authenticity.floor"], reason)
        return measures
    wanted = dict(RELATIVE)
    if len(held_out) < FEWEST_HELD_OUT_FOR_SHARE:
        del wanted["memorization_share"]
        measures.leave_out(
            ["memorization_share"],
            f"the nearest 1 % of {len(held_out)} held-out images is less than one image; at least "
            f"{FEWEST_HELD_OUT_FOR_SHARE} are needed",
        )
    for key, score in wanted.items():
        measures.attempt([key], lambda score=score: [score(generated, held_out)])  # type: ignore[misc]

    def draw(made: NDArray[np.int64], unseen: NDArray[np.int64]) -> Measures:
        found = Measures()
        one, two = held_out.take(made), held_out.take(unseen)
        for key, score in wanted.items():
            found.attempt([key], lambda score=score: [score(one, two)])  # type: ignore[misc]
        # Authenticity compares with no held-out image, so the floor's own error is put in here.
        again = unseen[rng.integers(0, len(unseen), len(generated))]
        found.values["authenticity"] = authenticity(held_out.take(again))
        return found

    rng = np.random.default_rng([config.seed, len(held_out), len(generated)])
    measures.update(bootstrap_floors(draw, len(held_out), len(generated), config, groups, rng))
    return measures


def bootstrap_floors(
    score: Callable[[NDArray[np.int64], NDArray[np.int64]], Measures],
    num_held_out: int,
    num_images: int,
    config: ScoreConfig,
    groups: NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> Measures:
    """Floors of scores that compare ``num_images`` images with ``num_held_out`` held-out ones.

    score: of the rows of held-out images that stand for generated and for held-out ones.
    Each draw of held-out images is compared with two draws of the others, whose covariance is the
    share of the variance that all seeds of a study have in common.
    """
    found: dict[str, list[list[float]]] = {}
    floors = Measures()
    for _ in range(max(config.floor_splits, FEWEST_SPLITS)):
        unseen = _draw_again(num_held_out, groups, rng)
        pair = [score(rng.integers(0, num_held_out, num_images), unseen) for _ in range(2)]
        for key in pair[0].values:
            values = [one.values[key] for one in pair]
            if None in values:
                reason = next(one.reasons[key] for one in pair if key in one.reasons)
                floors.leave_out([f"{key}.floor"], reason)
            else:
                found.setdefault(key, []).append([value for value in values if value is not None])
    for key, pairs in found.items():
        if f"{key}.floor" not in floors.reasons:
            table = np.array(pairs)
            floors.values |= summarize(table.ravel(), f"{key}.floor")
            floors.values[f"{key}.floor_shared"] = _shared([table])
    return floors


def _draw_again(
    count: int, groups: NDArray[np.int64] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """As many rows as there are, or whole groups of them, drawn with replacement."""
    if groups is None:
        return rng.integers(0, count, count)
    names = np.unique(groups)
    drawn = rng.choice(names, len(names))
    return np.concatenate([np.flatnonzero(groups == name) for name in drawn])


def _pools(
    count: int, num_images: int, config: ScoreConfig, groups: NDArray[np.int64] | None
) -> Iterator[NDArray[np.int64]]:
    """Random sets of 2N rows without end, of which the first N are the reference's first half."""
    rng = np.random.default_rng([config.seed, count, num_images])
    while True:
        yield _order(count, groups, rng)[: 2 * num_images]


def _order(
    count: int, groups: NDArray[np.int64] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """All rows in random order; where there are groups, group after group."""
    order = rng.permutation(count)
    if groups is None:
        return order
    names, group = np.unique(groups, return_inverse=True)
    place = rng.permutation(len(names))
    return order[np.argsort(place[group[order]], kind="stable")]


def _collect(
    into: dict[str, list[NDArray[np.float64]]],
    reasons: dict[str, str],
    found: tuple[dict[str, NDArray[np.float64]], dict[str, str]],
) -> None:
    for key, values in found[0].items():
        into.setdefault(key, []).append(values)
    reasons.update(found[1])


def _shared(tables: Sequence[NDArray[np.float64]]) -> float:
    """The covariance of values that share their reference, over their variance, from 0 to 1.

    tables: (R, M), a row a reference.
    """
    values = np.concatenate([table.reshape(-1, table.shape[-1]) for table in tables])
    centered = values - values.mean()
    variance = float((centered**2).mean())
    number = values.shape[1]
    sums = centered.sum(axis=1)
    covariance = float((sums**2 - (centered**2).sum(axis=1)).mean()) / (number * (number - 1))
    return min(max(covariance / variance, 0.0), 1.0) if variance > 0 else 0.0


@dataclass(frozen=True)
class _Divisions:
    """one, two: (S, P) bool, the members of either side in each of S divisions of P images.
    shape: how the S values are arranged: (S,), or (R, M) with a row a reference."""

    one: NDArray[np.bool_]
    two: NDArray[np.bool_]
    shape: tuple[int, ...]


@dataclass
class _Pool:
    """2N real images, whose distances serve all of its divisions."""

    features: Features
    logits: NDArray[np.float32]
    groups: NDArray[np.int64] | None
    config: ScoreConfig
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self._compact = _compact(self.features)
        self._neighborhoods = Neighborhoods(self.features, self.config.nearest_k)

    def halves(self, count: int, first: bool) -> _Divisions:
        """``count`` divisions into halves; ``first``: beginning with the one of the comparison."""
        size = len(self.features)
        orders = [_order(size, self.groups, self.rng) for _ in range(count)]
        if first:
            orders[0] = np.arange(size)
        one = np.zeros((count, size), dtype=bool)
        for number, order in enumerate(orders):
            one[number, order[: size // 2]] = True
        return _Divisions(one, ~one, (count,))

    def quarters(self, count: int) -> _Divisions:
        """Every ordered pair of the quarters of ``count`` divisions: each is the reference of the
        three others, so that what comparisons with one reference share can be seen."""
        size = len(self.features)
        quarter = size // 4
        one, two = [], []
        for _ in range(count):
            order = _order(size, self.groups, self.rng)
            member = np.zeros((4, size), dtype=bool)
            for number in range(4):
                member[number, order[number * quarter : (number + 1) * quarter]] = True
            for number in range(4):
                others = [other for other in range(4) if other != number]
                one += [member[number]] * 3
                two += [member[other] for other in others]
        return _Divisions(np.array(one), np.array(two), (4 * count, 3))

    def scores(
        self, divisions: _Divisions, own: bool = True
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
        """Values by score in the divisions' shape, and the reasons of those that cannot be had.

        own: whether the Inception Scores of the first sides are wanted too.
        """
        measured: list[tuple[Sequence[str], Callable[[], Sequence[NDArray[np.float64]]]]] = [
            (("frechet_distance",), lambda: [self._frechet(divisions)]),
            (("kernel_distance",), lambda: [kernel_distances(self.features, *_sides(divisions))]),
            (MANIFOLD, lambda: list(self._neighborhoods.scores(*_sides(divisions)).T)),
        ]
        if self.config.extrapolate and own:
            measured.append((("frechet_distance_infinity",), lambda: [self._infinity(divisions)]))
        measured += [
            ((name,), functools.partial(self._extra, name, divisions)) for name in self.config.extra
        ]
        if own:
            measured.append((("inception_score",), lambda: [self._inception(divisions)]))
        values: dict[str, NDArray[np.float64]] = {}
        reasons: dict[str, str] = {}
        for keys, compute in measured:
            try:
                for key, found in zip(keys, compute(), strict=True):
                    rows = len(found) // divisions.shape[-1] if len(divisions.shape) > 1 else -1
                    values[key] = found.reshape(rows, *divisions.shape[1:])
            except DataError as error:
                reasons.update(dict.fromkeys(keys, str(error)))
        return values, reasons

    def _frechet(self, divisions: _Divisions) -> NDArray[np.float64]:
        width = self._compact.shape[1]
        affordable = int(MOST_OPERATIONS / width**3)
        most = max(FEWEST_SPLITS, affordable) // 3 * 3  # whole rows of comparisons that share
        return np.array(
            [
                frechet_distance(self._compact[one], self._compact[two])
                for one, two in zip(divisions.one[:most], divisions.two[:most], strict=True)
            ]
        )

    def _infinity(self, divisions: _Divisions) -> NDArray[np.float64]:
        most = MOST_EXTRAPOLATIONS
        return np.array(
            [
                frechet_distance_infinity(self.features[one], self.features[two], self.config.seed)
                for one, two in zip(divisions.one[:most], divisions.two[:most], strict=True)
            ]
        )

    def _extra(self, name: str, divisions: _Divisions) -> list[NDArray[np.float64]]:
        sides = zip(divisions.one, divisions.two, strict=True)
        found = [extra(name, self.features[one], self.features[two]) for one, two in sides]
        return [np.array(found)]

    def _inception(self, divisions: _Divisions) -> NDArray[np.float64]:
        return np.array([inception(self.logits[one], self.config).mean for one in divisions.one])


def _sides(divisions: _Divisions) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return divisions.one, divisions.two


def _compact(features: Features) -> Features:
    """The same rows in as many dimensions as they span at most, all distances kept."""
    if features.shape[1] < len(features):
        return features
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered @ centered.T)
    kept = values > values[-1] * 1e-12
    compact: Features = vectors[:, kept] * np.sqrt(values[kept])
    return compact if kept.any() else features[:, :1]
