"""Fréchet distance between Gaussians fitted to two sets of features, and its limit in N."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh, eigvalsh

from lungan.errors import DataError
from lungan.scores.features import Features, as_pair

EXTRAPOLATION_POINTS = 15
EXTRAPOLATION_FROM = 0.2
"""Smallest N of the fit, as a share of the largest."""
EXTRAPOLATION_DIMENSIONS = 3
"""Smallest N of the fit, in feature dimensions: below, the distance is no line in 1/N."""


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), with unbiased covariances, in float64.

    first, second: (N, D) and (M, D), N and M at least 2. Biased upward at small N, most where N
    is at most D (``is_rank_deficient``): compare at equal N only.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6;
    Dowson and Landau 1982.
    """
    one, two = as_pair("first", first, "second", second, at_least=2)
    mean_one, mean_two = one.mean(axis=0), two.mean(axis=0)
    one, two = one - mean_one, two - mean_two
    variance = (one**2).sum() / (len(one) - 1) + (two**2).sum() / (len(two) - 1)
    difference = mean_one - mean_two
    distance = difference @ difference + variance - 2 * _trace_of_root(one, two)
    return float(distance)


def is_rank_deficient(num_images: int, feature_dim: int) -> bool:
    """Whether a covariance from ``num_images`` rows cannot have full rank."""
    return num_images <= feature_dim


def smallest_extrapolation(feature_dim: int) -> int:
    """The number of images a side from which ``frechet_distance_infinity`` can be had."""
    return 2 * EXTRAPOLATION_DIMENSIONS * feature_dim


def frechet_distance_infinity(first: ArrayLike, second: ArrayLike, seed: int) -> float:
    """The distance extrapolated to infinitely many images on both sides.

    The distance of random subsets of N images a side is fitted as a line in 1/N, whose intercept
    is the answer; it may come out slightly below 0. Chong and Forsyth let only the generated
    side's N grow, against a large fixed real set; here the real set is small too, so both do.

    Raises: DataError where there are too few images for the line (``smallest_extrapolation``).
    Source: Chong and Forsyth 2020, "Effectively Unbiased FID and Inception Score", section 3.
    """
    one, two = as_pair("first", first, "second", second)
    largest = min(len(one), len(two))
    needed = smallest_extrapolation(one.shape[1])
    if largest < needed:
        raise DataError(
            f"extrapolating needs at least {needed} images a side at feature dimension "
            f"{one.shape[1]}, got {largest}"
        )
    smallest = max(int(EXTRAPOLATION_FROM * largest), EXTRAPOLATION_DIMENSIONS * one.shape[1])
    rng = np.random.default_rng(seed)
    # Even steps in 1/N, which is the axis of the fit.
    sizes = (1 / np.linspace(1 / smallest, 1 / largest, EXTRAPOLATION_POINTS)).round().astype(int)
    distances = [
        frechet_distance(
            one[rng.choice(len(one), size, replace=False)],
            two[rng.choice(len(two), size, replace=False)],
        )
        for size in sizes
    ]
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def _trace_of_root(one: Features, two: Features) -> float:
    """tr((S1 S2)^½) of centered rows, from the eigenvalues of a symmetric form of S1 S2."""
    if len(two) < len(one):
        one, two = two, one
    covariance = two.T @ two / (len(two) - 1)
    if is_rank_deficient(len(one), one.shape[1]):
        # X S2 Xᵀ has the nonzero eigenvalues of S1 S2 and is the smaller matrix; it also leaves
        # out the D - N zeros, whose rounding noise would grow under the root.
        product = one @ covariance @ one.T / (len(one) - 1)
    else:
        values, vectors = eigh(one.T @ one / (len(one) - 1))
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        product = root @ covariance @ root
    eigenvalues = eigvalsh((product + product.T) / 2)
    return float(np.sqrt(eigenvalues.clip(min=0)).sum())
