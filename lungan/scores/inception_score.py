"""Inception Score: how sure a classifier is of each image, and how many classes it sees in all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from lungan.errors import DataError
from lungan.scores.features import as_rows


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """``std`` is over splits (population), 0 for one split."""

    mean: float
    std: float


def inception_score(logits: ArrayLike, splits: int) -> InceptionScore:
    """exp of the mean KL divergence of p(y|x) from p(y), over ``splits`` consecutive parts.

    logits: (N, K). The score is from 1 (every image gives the same classes) to K; N/splits images
    bound it too. Splits follow the order given: shuffle images that come sorted.

    Raises: DataError where there are fewer images than splits.
    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
    """
    if splits < 1:
        raise DataError(f"splits must be at least 1, got {splits}")
    log_p = log_softmax(as_rows("logits", logits), axis=1)
    count = len(log_p)
    if count < splits:
        raise DataError(f"Inception Score needs at least one image a split: {count} for {splits}")
    scores = []
    for part in range(splits):
        rows = log_p[part * count // splits : (part + 1) * count // splits]
        # In logarithms throughout: the mean probability of a class may underflow to 0.
        log_q = logsumexp(rows, axis=0) - np.log(len(rows))
        divergence = (np.exp(rows) * (rows - log_q)).sum(axis=1).mean()
        # Rounding can leave a divergence of -1e-17, and the score of identical rows below 1.
        scores.append(np.exp(max(divergence, 0.0)))
    return InceptionScore(mean=float(np.mean(scores)), std=float(np.std(scores)))
