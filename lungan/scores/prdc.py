"""Precision, recall, density and coverage: balls round each image's k nearest neighbors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungan.errors import DataError
from lungan.scores.features import Features, as_pair

CHUNK_SIZE = 256

TIE = 1e-10
"""Squared distances that differ by less than this share of the mean squared norm are equal.
Rounding in the matrix product is far below it, so that ties (exact copies) are decided alike for
every order and chunk size."""


@dataclass(frozen=True, slots=True)
class ManifoldScores:
    """``density`` may exceed 1; the others are shares."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    real: ArrayLike, generated: ArrayLike, k: int, chunk_size: int = CHUNK_SIZE
) -> ManifoldScores:
    """How the generated images fill the real ones' neighborhoods, and the reverse.

    real, generated: (N, D) and (M, D). A ball reaches to its image's ``k``-th nearest other image
    and does not hold its rim. Memory grows with ``chunk_size`` times N, not with N².

    Raises: DataError where a side has not more than ``k`` images.
    Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric" (precision, recall);
    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics" (density, coverage, and the open
    balls).
    """
    real, generated = as_pair("real", real, "generated", generated)
    real_radii = squared_radii(real, k, chunk_size) - tie_margin(real)
    generated_radii = squared_radii(generated, k, chunk_size) - tie_margin(generated)
    balls_held = np.zeros(len(generated), dtype=np.int64)
    recalled = np.empty(len(real), dtype=bool)
    covered = np.empty(len(real), dtype=bool)
    for rows, squared in blocks(real, generated, chunk_size):
        in_real_ball = squared < real_radii[rows, None]
        balls_held += in_real_ball.sum(axis=0)
        covered[rows] = in_real_ball.any(axis=1)
        recalled[rows] = (squared < generated_radii).any(axis=1)
    return ManifoldScores(
        precision=float((balls_held > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls_held.mean() / k),
        coverage=float(covered.mean()),
    )


def blocks(
    queries: Features, references: Features, chunk_size: int = CHUNK_SIZE
) -> Iterator[tuple[slice, Features]]:
    """Squared distances of ``chunk_size`` queries at a time to all references."""
    # Distances are blind to a shift; near the origin the product below loses fewest digits.
    center = references.mean(axis=0)
    references = references - center
    norms = (references**2).sum(axis=1)
    for start in range(0, len(queries), chunk_size):
        rows = slice(start, start + chunk_size)
        chunk = queries[rows] - center
        squared = chunk @ references.T
        squared *= -2
        squared += (chunk**2).sum(axis=1)[:, None]
        squared += norms
        yield rows, squared.clip(min=0, out=squared)


def tie_margin(rows: Features) -> float:
    """The squared distance below which two of these rows count as equal."""
    return float(TIE * ((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())


def nearest(
    queries: Features, references: Features, chunk_size: int = CHUNK_SIZE
) -> tuple[Features, NDArray[np.int64]]:
    """Distance to and index of each query's nearest reference; an exact copy is at exactly 0."""
    distances = np.empty(len(queries))
    index = np.empty(len(queries), dtype=np.int64)
    for rows, squared in blocks(queries, references, chunk_size):
        index[rows] = squared.argmin(axis=1)
        distances[rows] = _distance(queries[rows], references[index[rows]])
    return distances, index


def nearest_other(rows: Features, chunk_size: int = CHUNK_SIZE) -> Features:
    """Distance of each row to its nearest other row.

    Raises: DataError for a single row.
    """
    if len(rows) < 2:
        raise DataError("the nearest other image needs at least 2 images, got 1")
    distances = np.empty(len(rows))
    for chunk, squared in blocks(rows, rows, chunk_size):
        _hide_self(squared, chunk)
        distances[chunk] = _distance(rows[chunk], rows[squared.argmin(axis=1)])
    return distances


def squared_radii(rows: Features, k: int, chunk_size: int = CHUNK_SIZE) -> Features:
    """Squared distance of each row to its ``k``-th nearest other row.

    Raises: DataError where there are not ``k`` other rows.
    """
    if not 1 <= k < len(rows):
        raise DataError(f"k must be from 1 to the number of images - 1 ({len(rows) - 1}), got {k}")
    radii = np.empty(len(rows))
    for chunk, squared in blocks(rows, rows, chunk_size):
        _hide_self(squared, chunk)
        radii[chunk] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def _hide_self(squared: Features, chunk: slice) -> None:
    own = np.arange(len(squared))
    squared[own, chunk.start + own] = np.inf


def _distance(one: Features, two: Features) -> Features:
    # Row by row and not from the matrix product: a copy is then at exactly 0.
    distances: Features = np.sqrt(((one - two) ** 2).sum(axis=1))
    return distances
