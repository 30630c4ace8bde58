"""Arrays kept in the cache folder, so that drawing or decoding happens once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.data.npz import read_arrays
from lungan.errors import DataError
from lungan.files import atomic_write, cache_folder

Arrays = dict[str, NDArray[Any]]

log = logging.getLogger(__name__)


def load_or_make(key: str, names: set[str], make: Callable[[], Arrays]) -> Arrays:
    """The arrays of these names cached under ``key``, else those of ``make()``, then cached.

    key: fit for a file name, and different wherever ``make`` would give other arrays: it should
    carry a hash of all that goes in, the maker's version included.
    A damaged entry is made again. Where the cache cannot be written, the arrays are still
    returned; both are said in the log.
    """
    path = cache_folder() / "sets" / f"{key}.npz"
    if _is_file(path):
        try:
            return _read(path, names)
        except DataError as error:
            log.warning("cache entry is made again: %s", error)
    arrays = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        log.warning("images are not cached (set LUNGAN_CACHE to a writable folder): %s", error)
    return arrays


def _read(path: Path, names: set[str]) -> Arrays:
    arrays = read_arrays(path)
    if names - set(arrays):
        raise DataError(f"{path} lacks {', '.join(sorted(names - set(arrays)))}")
    return {name: arrays[name] for name in names}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A folder on the way may not be entered; writing says so in the log.
        return False
