"""Euclidean distances in blocks of rows: no N x N matrix is ever held."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lungan.errors import DataError
from lungan.scores.features import Features

CHUNK_SIZE = 256

TIE = 1e-10
"""Squared distances that differ by less than this share of the mean squared norm are equal.
Rounding in the matrix product is far below it, so that ties (exact copies) are decided alike for
every order and chunk size."""


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
