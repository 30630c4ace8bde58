"""The store: a folder of run folders, shared by any number of processes and machines.

It answers one question, under one lock: this run, is it done, under way elsewhere, to be
continued, or to be started?

A claim is the right to write one run folder: a small file with its owner's name. Taking one is
decided under the store's lock, held for milliseconds. The owner touches its claim every few
seconds; an owner on this machine is dead when its process is, one elsewhere when its claim has not
been touched for ``LEASE_SECONDS`` by the file server's own clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lungan.config import RunConfig
from lungan.config.run import run_id
from lungan.errors import RunFolderError
from lungan.files import DamagedError, at_home, read_json, write_json, write_whole
from lungan.runs.folder import (
    CHECKPOINT,
    CLAIM,
    HASH_DIGITS,
    METRICS,
    SAMPLES,
    SCORES,
    SUMMARY,
    Run,
    exclusive,
    read_run,
    remove_unfinished,
)

BEAT_SECONDS = 10.0
LEASE_SECONDS = 120.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """``trajectory`` and ``run``: 64 hex digits each; ``slug``: for people."""

    trajectory: str
    run: str
    epochs: int
    slug: str

    @property
    def name(self) -> str:
        """The name that a new folder of the run gets."""
        return f"{self.slug}-{self.run[:HASH_DIGITS]}"


def store_path(config: RunConfig) -> Path:
    """The store's folder; ``~`` is the user's own."""
    return at_home(config.store)


class BusyError(RunFolderError):
    """Another live process has the run, or the shorter one that this one goes on from."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self.state = f"under way in process {owner.pid} on {owner.host}"
        super().__init__(
            f"{folder} is {self.state}; wait for it, or stop it and repeat the command"
        )


@dataclass(frozen=True, slots=True)
class Claimed:
    """The run is this process's to do. ``shorter``: the finished run that it can go on from; its
    own checkpoint, where it has one, may lie behind or ahead of that one's."""

    folder: Path
    claim: Claim
    shorter: Run | None


