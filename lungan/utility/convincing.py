"""A picture of the synthetic images that a classifier finds most and least convincing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungan.classifiers.train import Labelled
from lungan.runs import pictures

SHOWN = 8


def choose_convincing(
    images: Labelled, probabilities: NDArray[np.float64]
) -> list[NDArray[np.intp]]:
    """For each class, twice SHOWN indices or as many as there are: those to which the classifier
    gives their own class the highest probability, highest first, then those with the lowest,
    lowest first. probabilities: (N, K)."""
    likely = probabilities[np.arange(len(images)), images.labels]
    rows = []
    for label in np.unique(images.labels):
        members = np.flatnonzero(images.labels == label)
        order = members[np.argsort(-likely[members], kind="stable")]
        count = min(SHOWN, len(order) // 2)
        rows += [order[:count], order[::-1][:count]]
    return rows


def write_convincing(path: Path, images: Labelled, probabilities: NDArray[np.float64]) -> None:
    """Two rows a class, class after class: the most convincing, then the least.

    Raises: RunFolderError where it cannot be written.
    """
    _, channels, height, width = images.images.shape
    cells = []
    for row in choose_convincing(images, probabilities):
        blank = np.full((SHOWN - len(row), channels, height, width), 255, dtype=np.uint8)
        cells.append(np.concatenate([images.images[row], blank]))
    pictures.write_png(path, pictures.grid(np.concatenate(cells), columns=SHOWN))
