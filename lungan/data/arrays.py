"""Arrays from .npz files that nobody vouches for: never unpickled, every failure one line."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.errors import DataError


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz.

    Raises: DataError where the file is missing, damaged, not an .npz, or holds Python objects.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} must be an .npz archive, got a single array")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (
        EOFError,
        MemoryError,
        NotImplementedError,
        OSError,
        RuntimeError,
        SyntaxError,
        TokenError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
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
