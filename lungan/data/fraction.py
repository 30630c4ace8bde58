"""A fraction of the training images: what a small data set is studied with.

Which images are kept follows from their pixels and a seed alone, not from their order, and a
smaller fraction is part of every larger one of the same seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lungan.data.images import ImageSet
from lungan.errors import ConfigError

LEFT_OUT = "left_out"
"""The split of the images that are not kept: nobody trains on them, scores may hold them out."""


def keep_fraction(
    image_set: ImageSet, splits: Sequence[str], fraction: float, seed: int
) -> ImageSet:
    """The set with only ``fraction`` of the images of ``splits`` still in them, class by class.

    At least one image of each class stays in each of ``splits``; the others move to ``LEFT_OUT``.

    Raises: ConfigError where no splits or unknown ones are named.
    """
    if not splits:
        raise ConfigError(
            "data.splits must name the splits that data.fraction is taken of, such as [train]; "
            "got [], all of them"
        )
    for name in splits:
        if name not in image_set.split_names:
            raise ConfigError(
                f"data.splits must be among {', '.join(image_set.split_names)}, got {name}"
            )
    moved = image_set.splits.copy()
    for name in splits:
        in_split = image_set.splits == image_set.split_names.index(name)
        for label in np.unique(image_set.labels[in_split]):
            members = np.flatnonzero(in_split & (image_set.labels == label))
            num_kept = max(1, round(fraction * len(members)))
            order = _order(image_set.images[members], seed)
            moved[members[order[num_kept:]]] = len(image_set.split_names)
    return ImageSet(
        images=image_set.images,
        labels=image_set.labels,
        splits=moved,
        class_names=image_set.class_names,
        split_names=(*image_set.split_names, LEFT_OUT),
        source=image_set.source,
    )


def _order(images: NDArray[np.uint8], seed: int) -> NDArray[np.intp]:
    """Indices of the images in the order of a keyed hash of their pixels; equal ones stay so."""
    key = seed.to_bytes(16, "big")
    places = [
        hashlib.blake2b(image.tobytes(), digest_size=16, key=key).digest() for image in images
    ]
    return np.array(sorted(range(len(places)), key=places.__getitem__), dtype=np.intp)
