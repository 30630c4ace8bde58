"""A claim: the right to write one run folder, held by one process on one of many machines.

A claim is a small file with its owner's name. Taking one is decided under a file lock of the
store, held for milliseconds. The owner touches its claim every few seconds; an owner on this
machine is dead when its process is, one elsewhere when its claim has not been touched for
``LEASE_SECONDS`` by the file server's own clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungan.errors import RunFolderError
from lungan.runs import folder as names

BEAT_SECONDS = 10.0
LEASE_SECONDS = 120.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the store's lock; the system drops it when its holder dies, however that is.

    Raises: RunFolderError where the store cannot be written.
    """
    path = root / ".lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        raise RunFolderError(
            f"store={root} cannot be written: {error.strerror}; choose another with store=<folder>"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that it cannot be mistaken for a later one of the same number."""

    host: str
    system: str
    pid: int
    started: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        return cls(
            host=socket.gethostname(),
            system=_system(),
            pid=os.getpid(),
            started=_process_start(os.getpid()),
            token=uuid.uuid4().hex,
        )

    def is_dead_here(self) -> bool | None:
        """Whether the process has ended; None where it belongs to another machine."""
        if self.system != _system():
            return None
        return _process_start(self.pid) != self.started


class Claim:
    """Held from construction, which must happen inside ``exclusive``, until ``release``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / names.CLAIM
        self._owner = Owner.this_process()
        names.write_json(self.path, {name: getattr(self._owner, name) for name in Owner.__slots__})
        self._released = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._thread.start()

    def assert_held(self) -> None:
        """Raises: RunFolderError where another process has taken the run over."""
        owner = read_owner(self.path)
        if self._lost or owner is None or owner.token != self._owner.token:
            raise RunFolderError(
                f"{self.path.parent} was taken over by another process, since this one did not "
                f"answer for {LEASE_SECONDS:.0f} s; this one stops, and the other goes on"
            )

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        owner = read_owner(self.path)
        if owner is not None and owner.token == self._owner.token:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                owner = read_owner(self.path)
                if owner is None or owner.token != self._owner.token:
                    self._lost = True
                    return
                os.utime(self.path)
            except OSError as error:  # a server that is away for a moment is no reason to stop
                log.warning("%s cannot be touched: %s", self.path, error)


def read_owner(path: Path) -> Owner | None:
    """Who holds the claim at ``path``; None where nobody does or the file is damaged."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return Owner(**{name: values[name] for name in Owner.__slots__})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        log.warning("%s is damaged and does not count as a claim", path)
        return None


def live_owner(folder: Path) -> Owner | None:
    """Who is at work on the run folder now; None where nobody is or its last owner is dead."""
    path = folder / names.CLAIM
    owner = read_owner(path)
    if owner is None:
        return None
    dead = owner.is_dead_here()
    if dead is None:
        dead = _age_seconds(path) > LEASE_SECONDS
    return None if dead else owner


def _age_seconds(path: Path) -> float:
    """Since the file was touched, by the clock of the file's own server, not this machine's."""
    probe = path.with_name(f".{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:  # released meanwhile
        return LEASE_SECONDS + 1
    finally:
        probe.unlink(missing_ok=True)


def _system() -> str:
    """One boot of one machine and one process namespace: where process numbers are comparable."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _process_start(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty where there is no such process."""
    try:
        # The name of the program, in parentheses, may hold spaces: count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if not _exists(pid) else "unknown"
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
