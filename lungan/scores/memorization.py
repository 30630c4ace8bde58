"""Memorization: do generated images lie nearer to training images than unseen real ones do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungan.errors import DataError
from lungan.scores.features import Features, as_pair, as_rows
from lungan.scores.prdc import CHUNK_SIZE, nearest, nearest_other

SHARE_QUANTILE = 0.01
HELD_OUT_PER_CELL = 50
MOST_CELLS = 10
FEWEST_GENERATED_PER_CELL = 20
KMEANS_STEPS = 10


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near each image of a set comes to the training images; all of shape (N,).

    distance, index: to and of the nearest training image. authentic: whether that distance
    exceeds the one from that training image to its own nearest other training image.
    cell, cell_distance: the part of the feature space that the image falls in, and the distance
    to the nearest training image of that part.
    """

    distance: Features
    index: NDArray[np.int64]
    authentic: NDArray[np.bool_]
    cell: NDArray[np.int64]
    cell_distance: Features

    def __len__(self) -> int:
        return len(self.distance)

    def take(self, rows: NDArray[np.int64]) -> Nearness:
        return Nearness(
            distance=self.distance[rows],
            index=self.index[rows],
            authentic=self.authentic[rows],
            cell=self.cell[rows],
            cell_distance=self.cell_distance[rows],
        )


def nearness(
    training: ArrayLike,
    images: Sequence[ArrayLike],
    num_cells: int,
    seed: int,
    chunk_size: int = CHUNK_SIZE,
) -> list[Nearness]:
    """The nearness of each of several sets of features to one training set.

    training: (N, D), exact duplicates left out (``distinct``), or a training image's own nearest
    other is at distance 0 and every image counts as authentic. ``num_cells`` parts come from
    k-means on the training features.

    Raises: DataError for fewer than 2 training images or widths that differ.
    """
    training = as_rows("training features", training, at_least=2)
    own_distance = nearest_other(training, chunk_size)
    centroids, training_cell = _cells(training, num_cells, seed)
    found = []
    for one in images:
        _, rows = as_pair("training features", training, "features", one)
        distance, index = nearest(rows, training, chunk_size)
        _, cell = nearest(rows, centroids, chunk_size)
        cell_distance = np.empty(len(rows))
        for number in range(len(centroids)):
            here = cell == number
            cell_distance[here], _ = nearest(
                rows[here], training[training_cell == number], chunk_size
            )
        found.append(Nearness(distance, index, distance > own_distance[index], cell, cell_distance))
    return found


