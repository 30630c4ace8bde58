"""What a run trains on, as tensors on its device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lungan.config import RunConfig
from lungan.data.images import ImageSet
from lungan.models.build import Classes

MAX_HELD_OUT = 256


@dataclass(frozen=True, slots=True)
class TrainingData:
    """images: (N, C, H, W) uint8. held_out: (M, C, H, W) uint8, M <= 256, real images of the same
    classes and of a split not trained on; None where there is none.

    classes, and labels (N,), (M,) int64 that count them: None where nothing is conditional.
    """

    images: Tensor
    labels: Tensor | None
    held_out: Tensor | None
    held_out_labels: Tensor | None
    classes: Classes | None


def gather(
    config: RunConfig, image_set: ImageSet, training_set: ImageSet, device: torch.device
) -> TrainingData:
    """The tensors of ``training_set``, which is what ``config.data`` selects of ``image_set``."""
    present, labels = np.unique(training_set.labels, return_inverse=True)
    chosen = _held_out(config.data.splits, image_set, present)
    conditional = config.generator.conditional
    held_out_labels = np.searchsorted(present, image_set.labels[chosen])

    def tensor(array: NDArray[np.generic], wanted: bool) -> Tensor | None:
        return torch.from_numpy(array).to(device) if wanted else None

    return TrainingData(
        images=torch.from_numpy(training_set.images).to(device),
        labels=tensor(labels, conditional),
        held_out=tensor(image_set.images[chosen], len(chosen) > 0),
        held_out_labels=tensor(held_out_labels, conditional and len(chosen) > 0),
        classes=classes_of(training_set) if conditional else None,
    )


def classes_of(training_set: ImageSet) -> Classes:
    """The classes that have images, in the set's order."""
    present, counts = np.unique(training_set.labels, return_counts=True)
    return Classes(
        tuple(training_set.class_names[index] for index in present),
        tuple((counts / counts.sum()).tolist()),
    )


def _held_out(
    splits: list[str], image_set: ImageSet, classes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where in ``image_set`` the images lie: evenly over the first split with any."""
    for index, name in enumerate(image_set.split_names):
        if not splits or name in splits:
            continue
        (found,) = np.nonzero((image_set.splits == index) & np.isin(image_set.labels, classes))
        if len(found):
            places = np.linspace(0, len(found) - 1, min(len(found), MAX_HELD_OUT))
            return found[places.astype(np.int64)]
    return np.empty(0, dtype=np.int64)
