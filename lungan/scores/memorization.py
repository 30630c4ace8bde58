"""Memorization: do generated images lie nearer to training images than unseen real ones do?

The scores stand beside floors: what as many unseen real images would give, beside the same training
images and as many held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungan.classifiers.measures import count_above
from lungan.config import ScoreConfig
from lungan.errors import DataError
from lungan.scores.comparison import Measured, Rows, attempt, bootstrap_floors
from lungan.scores.distances import Features, in_float64
from lungan.scores.prdc import nearest

SHARE_QUANTILE = 0.01
HELD_OUT_PER_CELL = 50
MOST_CELLS = 10
FEWEST_GENERATED_PER_CELL = 20
KMEANS_STEPS = 10

FEWEST_HELD_OUT = 20
FEWEST_HELD_OUT_FOR_SHARE = 100
NONE_HELD_OUT = "no real images were held out from training to compare with"


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near each image of a set comes to the training images; all of shape (N,).

    distance, index: to and of the nearest training image. authentic: whether that distance
    exceeds the one from that training image to its own nearest other training image.
    cell, cell_distance: the part of the feature space that the image falls in, and the distance
    to the nearest training image of that part.
    """

    distance: Features
    index: Rows
    authentic: NDArray[np.bool_]
    cell: Rows
    cell_distance: Features

    def __len__(self) -> int:
        return len(self.distance)

    def take(self, rows: Rows) -> Nearness:
        return Nearness(*(getattr(self, one.name)[rows] for one in fields(self)))


def nearness(
    training: ArrayLike, images: Sequence[ArrayLike], num_cells: int, seed: int
) -> list[Nearness]:
    """The nearness of each of several sets of features to one training set.

    training: (N, D), N at least 2, exact duplicates left out (``distinct``), or a training image's
    own nearest other is at distance 0 and every image counts as authentic. ``num_cells`` parts come
    from k-means on the training features.
    """
    training, *images = in_float64(training, *images)
    own_distance, _ = nearest(training)
    centroids, training_cell = _cells(training, num_cells, seed)
    found = []
    for rows in images:
        distance, index = nearest(rows, training)
        _, cell = nearest(rows, centroids)
        cell_distance = np.empty(len(rows))
        for number in range(len(centroids)):
            here = cell == number
            cell_distance[here], _ = nearest(rows[here], training[training_cell == number])
        found.append(Nearness(distance, index, distance > own_distance[index], cell, cell_distance))
    return found


def suggested_cells(num_held_out: int) -> int:
    """As many cells as leave about 50 held-out images in each, at most 10."""
    return min(max(num_held_out // HELD_OUT_PER_CELL, 1), MOST_CELLS)


def distance_ratio(generated: Nearness, held_out: Nearness) -> float:
    """Median distance to the nearest training image, over that of held-out real images.

    Below 1: nearer to the training images than unseen real ones are.

    Raises: DataError where the held-out images' median distance is 0.
    """
    reference = np.median(held_out.distance)
    if reference == 0:
        raise DataError(
            "at least half of the held-out images have exactly the features of a training image, "
            "so no image can be nearer than they are; read the scores of another encoder"
        )
    return float(np.median(generated.distance) / reference)


def limit_of(held_out: Features) -> float:
    """The distance to the nearest training image that one in a hundred unseen real images falls
    below. held_out: (H,) of such images, by whatever distance."""
    return float(np.quantile(held_out, SHARE_QUANTILE))


def too_few_for_limit(num_held_out: int) -> str:
    """In words why the limit of so few held-out images says little; empty where they are enough."""
    if num_held_out >= FEWEST_HELD_OUT_FOR_SHARE:
        return ""
    if not num_held_out:
        return NONE_HELD_OUT
    return (
        f"the nearest 1 % of {num_held_out} held-out images is less than one image; at least "
        f"{FEWEST_HELD_OUT_FOR_SHARE} are needed"
    )


def share_near(generated: Features, held_out: Features) -> float:
    """Share of distances (N,) to the nearest training image that are below ``limit_of`` held-out
    images' (H,). 0.01 is what unseen real images give."""
    return float((generated < limit_of(held_out)).mean())


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
        num_pairs = len(made) * len(unseen)
        deviation = np.sqrt(num_pairs * (len(made) + len(unseen) + 1) / 12)
        weights.append(len(unseen) / len(held_out))
        scores.append((count_above(made, unseen) - num_pairs / 2) / deviation)
    if not weights:
        raise DataError(
            f"no cell holds both held-out and {FEWEST_GENERATED_PER_CELL} generated images"
        )
    return float(np.average(scores, weights=weights))


RELATIVE: dict[str, Callable[[Nearness, Nearness], float]] = {
    "memorization_distance_ratio": distance_ratio,
    "memorization_share": lambda one, two: share_near(one.distance, two.distance),
    "memorization_c_t": copying_statistic,
}
"""What needs held-out images; authenticity does without, but its floor does not."""


def compare_nearness(
    generated: Nearness,
    held_out: Nearness,
    config: ScoreConfig,
    groups: Rows | None = None,
) -> Measured:
    """The memorization scores, and their floors: what unseen real images would give.

    The floor draws N images and as many held-out ones as there are from the held-out images, with
    replacement, so that N, the training images and the number of held-out images are those of the
    score. groups: (H,) of the held-out images, which are then drawn whole.
    """
    found: Measured = {"authenticity": authenticity(generated)}
    number = len(held_out)
    if number < FEWEST_HELD_OUT:
        too_few = (
            f"too few held-out images for a verdict: {number}, at least {FEWEST_HELD_OUT} are "
            "needed"
        )
        reason = too_few if number else NONE_HELD_OUT
        return found | dict.fromkeys([*RELATIVE, "authenticity.floor"], reason)
    wanted = dict(RELATIVE)
    if reason := too_few_for_limit(number):
        del wanted["memorization_share"]
        found["memorization_share"] = reason

    def measure(one: Nearness, two: Nearness) -> Measured:
        scores: Measured = {}
        for key, score in wanted.items():
            scores |= attempt([key], score, one, two)
        return scores

    def draw(made: Rows, unseen: Rows, rng: np.random.Generator) -> Measured:
        # Authenticity compares with no held-out image, so the floor's own error is put in here.
        again = unseen[rng.integers(0, len(unseen), len(generated))]
        found = measure(held_out.take(made), held_out.take(unseen))
        return found | {"authenticity": authenticity(held_out.take(again))}

    found |= measure(generated, held_out)
    return found | bootstrap_floors(draw, number, len(generated), config, groups)


def distinct(images: NDArray[np.uint8]) -> Rows:
    """Indices, ascending, of each distinct image's first occurrence; images: (N, ...) uint8."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(images):
        first.setdefault(image.tobytes(), index)
    return np.array(list(first.values()), dtype=np.int64)


def unseen(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> Rows:
    """Indices, ascending, of the distinct images that equal no training image."""
    known = {image.tobytes() for image in training}
    keep = [index for index in distinct(images) if images[index].tobytes() not in known]
    return np.array(keep, dtype=np.int64)


def _cells(training: Features, num_cells: int, seed: int) -> tuple[Features, Rows]:
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
