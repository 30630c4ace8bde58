"""Kernel distance (KID): an unbiased squared maximum mean discrepancy with a cubic kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungan.errors import DataError
from lungan.scores.features import Features, as_pair


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """``std`` is over subsets (population). A mean below 0 is valid: the estimate is unbiased, so
    where the distributions are equal it falls on both sides of 0."""

    mean: float
    std: float


def kernel_distance(
    first: ArrayLike,
    second: ArrayLike,
    subsets: int,
    subset_size: int,
    seed: int,
    chunk_size: int = 512,
) -> KernelDistance:
    """Mean and std over random subsets of the unbiased MMD² with kernel (x·y / D + 1)³.

    first, second: (N, D) and (M, D). ``chunk_size`` rows of a kernel matrix are held at a time.

    Raises: DataError where a side has fewer images than ``subset_size``, or that is below 2.
    Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4 and lemma 6 (unbiased form).
    """
    one, two = as_pair("first", first, "second", second)
    if not 2 <= subset_size <= min(len(one), len(two)):
        raise DataError(
            f"kernel subset size must be from 2 to the number of images ({min(len(one), len(two))})"
            f", got {subset_size}"
        )
    if subsets < 1:
        raise DataError(f"kernel subsets must be at least 1, got {subsets}")
    rng = np.random.default_rng(seed)
    rows = np.concatenate([one, two])
    members = np.zeros((2, subsets, len(rows)), dtype=bool)
    for side, (start, count) in zip(members, ((0, len(one)), (len(one), len(two))), strict=True):
        for subset in side:
            subset[start + rng.choice(count, subset_size, replace=False)] = True
    distances = kernel_distances(rows, members[0], members[1], chunk_size)
    return KernelDistance(mean=float(distances.mean()), std=float(distances.std()))


def kernel_distances(
    rows: Features,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    chunk_size: int = 512,
) -> Features:
    """The unbiased MMD² between two disjoint parts of the same rows, for many pairs of parts: (S,).

    rows: (P, D). first, second: (S, P), the members of each part, the same number in all.
    The kernel between two rows is computed once for all pairs.

    Raises: DataError where a part has fewer than 2 rows.
    """
    sizes = first.sum(axis=1), second.sum(axis=1)
    if min(map(int, (sizes[0].min(), sizes[1].min()))) < 2:
        raise DataError("kernel distance needs at least 2 images a side")
    one, two = first.T.astype(np.float64), second.T.astype(np.float64)
    within_one, within_two, between = (np.zeros(len(first)) for _ in range(3))
    for start in range(0, len(rows), chunk_size):
        chunk = slice(start, start + chunk_size)
        kernel = _kernel(rows[chunk], rows)
        to_one, to_two = kernel @ one, kernel @ two
        within_one += (one[chunk] * to_one).sum(axis=0)
        within_two += (two[chunk] * to_two).sum(axis=0)
        between += (one[chunk] * to_two).sum(axis=0)
    diagonal = ((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3
    within_one = (within_one - diagonal @ one) / (sizes[0] * (sizes[0] - 1))
    within_two = (within_two - diagonal @ two) / (sizes[1] * (sizes[1] - 1))
    distances: Features = within_one + within_two - 2 * between / (sizes[0] * sizes[1])
    return distances


def _kernel(one: Features, two: Features) -> Features:
    kernel: Features = one @ two.T
    kernel /= one.shape[1]
    kernel += 1
    return kernel * kernel * kernel
