"""Arrays from .npz files that nobody vouches for: never unpickled, every failure one line."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.errors import DataError


def read_arrays(path: Path, keys: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz, those of ``keys`` only where given; absent keys are left out.

    Raises: DataError where the file is missing, damaged, not an .npz, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} must be an .npz archive, got a single array")
            names = archive.files if keys is None else [key for key in archive.files if key in keys]
            arrays = {name: archive[name] for name in names}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except ValueError as error:
        if "allow_pickle=False" in str(error):
            raise DataError(
                f"{path} must be an .npz of plain arrays; it is not an .npz, or holds Python "
                "objects, which are never unpickled"
            ) from error
        raise DataError(f"{path} is damaged or not an .npz: {error}") from error
    except (
        EOFError,
        MemoryError,
        NotImplementedError,
        OSError,
        RuntimeError,
        SyntaxError,
        TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is damaged or not an .npz: {reason}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} must hold arrays, but {name} is a plain file")
    return arrays
