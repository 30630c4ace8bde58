"""How well a classifier does, from its probabilities on images that it has never seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SPECIFICITY = 0.95
CALIBRATION_BINS = 15
NUM_DRAWS = 500
"""Of images drawn again, for an interval."""

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]


def measure(
    probabilities: Probabilities,
    labels: Labels,
    positive: int,
    validation: tuple[Probabilities, Labels],
) -> dict[str, float]:
    """All measures by name. probabilities: (N, K), rows sum to 1. labels: (N,), all K present.

    positive: with two classes, the one whose detection is measured; with more, AUC, average
    precision, sensitivity and specificity are means over classes of each against the rest.
    validation: probabilities and labels of other images, from which the thresholds are taken.
    """
    found = []
    for index in [positive] if probabilities.shape[1] == 2 else range(probabilities.shape[1]):
        scores, is_positive = probabilities[:, index], labels == index
        negatives = validation[0][validation[1] != index, index]
        threshold = threshold_at_specificity(negatives, SPECIFICITY)
        found.append(
            {
                "auc": area_under_curve(scores, is_positive),
                "average_precision": average_precision(scores, is_positive),
                "sensitivity_at_95_specificity": (scores[is_positive] > threshold).mean(),
                "specificity": (scores[~is_positive] <= threshold).mean(),
            }
        )
    predicted = predict(probabilities, positive, validation)
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return means | {
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": balanced_accuracy(predicted, labels),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
    }


def predict(
    probabilities: Probabilities, positive: int, validation: tuple[Probabilities, Labels]
) -> NDArray[np.int64]:
    """(N,) the class that each image is called: of two, by the threshold for ``positive`` that
    gives the highest balanced accuracy on ``validation``, of these the one nearest to 0.5; of
    more, the class of the highest probability."""
    if probabilities.shape[1] != 2:
        return np.asarray(probabilities.argmax(axis=1))
    scores, truth = validation[0][:, positive], validation[1] == positive
    steps = np.unique(np.append(scores, [0.0, 1.0]))
    candidates = np.append((steps[1:] + steps[:-1]) / 2, 0.5)
    reached = (scores > candidates[:, None]) == truth
    balanced = (reached[:, truth].mean(axis=1) + reached[:, ~truth].mean(axis=1)) / 2
    best = candidates[balanced >= balanced.max() - 1e-12]
    threshold = best[np.abs(best - 0.5).argmin()]
    return np.where(probabilities[:, positive] > threshold, positive, 1 - positive)


def balanced_accuracy(predicted: NDArray[np.int64], labels: Labels) -> float:
    """The mean over classes of the share of a class's images that are recognized."""
    return float(np.mean([(predicted[labels == k] == k).mean() for k in np.unique(labels)]))


def threshold_at_specificity(negatives: NDArray[np.float64], specificity: float) -> float:
    """The lowest score (of ``negatives``, (N,)) that at least ``specificity`` of them do not
    exceed."""
    # Without the margin, 0.95 of 20 negatives would be 19.000000000000004 of them.
    num_below = math.ceil(specificity * len(negatives) - 1e-9)
    return float(np.sort(negatives)[num_below - 1]) if num_below else -math.inf


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Mean distance between confidence and accuracy, over bins of the top class's probability.

    Bins of equal width, each closed above. Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1
    bins = np.clip(bins, 0, CALIBRATION_BINS - 1)
    excess = np.bincount(bins, weights=confidence - correct, minlength=CALIBRATION_BINS)
    return float(np.abs(excess).sum() / len(labels))


def mean_area_under_curve(probabilities: Probabilities, labels: Labels) -> float | None:
    """The mean over classes of each against the rest, 0.5 being chance; None for a single class.

    probabilities: (N, K). labels: (N,), of which some of the K may be missing.
    """
    areas = [
        area_under_curve(probabilities[:, index], labels == index)
        for index in np.unique(labels).tolist()
        if not (labels == index).all()
    ]
    return float(np.mean(areas)) if areas else None


def with_interval(
    statistic: Callable[[NDArray[np.intp]], float | None],
    num_images: int,
    groups: NDArray[np.int64] | None,
) -> tuple[float, float, float] | None:
    """``statistic`` of all images, and its 95 % percentile interval over images drawn again with
    replacement; None where it is None of all.

    statistic: of rows (M,) of the images; draws for which it is None are left out.
    groups: (num_images,), where whole groups (patients) are drawn, else None.
    Source: Efron and Tibshirani 1993, section 13.3.
    """
    value = statistic(np.arange(num_images))
    if value is None:
        return None
    draws = resamples(num_images, groups, np.random.default_rng(0))
    drawn = map(statistic, itertools.islice(draws, NUM_DRAWS))
    values = [each for each in drawn if each is not None]
    low, high = np.quantile(values, [0.025, 0.975])
    return value, float(low), float(high)


def resamples(
    num_images: int, groups: NDArray[np.int64] | None, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Rows (M,) drawn again with replacement, without end: as many images as there are, or, where
    groups (num_images,) are known, as many whole groups."""
    unit = np.arange(num_images) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(unit, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)
    while True:
        yield np.concatenate([parts[k] for k in rng.integers(0, len(parts), len(parts))])


def area_under_curve(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive's score is above a negative's, ties counting half.

    Source: Hanley and McNeil 1982.
    """
    num_pairs = int(positive.sum()) * int((~positive).sum())
    return count_above(scores[positive], scores[~positive]) / num_pairs


def count_above(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """In how many pairs the value of ``one`` is above that of ``other``, ties counting half.

    Source: Mann and Whitney 1947.
    """
    from scipy.stats import rankdata  # imports torch where it finds it, which tables do without

    ranks = rankdata(np.concatenate([one, other]))
    return float(ranks[: len(one)].sum() - len(one) * (len(one) + 1) / 2)


def average_precision(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The area under the steps of precision over recall; chance is the share of positives.

    scores, positive: (N,). Images of one score enter together.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    found = np.cumsum(positive[order])[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / positive.sum())