def suggested_cells(num_held_out: int) -> int:
    """As many cells as leave about 50 held-out images in each, at most 10."""
    return min(max(num_held_out // HELD_OUT_PER_CELL, 1), MOST_CELLS)


def distance_ratio(generated: Nearness, held_out: Nearness) -> float:
    """Median distance to the nearest training image, over that of held-out real images.

    Below 1: nearer to the training images than unseen real ones are.

    Raises: DataError where more than half of the held-out images equal a training image.
    """
    reference = np.median(held_out.distance)
    if reference == 0:
        raise DataError("at least half of the held-out images have a training image's features")
    return float(np.median(generated.distance) / reference)


def share_near(generated: Nearness, held_out: Nearness) -> float:
    """Share nearer to a training image than the held-out images' 1st percentile.

    0.01 is what unseen real images give.
    """
    return float((generated.distance < np.quantile(held_out.distance, SHARE_QUANTILE)).mean())


def authenticity(generated: Nearness) -> float:
    """Share of images that are no nearer to their training image than its own nearest other is.

    Source: Alaa et al. 2022, "How Faithful is your Synthetic Data?", section 4.3, as the text
    has it: over generated images. (The published code indexes the training distances with
    positions of generated images.)
    """
    return float(generated.authentic.mean())


def copying_statistic(generated: Nearness, held_out: Nearness) -> float:
    """C_T: a z-score, averaged over cells, of distances to the training images.

    Within a cell, the Mann-Whitney U of generated against held-out distances, standardized;
    cells weigh by their share of held-out images, and cells with fewer than 20 generated images
    (or one cell without held-out images) are left out. Far below 0: copying (below -3 in a
    single cell is rare by chance). Far above 0: underfitting.

    Raises: DataError where no cell is left.
    Source: Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in Generative
    Models", section 3.3; ties count one half, no continuity correction.
    """
    weights, scores = [], []
    for number in np.unique(held_out.cell):
        unseen = held_out.cell_distance[held_out.cell == number]
        made = generated.cell_distance[generated.cell == number]
        if len(made) < FEWEST_GENERATED_PER_CELL:
            continue
        weights.append(len(unseen) / len(held_out))
        scores.append(_mann_whitney_z(made, unseen))
    if not weights:
        raise DataError(
            f"no cell holds both held-out and {FEWEST_GENERATED_PER_CELL} generated images"
        )
    return float(np.average(scores, weights=weights))


def distinct(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Indices, ascending, of each distinct image's first occurrence; images: (N, ...) uint8."""
    seen: set[bytes] = set()
    keep = []
    for index, image in enumerate(images):
        key = image.tobytes()
        if key not in seen:
            seen.add(key)
            keep.append(index)
    return np.array(keep, dtype=np.int64)


def unseen(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Indices, ascending, of the distinct images that equal no training image."""
    known = {image.tobytes() for image in training}
    first = distinct(images)
    keep = [index for index in first if images[index].tobytes() not in known]
    return np.array(keep, dtype=np.int64)


def _cells(training: Features, num_cells: int, seed: int) -> tuple[Features, NDArray[np.int64]]:
    """k-means: centroids of the cells that hold training images, each training image's cell."""
    rng = np.random.default_rng(seed)
    centroids = training[[rng.integers(len(training))]]
    while len(centroids) < min(num_cells, len(training)):
        # k-means++: the next start is drawn in proportion to its squared distance to the others.
        squared = nearest(training, centroids)[0] ** 2
        if squared.sum() == 0:
            break
        chosen = rng.choice(len(training), p=squared / squared.sum())
        centroids = np.concatenate([centroids, training[[chosen]]])
    for _ in range(KMEANS_STEPS):
        _, cell = nearest(training, centroids)
        centroids = np.stack([training[cell == number].mean(axis=0) for number in np.unique(cell)])
    _, cell = nearest(training, centroids)
    filled, cell = np.unique(cell, return_inverse=True)
    return centroids[filled], cell.astype(np.int64)


def _mann_whitney_z(made: Features, unseen_distances: Features) -> float:
    """Standardized count of pairs in which ``made`` is the larger."""
    from scipy.stats import rankdata  # a second to import, which a run without scores has not

    num_made, num_unseen = len(made), len(unseen_distances)
    ranks = rankdata(np.concatenate([made, unseen_distances]))
    larger = ranks[:num_made].sum() - num_made * (num_made + 1) / 2
    num_pairs = num_made * num_unseen
    return float((larger - num_pairs / 2) / np.sqrt(num_pairs * (num_made + num_unseen + 1) / 12))


PAIRS = 16
PAIRS_A_ROW = 8
GAP_PIXELS = 2
ROW_GAP_PIXELS = 8


def closest_pairs(
    generated: NDArray[np.uint8],
    training: NDArray[np.uint8],
    distance: Features,
    nearest_index: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Up to 16 pairs, closest first, 8 a row: the generated image above its training image.

    generated: (N, C, H, W) uint8, with the distance to and index of each image's nearest among
    ``training``, both (N,).
    Gives (height, width, C) uint8.
    """
    chosen = np.argsort(distance, kind="stable")[:PAIRS]
    _, channels, height, width = generated.shape
    pair_height = 2 * height + GAP_PIXELS
    num_rows = -(-len(chosen) // PAIRS_A_ROW)
    num_columns = min(len(chosen), PAIRS_A_ROW)
    sheet = np.full(
        (
            num_rows * (pair_height + ROW_GAP_PIXELS) - ROW_GAP_PIXELS,
            num_columns * (width + GAP_PIXELS) - GAP_PIXELS,
            channels,
        ),
        255,
        dtype=np.uint8,
    )
    for place, index in enumerate(chosen):
        top = place // PAIRS_A_ROW * (pair_height + ROW_GAP_PIXELS)
        left = place % PAIRS_A_ROW * (width + GAP_PIXELS)
        below = top + height + GAP_PIXELS
        columns = slice(left, left + width)
        sheet[top : top + height, columns] = generated[index].transpose(1, 2, 0)
        below_it = training[nearest_index[index]]
        sheet[below : below + height, columns] = below_it.transpose(1, 2, 0)
    return sheet
