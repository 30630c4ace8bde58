"""Intervals of a classifier's scores over patients and seeds together, from stored predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2000
POWER = 0.8
MEASURES = ("auc", "average_precision", "sensitivity")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Resampled:
    """A paired difference, its 95 % interval and standard error over patients and seeds.

    p: twice the share of draws on the other side of 0, which is below 5 % where the interval leaves
    out 0.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    p: float

    @property
    def includes_zero(self) -> bool:
        return self.low <= 0 <= self.high

    def detectable(self, num_tests: int = 1) -> float:
        """The smallest true difference that four of five such studies would find, at 5 % over
        ``num_tests`` tests (Bonferroni; normal approximation)."""
        level = 0.05 / max(1, num_tests)
        quantile = NormalDist().inv_cdf
        return (quantile(1 - level / 2) + quantile(POWER)) * self.standard_error


def draw_patients(
    patients: NDArray[np.int64], classes: NDArray[np.int64], num_draws: int = NUM_DRAWS
) -> Floats:
    """How often each test image counts, (B + 1, N): row 0 is the test set itself, every other one a
    draw of whole patients with replacement; draws that lack a class are left out.

    patients, classes: (N,), of the test images.

    Patients and seeds are drawn independently of each other, since every seed's classifier sees
    every patient. Source: Owen 2007, doi:10.1214/07-AOAS122 (the pigeonhole bootstrap).
    """
    _, of_image = np.unique(patients, return_inverse=True)
    num_patients = int(of_image.max()) + 1
    rng = np.random.default_rng(0)
    share = np.full(num_patients, 1 / num_patients)
    weights = rng.multinomial(num_patients, share, size=num_draws)[:, of_image].astype(np.float64)
    present = np.all([weights[:, classes == k].any(axis=1) for k in np.unique(classes)], axis=0)
    return np.concatenate([np.ones((1, len(patients))), weights[present]])


def measure_draws(
    scores: Floats, positive: NDArray[np.bool_], threshold: float, draws: Floats
) -> dict[str, Floats]:
    """Each of MEASURES for every draw, (B + 1,).

    scores, positive: (N,) of one classifier. threshold: above it an image is called positive.
    Source: Mann and Whitney 1947 for AUC, ties counting half; average precision as the area under
    the steps of precision over recall.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    weights = draws[:, order]
    is_positive = positive[order]
    hits = np.add.reduceat(weights * is_positive, starts, axis=1)
    others = np.add.reduceat(weights * ~is_positive, starts, axis=1)
    num_hits, num_others = hits.sum(axis=1), others.sum(axis=1)
    above_half = np.cumsum(others, axis=1) - others / 2
    found = np.cumsum(hits[:, ::-1], axis=1)
    called = found + np.cumsum(others[:, ::-1], axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    called_positive = weights[:, scores[order] > threshold] @ is_positive[scores[order] > threshold]
    return {
        "auc": (hits * above_half).sum(axis=1) / (num_hits * num_others),
        "average_precision": (hits[:, ::-1] * precision).sum(axis=1) / num_hits,
        "sensitivity": called_positive / num_hits,
    }


def resample_difference(first: Floats, second: Floats) -> Resampled:
    """first, second: (S, B + 1), one measure of two arms under the same seeds and draws of
    patients. Seeds are drawn too, alike for all arms that share them."""
    num_seeds, num_draws = first.shape
    rng = np.random.default_rng([0, 1])
    shares = np.full((num_draws, num_seeds), 1 / num_seeds)
    shares[1:] = rng.multinomial(num_seeds, shares[0], size=num_draws - 1) / num_seeds
    values = np.einsum("bs,sb->b", shares, first - second)
    drawn = values[1:]
    low, high = np.quantile(drawn, [0.025, 0.975])
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + float(rarer)) / (1 + len(drawn)))
    return Resampled(float(values[0]), float(low), float(high), float(drawn.std(ddof=1)), p)


def delong(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """AUC of one classifier and its standard error over images, each as if of another patient.

    scores, positive: (N,), at least two images of each class.
    Source: DeLong et al. 1988, doi:10.2307/2531595, by the midranks of Sun and Xu 2014,
    doi:10.1109/LSP.2014.2337313.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    # Of each image, the share of the other class on its right side.
    of_positives = (ranks[positive] - rankdata(scores[positive])) / num_negative
    of_negatives = 1 - (ranks[~positive] - rankdata(scores[~positive])) / num_positive
    variance = of_positives.var(ddof=1) / num_positive + of_negatives.var(ddof=1) / num_negative
    return float(of_positives.mean()), math.sqrt(variance)
