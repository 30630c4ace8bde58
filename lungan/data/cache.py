"""The cache folder, and image sets kept in it so that drawing or decoding happens once."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lungan.data.arrays import read_arrays
from lungan.data.images import ImageSet
from lungan.errors import DataError

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$LUNGAN_CACHE``, else ``$XDG_CACHE_HOME/lungan``, else ``~/.cache/lungan``; not made."""
    if own := os.environ.get("LUNGAN_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification has relative paths ignored.
    if shared and Path(shared).is_absolute():
        return Path(shared) / "lungan"
    return Path.home() / ".cache" / "lungan"


def load_or_make(key: str, make: Callable[[], ImageSet]) -> ImageSet:
    """The set cached under ``key``, else ``make()``, which is then cached.

    key: fit for a file name, and different wherever ``make`` would give other images: it should
    carry a hash of all that goes in, the maker's version included.
    A damaged entry is made again. Where the cache cannot be written, the set is still returned;
    both are said in the log.
    """
    path = cache_folder() / "sets" / f"{key}.npz"
    if _is_file(path):
        try:
            return _read(path)
        except DataError as error:
            log.warning("cache entry is made again: %s", error)
    images = make()
    try:
        _write(path, images)
    except OSError as error:
        log.warning("images are not cached (set LUNGAN_CACHE to a writable folder): %s", error)
    return images


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name ``path`` at the end, or leaves nothing behind."""
    temporary = path.with_name(f".{path.name[:100]}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of the processes that would make ``path``, one at a time; the next then finds it made.

    The system drops the lock when its holder dies. Where the folder cannot be written, nothing is
    kept there either, and nobody waits.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name[:100]}.lock").open("a")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> ImageSet:
    arrays = read_arrays(path)
    try:
        return ImageSet(
            images=arrays["images"],
            labels=arrays["labels"],
            splits=arrays["splits"],
            class_names=tuple(arrays["class_names"].tolist()),
            split_names=tuple(arrays["split_names"].tolist()),
            source=str(arrays["source"]),
        )
    except KeyError as error:
        raise DataError(f"{path} lacks {error}") from error


def _write(path: Path, images: ImageSet) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        np.savez(
            file,
            images=images.images,
            labels=images.labels,
            splits=images.splits,
            class_names=np.array(images.class_names),
            split_names=np.array(images.split_names),
            source=np.array(images.source),
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A folder on the way may not be entered; writing says so in the log.
        return False