class Store:
    """A store as it is when it is looked at, at construction and at each claim. ``names``: its run
    folders by the hash that their names end in, whatever people or earlier versions put before.

    Raises: RunFolderError where it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = self._look()

    def _look(self) -> dict[str, str]:
        try:
            with os.scandir(self.root) as entries:
                names = [each.name for each in entries if each.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise RunFolderError(
                f"store={self.root} cannot be read: {error.strerror}; choose another with "
                "store=<folder>, or make this one readable"
            ) from error
        by_hash = {name.rpartition("-")[2]: name for name in names}
        return {digits: by_hash[digits] for digits in by_hash if len(digits) == HASH_DIGITS}

    def folder(self, identity: RunIdentity) -> Path:
        return self.root / self.names.get(identity.run[:HASH_DIGITS], identity.name)

    def run(self, identity: RunIdentity) -> Run:
        """The run as far as it has come; one that is absent or damaged is unfinished."""
        folder = self.folder(identity)
        with contextlib.suppress(RunFolderError):
            return read_run(folder)
        return Run(folder, {})

    def claim(self, identity: RunIdentity, *, retry_diverged: bool = False) -> Run | Claimed:
        """Decide who does the run; gives its result where it has one. A failed run is always
        retried, a diverged one when asked.

        Raises: BusyError where another process has the run, or a shorter one of its trajectory;
        RunFolderError where the store cannot be read or written.
        """
        with exclusive(self.root):
            self.names = self._look()
            folder = self.folder(identity)
            run = read_run(folder)
            if (found := run.summary.get("run_id", identity.run)) != identity.run:
                raise RunFolderError(
                    f"{folder} belongs to run {found[:16]}, not {identity.run[:16]}: "
                    "their ids begin alike; use another store=<folder> for this run"
                )
            if run.status == "done" or (run.status == "diverged" and not retry_diverged):
                return run
            check_free(folder)
            shorter = self.shorter(identity)
            claim = Claim(folder)
            remove_unfinished(folder)
            (folder / SUMMARY).unlink(missing_ok=True)
            if run.status == "diverged":
                (folder / CHECKPOINT).unlink(missing_ok=True)
            return Claimed(folder, claim, shorter)

    def is_busy(self, identity: RunIdentity) -> bool:
        """Whether a process is at work on the run, or on a shorter one of its trajectory."""
        try:
            check_free(self.folder(identity))
            self.shorter(identity)
        except BusyError:
            return True
        return False

    def shorter(self, identity: RunIdentity) -> Run | None:
        """The longest finished run of fewer epochs on the trajectory, to go on from.

        Raises: BusyError where a process is at work on a shorter one, since whoever trains beside
        it does its epochs twice.
        """
        # A run's id follows from its trajectory and epochs, so its shorter siblings are found
        # by name, with no index to keep.
        for epochs in range(identity.epochs - 1, 0, -1):
            sibling = run_id(identity.trajectory, epochs)
            name = self.names.get(sibling[:HASH_DIGITS])
            if name is None:
                continue
            folder = self.root / name
            check_free(folder)
            try:
                run = read_run(folder)
            except RunFolderError as error:
                log.warning("%s", error)
                continue
            is_whole = run.status == "done" and (folder / CHECKPOINT).exists()
            if is_whole and run.summary["run_id"] == sibling:
                return run
        return None


@contextlib.contextmanager
def claimed_finished(folder: Path) -> Iterator[None]:
    """Hold the claim on the folder of a finished run, to add to it. Raises: RunFolderError."""
    with exclusive(folder.parent):
        check_free(folder)
        claim = Claim(folder)
    try:
        yield
    finally:
        claim.release()


def adopt(shorter: Path, folder: Path) -> None:
    """Give a run the checkpoint, metrics and samples of the shorter run that it continues.

    Raises: RunFolderError where the store cannot be written.
    """
    try:
        if (shorter / SAMPLES).is_dir():
            shutil.copytree(shorter / SAMPLES, folder / SAMPLES, dirs_exist_ok=True)
        # The checkpoint last: with it, the rest counts.
        scores = [SCORES] if (shorter / SCORES).exists() else []
        for name in (*scores, METRICS, CHECKPOINT):
            with (shorter / name).open("rb") as source, write_whole(folder / name) as target:
                shutil.copyfileobj(source, target)
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be given the checkpoint of {shorter}: {error.strerror or error}; "
            "free space there and let this user read the one and write the other"
        ) from error


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
        self.path = folder / CLAIM
        self._owner = Owner.this_process()
        write_json(self.path, dataclasses.asdict(self._owner))
        self._released = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._thread.start()

    def assert_held(self) -> None:
        """Raises: RunFolderError where another process has taken the run over."""
        if self._lost or read_owner(self.path) != self._owner:
            raise RunFolderError(
                f"{self.path.parent} was taken over by another process, since this one did not "
                f"answer for {LEASE_SECONDS:.0f} s; this one stops, and the other goes on"
            )

    def release(self) -> None:
        self._released.set()
        try:
            self._thread.join()
        finally:  # also where an interrupt ends the waiting
            if read_owner(self.path) == self._owner:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                if read_owner(self.path) != self._owner:
                    self._lost = True
                    return
                os.utime(self.path)
            except (OSError, RunFolderError) as error:
                # A server that is away for a moment is no reason to stop.
                log.warning("%s cannot be touched: %s", self.path, error)


def read_owner(path: Path) -> Owner | None:
    """Who holds the claim at ``path``; None where nobody does or the file is damaged."""
    try:
        values = read_json(path, {name: int if name == "pid" else str for name in Owner.__slots__})
        return Owner(**{name: values[name] for name in Owner.__slots__})
    except DamagedError as error:
        log.warning("%s: it does not count as a claim", error)
        return None
    except RunFolderError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def check_free(folder: Path) -> None:
    """Raises: BusyError where a process is at work on the run folder."""
    if (owner := live_owner(folder)) is not None:
        raise BusyError(folder, owner)


def live_owner(folder: Path) -> Owner | None:
    """Who is at work on the run folder now; None where nobody is or its last owner is dead."""
    path = folder / CLAIM
    owner = read_owner(path)
    if owner is None:
        return None
    dead = owner.is_dead_here()
    if dead is None:
        # Nobody touches a file in the future: a live owner's age is small either way.
        dead = abs(_age_seconds(path)) > LEASE_SECONDS
    return None if dead else owner


def _age_seconds(path: Path) -> float:
    """Since the file was touched, by the clock of the file's own server, not this machine's."""
    probe = path.with_name(f".{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:  # released meanwhile
        return LEASE_SECONDS + 1
    except OSError:  # where nothing can be written, nobody can claim either, and any clock serves
        return time.time() - path.stat().st_mtime
    finally:
        with contextlib.suppress(OSError):
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
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:  # ended, or on a system without /proc
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return ""
        except PermissionError:
            pass
        return "unknown"
