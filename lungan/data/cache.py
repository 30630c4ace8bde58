"""Arrays in .npz files: read without unpickling, and kept so that decoding happens once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan import memory
from lungan.errors import DataError, LunganError
from lungan.files import cache_folder, cached

Arrays = dict[str, NDArray[Any]]

ANY_BYTES = 2**26
MAX_RATIO = 100
"""What a file may unpack to: any file to so many bytes, a larger one to so many times its size.
Deflate packs 1032 equal bytes into one, which only a file of nothing but them comes near."""


def load_or_make(key: str, names: set[str], make: Callable[[], Arrays]) -> Arrays:
    """The arrays of these names cached under ``key``, else those of ``make()``, then cached.

    key: fit for a file name, and different wherever ``make`` would give other arrays: it should
    carry a hash of all that goes in, the maker's version included.
    """

    def read(path: Path) -> Arrays:
        arrays = read_arrays(path)
        return {name: arrays[name] for name in names}

    return cached(
        cache_folder() / "sets" / f"{key}.npz",
        read,
        make,
        lambda file, arrays: np.savez(file, **arrays),  # type: ignore[arg-type]
    )


def read_arrays(path: Path) -> Arrays:
    """All arrays of an .npz.

    Raises: DataError where the file is missing, damaged, not an .npz, or holds Python objects;
    ConfigError where there is no memory for them.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} must be an .npz archive, got a single array")
        with archive:
            # Arrays that are large only once they are unpacked are no images.
            members = [] if archive.zip is None else archive.zip.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(ANY_BYTES, MAX_RATIO * path.stat().st_size):
                raise DataError(
                    f"{path} unpacks to {unpacked // 2**20} MiB, more than {MAX_RATIO} times its "
                    "size, which images do not; if it is sound, save it by numpy.savez, which does "
                    "not compress"
                )
            memory.check(unpacked, f"what {path} unpacks to", "save a part of its images")
            arrays = {name: archive[name] for name in archive.files}
    except LunganError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    # numpy and zipfile answer damaged files with whatever exception comes up.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        # What numpy says of objects, and of any file that is neither an array nor an archive.
        if "pickle" in reason:
            raise DataError(
                f"{path} must be an .npz of plain arrays; it is not an .npz, or holds Python "
                "objects, which are never unpickled"
            ) from error
        raise DataError(f"{path} is damaged or not an .npz: {reason}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} must hold arrays, but {name} is a plain file")
    return arrays
