"""Precision, recall, density and coverage: balls round each image's k nearest neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lungan.scores.features import as_pair
from lungan.scores.neighbors import CHUNK_SIZE, blocks, squared_radii, tie_margin


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
