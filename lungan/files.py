"""The cache folder, files that appear whole or not at all, and the lock under which one is made."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock

from lungan.errors import ConfigError

T = TypeVar("T")

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$LUNGAN_CACHE``, else ``$XDG_CACHE_HOME/lungan``, else ``~/.cache/lungan``; not made."""
    if own := os.environ.get("LUNGAN_CACHE"):
        return at_home(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification has relative paths ignored.
    if shared and Path(shared).is_absolute():
        return Path(shared) / "lungan"
    return Path.home() / ".cache" / "lungan"


def at_home(path: str | Path) -> Path:
    """The path with its ``~`` or ``~user`` replaced. Raises: ConfigError for no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} names a home folder that does not exist") from error


def is_folder_name(name: str) -> bool:
    """Whether a class of this name can have a folder of its own on every system."""
    return (
        0 < len(name) <= 100
        and name.isprintable()
        and not name.startswith(".")
        and name == name.strip()
        and not any(sign in name for sign in '/\\:*?"<>|')
    )


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that takes the name ``path`` at the end, or leaves nothing behind.

    Raises: OSError where the folder is absent or cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``; the next then finds it made.

    The system drops the lock when its holder dies. Where the folder cannot be written, nothing is
    kept there either, and nobody waits.
    """
    held = FileLock(path.with_name(f".{path.name[:100]}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):  # the latter: no locks on this disk
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def cached(
    path: Path,
    read: Callable[[Path], T],
    make: Callable[[], T],
    write: Callable[[BinaryIO, T], object],
) -> T:
    """What ``read`` finds in the cache's file ``path``, else what ``make`` gives, which ``write``
    keeps there; of several processes, one makes it.

    A damaged file is made again, and a cache that cannot be written is said in the log.
    """
    with lock(path):
        try:
            if path.is_file():
                return read(path)
        except Exception as error:  # whatever a damaged file makes its reader say
            log.warning("%s is damaged and made again: %s", path, error)
        value = make()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                write(file, value)
        except OSError as error:
            log.warning("%s is not cached (set LUNGAN_CACHE to a writable folder): %s", path, error)
    return value
