"""Precision, recall, density and coverage: balls round each image's k nearest neighbors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungan.errors import DataError
from lungan.scores.distances import Features, in_float64

CHUNK_SIZE = 256

TIE = 1e-10
"""Squared distances that differ by less than this share of the mean squared norm are equal.
Rounding in the matrix product is far below it, so that ties (exact copies) are decided alike for
every order and chunk size."""


def manifold_scores(
    real: ArrayLike, generated: ArrayLike, k: int
) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage: how the generated images fill the real ones'
    neighborhoods, and the reverse. Density may exceed 1; the others are shares.

    real, generated: (N, D) and (M, D). A ball reaches to its image's ``k``-th nearest other image
    and does not hold its rim. Memory grows with N, not with N².

    Raises: DataError where a side has not more than ``k`` images.
    Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric" (precision, recall);
    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics" (density, coverage, and the open
    balls).
    """
    real, generated = in_float64(real, generated)
    around_generated, covered = balls_around(generated, real, k)
    around_real, _ = balls_around(real, generated, k)
    return (
        float((around_generated > 0).mean()),
        float((around_real > 0).mean()),
        float(around_generated.mean() / k),
        float(covered.mean()),
    )


def densities(real: Features, generated: Features, k: int) -> Features:
    """(M,): of each generated image, how many balls of real ones hold it, over ``k``. Their mean is
    the density that ``manifold_scores`` gives, by the same balls and source.

    real, generated: (N, D) and (M, D). Raises: DataError where there are not more than ``k`` real
    images.
    """
    around_generated, _ = balls_around(generated, real, k)
    return around_generated / k


def balls_around(
    points: Features, centers: Features, k: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many of the centers' balls hold each point (M,), and whether each ball holds one (N,).

    Raises: DataError where there are not more than ``k`` centers.
    """
    radii = squared_radii(centers, k) - tie_margin(centers)
    number = np.zeros(len(points), dtype=np.int64)
    is_filled = np.empty(len(centers), dtype=bool)
    for rows, squared in blocks(centers, points):
        inside = squared < radii[rows, None]
        number += inside.sum(axis=0)
        is_filled[rows] = inside.any(axis=1)
    return number, is_filled


class Neighborhoods:
    """The manifold scores between parts of one set of rows, for many pairs of parts.

    Each row's nearest others are sorted once; which of them belong to a part decides the rest.
    """

    def __init__(self, rows: Features, k: int, num_neighbors: int = 80) -> None:
        """rows: (P, D). num_neighbors: kept of each row; doubled where a part needs more."""
        self._rows, self._k = rows, k
        self._margin = tie_margin(rows)
        self._sort(max(num_neighbors, 8 * k))

    def scores(self, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Features:
        """(4, S): precision, recall, density and coverage of each pair of parts (S, P) bool, the
        first of which stands for the real images; the numbers that ``manifold_scores`` gives.

        Raises: DataError where a part has not more than ``k`` rows.
        """
        _check(self._k, int(min(first.sum(axis=1).min(), second.sum(axis=1).min())))
        return np.array([self._score(one, two) for one, two in zip(first, second, strict=True)]).T

    def _score(self, one: NDArray[np.bool_], two: NDArray[np.bool_]) -> list[float]:
        reached = self._reach(one, two)  # of each row of one: rows of two in its ball
        held = np.zeros(len(one), dtype=bool)
        held[self._index[one][reached]] = True
        recalled = np.zeros(len(one), dtype=bool)
        inside = self._reach(two, one)  # before the index, which it may make anew
        recalled[self._index[two][inside]] = True
        return [
            held.sum() / two.sum(),
            recalled.sum() / one.sum(),
            reached.sum() / self._k / two.sum(),
            reached.any(axis=1).mean(),
        ]

    def _reach(self, own: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(number of own, neighbors): neighbors of ``other`` within the k-th nearest of ``own``."""
        while True:
            index = self._index[own]
            count = own[index].cumsum(axis=1)
            if (count[:, -1] >= self._k).all():
                break
            self._sort(2 * self._index.shape[1])
        squared = self._squared[own]
        radius = np.take_along_axis(squared, (count >= self._k).argmax(axis=1)[:, None], axis=1)
        inside: NDArray[np.bool_] = (squared < radius - self._margin) & other[index]
        return inside

    def _sort(self, num_neighbors: int) -> None:
        number = min(num_neighbors, len(self._rows) - 1)
        shape = (len(self._rows), number)
        self._index = np.empty(shape, dtype=np.int32)
        self._squared = np.empty(shape)
        for chunk, squared in others(self._rows):
            near = np.argpartition(squared, number - 1, axis=1)[:, :number]
            distance = np.take_along_axis(squared, near, axis=1)
            order = distance.argsort(axis=1)
            self._index[chunk] = np.take_along_axis(near, order, axis=1)
            self._squared[chunk] = np.take_along_axis(distance, order, axis=1)


def blocks(queries: Features, references: Features) -> Iterator[tuple[slice, Features]]:
    """Squared distances of ``CHUNK_SIZE`` queries at a time to all references."""
    # Distances are blind to a shift; near the origin the product below loses fewest digits.
    center = references.mean(axis=0)
    references = references - center
    norms = (references**2).sum(axis=1)
    for start in range(0, len(queries), CHUNK_SIZE):
        rows = slice(start, start + CHUNK_SIZE)
        chunk = queries[rows] - center
        squared = chunk @ references.T
        squared *= -2
        squared += (chunk**2).sum(axis=1)[:, None]
        squared += norms
        yield rows, squared.clip(min=0, out=squared)


def others(rows: Features) -> Iterator[tuple[slice, Features]]:
    """As ``blocks`` of the rows beside themselves, with each row infinitely far from itself."""
    for chunk, squared in blocks(rows, rows):
        own = np.arange(len(squared))
        squared[own, chunk.start + own] = np.inf
        yield chunk, squared


def tie_margin(rows: Features) -> float:
    """The squared distance below which two of these rows count as equal."""
    return float(TIE * ((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())


def nearest(
    queries: Features, references: Features | None = None
) -> tuple[Features, NDArray[np.int64]]:
    """Distance to and index of each query's nearest reference, or, without references, its nearest
    other query; an exact copy is at exactly 0."""
    found = others(queries) if references is None else blocks(queries, references)
    references = queries if references is None else references
    distances = np.empty(len(queries))
    index = np.empty(len(queries), dtype=np.int64)
    for rows, squared in found:
        index[rows] = squared.argmin(axis=1)
        # Row by row and not from the matrix product: a copy is then at exactly 0.
        difference = queries[rows] - references[index[rows]]
        distances[rows] = np.sqrt((difference**2).sum(axis=1))
    return distances, index


def squared_radii(rows: Features, k: int) -> Features:
    """Squared distance of each row to its ``k``-th nearest other row.

    Raises: DataError where there are not ``k`` other rows.
    """
    _check(k, len(rows))
    radii = np.empty(len(rows))
    for chunk, squared in others(rows):
        radii[chunk] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def _check(k: int, count: int) -> None:
    if not 1 <= k < count:
        raise DataError(
            f"k must be from 1 to the number of images - 1 ({count - 1}), got {k}; give more "
            "images, or a smaller score.nearest_k"
        )
