"""Features of real images and what follows from them alone, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lungan.data.cache import read_arrays
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.files import atomic_write, cache_folder
from lungan.scores.encoders import Encoded, Encoder

VERSION = 2
"""Part of every key: raised when the same images would give other numbers."""

log = logging.getLogger(__name__)


def features_key(images: ImageSet, encoder: Encoder) -> str:
    """Hash (64 hex digits) of the images and of the encoder with its precision."""
    return hash_of([images.content_hash, encoder.name, encoder.weights_hash, *encoder.notes])


def hash_of(parts: Sequence[Any]) -> str:
    """Hash (64 hex digits) of plain values."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


def encode_real(
    images: ImageSet,
    encoder: Encoder,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Features and logits of all images, from the cache where they are there.

    A damaged entry is made again; a cache that cannot be written is said in the log.
    """
    path = cache_folder() / "features" / f"{encoder.name}-{features_key(images, encoder)}.npz"
    if _exists(path):
        try:
            found = _as_encoded(path, len(images), encoder)
        except DataError as error:
            log.warning("cached features are made again: %s", error)
        else:
            if progress is not None:
                progress(len(images))
            return found
    encoded = encoder.encode(images.images, batch_size, progress)
    _keep(path, lambda file: np.savez(file, features=encoded.features, logits=encoded.logits))
    return encoded


def computed_once(key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A plain mapping from the cache, else computed and kept there."""
    path = cache_folder() / "floors" / f"{key}.json"
    if _exists(path):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return found
        except (OSError, ValueError, RecursionError) as error:
            log.warning("cached floors are made again: %s: %s", path, error)
    value = compute()
    _keep(path, lambda file: file.write(json.dumps(value).encode()))
    return value


def _as_encoded(path: Path, num_images: int, encoder: Encoder) -> Encoded:
    arrays = read_arrays(path)
    for key, width in (("features", encoder.feature_dim), ("logits", encoder.num_classes)):
        if key not in arrays:
            raise DataError(f"{path} lacks {key}")
        if arrays[key].shape != (num_images, width) or arrays[key].dtype != np.float32:
            raise DataError(f"{path}: {key} must be ({num_images}, {width}) float32")
    return Encoded(arrays["features"], arrays["logits"])


def _keep(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            write(file)
    except OSError as error:
        log.warning("%s is not cached (set LUNGAN_CACHE to a writable folder): %s", path, error)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A folder on the way may not be entered; writing says so in the log.
        return False
