"""What every score asks of its input, said once: finite float64 rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungan.errors import DataError

Features = NDArray[np.float64]


def as_rows(name: str, rows: ArrayLike, at_least: int = 1) -> Features:
    """``rows`` (N, D) as float64.

    Raises: DataError where they are not two-dimensional, not finite, or fewer than ``at_least``.
    """
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name} must be (N, D), got {array.shape}")
    if len(array) < at_least:
        raise DataError(f"{name} must be of at least {at_least} images, got {len(array)}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(axis=1)).sum())
        raise DataError(f"{name} must be finite, but {bad} of {len(array)} images give NaN or inf")
    return array


def as_pair(
    first_name: str, first: ArrayLike, second_name: str, second: ArrayLike, at_least: int = 1
) -> tuple[Features, Features]:
    """Two sets of rows of one width.

    Raises: DataError where either is unfit or the widths differ.
    """
    one = as_rows(first_name, first, at_least)
    two = as_rows(second_name, second, at_least)
    if one.shape[1] != two.shape[1]:
        raise DataError(
            f"{first_name} and {second_name} must have the same width, "
            f"got {one.shape[1]} and {two.shape[1]}"
        )
    return one, two
