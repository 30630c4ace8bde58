"""Scores of whole sets of features: Fréchet and kernel distance, and the Inception Score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, eigvalsh
from scipy.special import log_softmax, logsumexp

from lungan.errors import DataError

Features = NDArray[np.float64]

CHUNK_SIZE = 512
"""Rows of a kernel matrix that are held at a time."""

EXTRAPOLATION_POINTS = 15
EXTRAPOLATION_FROM = 0.2
"""Smallest N of the fit, as a share of the largest."""
EXTRAPOLATION_DIMENSIONS = 3
"""Smallest N of the fit, in feature dimensions: below, the distance is no line in 1/N."""


def in_float64(*sets: ArrayLike) -> list[Features]:
    """Encoders give float32, in which sums over many images and dimensions lose digits."""
    return [np.asarray(rows, dtype=np.float64) for rows in sets]


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), with unbiased covariances, in float64.

    first, second: (N, D) and (M, D). Biased upward at small N, most where N is at most D, which
    leaves covariances without full rank: compare at equal N only.

    Raises: DataError where a side has fewer than 2 images.
    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6;
    Dowson and Landau 1982.
    """
    one, two = in_float64(first, second)
    if min(len(one), len(two)) < 2:
        raise DataError("Fréchet distance needs at least 2 images a side")
    mean_one, mean_two = one.mean(axis=0), two.mean(axis=0)
    one, two = one - mean_one, two - mean_two
    variance = (one**2).sum() / (len(one) - 1) + (two**2).sum() / (len(two) - 1)
    difference = mean_one - mean_two
    distance = difference @ difference + variance - 2 * _trace_of_root(one, two)
    return float(distance)


def frechet_distance_infinity(first: ArrayLike, second: ArrayLike, seed: int) -> float:
    """The distance extrapolated to infinitely many images on both sides.

    The distance of random subsets of N images a side is fitted as a line in 1/N, whose intercept
    is the answer; it may come out slightly below 0. Chong and Forsyth let only the generated
    side's N grow, against a large fixed real set; here the real set is small too, so both do.

    Raises: DataError where there are too few images for the line, six for each dimension.
    Source: Chong and Forsyth 2020, "Effectively Unbiased FID and Inception Score", section 3.
    """
    one, two = in_float64(first, second)
    largest, feature_dim = min(len(one), len(two)), one.shape[1]
    fewest = EXTRAPOLATION_DIMENSIONS * feature_dim
    if largest < 2 * fewest:
        raise DataError(
            f"extrapolating needs at least {2 * fewest} images a side at feature dimension "
            f"{feature_dim}, got {largest}"
        )
    smallest = max(int(EXTRAPOLATION_FROM * largest), fewest)
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
    if len(one) <= one.shape[1]:
        # X S2 Xᵀ has the nonzero eigenvalues of S1 S2 and is the smaller matrix; it also leaves
        # out the D - N zeros, whose rounding noise would grow under the root.
        product = one @ covariance @ one.T / (len(one) - 1)
    else:
        values, vectors = eigh(one.T @ one / (len(one) - 1))
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        product = root @ covariance @ root
    eigenvalues = eigvalsh((product + product.T) / 2)
    return float(np.sqrt(eigenvalues.clip(min=0)).sum())


def kernel_distance(
    first: ArrayLike, second: ArrayLike, subsets: int, subset_size: int, seed: int
) -> tuple[float, float]:
    """Mean and std (population) over random subsets of the unbiased MMD² with kernel
    (x·y / D + 1)³, known as KID.

    first, second: (N, D) and (M, D). A mean below 0 is valid: the estimate is unbiased, so where
    the distributions are equal it falls on both sides of 0.

    Raises: DataError where a side has fewer images than ``subset_size``, or that is below 2.
    Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4 and lemma 6 (unbiased form).
    """
    one, two = in_float64(first, second)
    if not 2 <= subset_size <= min(len(one), len(two)):
        raise DataError(
            f"kernel subset size must be from 2 to the number of images ({min(len(one), len(two))})"
            f", got {subset_size}"
        )
    rng = np.random.default_rng(seed)
    rows = np.concatenate([one, two])
    members = np.zeros((2, subsets, len(rows)), dtype=bool)
    for side, (start, count) in zip(members, ((0, len(one)), (len(one), len(two))), strict=True):
        for subset in side:
            subset[start + rng.choice(count, subset_size, replace=False)] = True
    distances = kernel_distances(rows, *members)
    return float(distances.mean()), float(distances.std())


def kernel_distances(
    rows: Features, first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> Features:
    """The unbiased MMD² between two disjoint parts of the same rows, for many pairs of parts: (S,).

    rows: (P, D). first, second: (S, P), the members of each part, the same number in all.
    The kernel between two rows is computed once for all pairs.

    Raises: DataError where a part has fewer than 2 rows.
    """
    sizes = first.sum(axis=1), second.sum(axis=1)
    if min(sizes[0].min(), sizes[1].min()) < 2:
        raise DataError("kernel distance needs at least 2 images a side")
    one, two = first.T.astype(np.float64), second.T.astype(np.float64)
    within_one, within_two, between = (np.zeros(len(first)) for _ in range(3))
    for start in range(0, len(rows), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        kernel = rows[chunk] @ rows.T
        kernel /= rows.shape[1]
        kernel += 1
        kernel = kernel * kernel * kernel
        to_one, to_two = kernel @ one, kernel @ two
        within_one += (one[chunk] * to_one).sum(axis=0)
        within_two += (two[chunk] * to_two).sum(axis=0)
        between += (one[chunk] * to_two).sum(axis=0)
    diagonal = ((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3
    within_one = (within_one - diagonal @ one) / (sizes[0] * (sizes[0] - 1))
    within_two = (within_two - diagonal @ two) / (sizes[1] * (sizes[1] - 1))
    distances: Features = within_one + within_two - 2 * between / (sizes[0] * sizes[1])
    return distances


def inception_score(logits: NDArray[np.floating], splits: int) -> tuple[float, float]:
    """exp of the mean KL divergence of p(y|x) from p(y): mean and std (population) over ``splits``
    consecutive parts.

    logits: (N, K). The score is from 1 (every image gives the same classes) to K; N/splits images
    bound it too. Splits follow the order given: shuffle images that come sorted.

    Raises: DataError where there are fewer images than splits, or fewer than 2 classes.
    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
    """
    if logits.shape[1] < 2:
        raise DataError("the encoder has no classes: it was trained without labels of two or more")
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    count = len(log_p)
    if count < splits:
        raise DataError(
            f"Inception Score needs at least one image a split: {count} for {splits}; give more "
            "images, or fewer score.inception_splits"
        )
    scores = []
    for part in range(splits):
        rows = log_p[part * count // splits : (part + 1) * count // splits]
        # In logarithms throughout: the mean probability of a class may underflow to 0.
        log_q = logsumexp(rows, axis=0) - np.log(len(rows))
        divergence = (np.exp(rows) * (rows - log_q)).sum(axis=1).mean()
        # Rounding can leave a divergence of -1e-17, and the score of identical rows below 1.
        scores.append(np.exp(max(divergence, 0.0)))
    return float(np.mean(scores)), float(np.std(scores))
