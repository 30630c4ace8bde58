"""Splits by content: each image falls into train, val or test by the hash of its own pixels.

So exact duplicates stay on one side, and adding an image moves no other. The shares are met on
average, not exactly.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")

log = logging.getLogger(__name__)


def place_of(image: NDArray[Any]) -> float:
    """Where an image stands from 0 (first) to 1 (excluded), by shape, dtype and pixels alone."""
    digest = hashlib.sha256(f"{image.shape} {image.dtype.str}".encode())
    digest.update(np.ascontiguousarray(image).data)
    # 53 bits, as many as a float holds, so that rounding never gives 1.
    return (int.from_bytes(digest.digest()[:8], "big") >> 11) / 2**53


def partition(
    places: Sequence[float], val_fraction: float, test_fraction: float
) -> NDArray[np.int64]:
    """(N,) int64, an index into ``SPLITS``: val from the low end, test from the high one.

    A larger share of one takes images from train only, never from the other.
    """
    place = np.asarray(places, dtype=np.float64)
    splits = np.zeros(len(place), dtype=np.int64)
    splits[place < val_fraction] = SPLITS.index("val")
    splits[place >= 1 - test_fraction] = SPLITS.index("test")
    for name, fraction in (("val", val_fraction), ("test", test_fraction)):
        if fraction > 0 and not (splits == SPLITS.index(name)).any():
            log.warning(
                "data.%s_fraction=%g puts none of %d images into %s",
                name,
                fraction,
                len(place),
                name,
            )
    return splits
