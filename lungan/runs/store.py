"""The store: a folder of run folders, shared by any number of processes and machines.

It answers one question, under one lock: this run, is it done, under way elsewhere, to be
continued, or to be started?
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungan.config import RunConfig
from lungan.config.identity import run_id
from lungan.errors import RunFolderError
from lungan.runs import folder as names
from lungan.runs.claim import Claim, Owner, exclusive, live_owner

log = logging.getLogger(__name__)

HASH_DIGITS = 8


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """``trajectory`` and ``run``: 64 hex digits each; ``slug``: for people."""

    trajectory: str
    run: str
    epochs: int
    slug: str

    @property
    def name(self) -> str:
        """The run folder's name."""
        return f"{self.slug}-{self.digits}"

    @property
    def digits(self) -> str:
        """What the run folder's name ends in."""
        return self.run[:HASH_DIGITS]


def identify(config: RunConfig, trajectory: str) -> RunIdentity:
    slug = (
        f"{config.data.name}{config.data.size}-{config.generator.name}-{config.loss.name}"
        f"-{config.optimizer.name}-lr{config.optimizer.generator_lr:g}-{config.epochs}ep"
        f"-s{config.seed}"
    )
    return RunIdentity(trajectory, run_id(trajectory, config.epochs), config.epochs, slug)


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is done, diverged or failed before: its summary is the result."""

    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Busy:
    """Another live process has the run."""

    folder: Path
    owner: Owner


@dataclass(frozen=True, slots=True)
class Shorter:
    """The longest finished run of fewer epochs on the same trajectory."""

    folder: Path
    epochs: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The run is this process's to do. ``shorter``: what it can go on from; its own checkpoint,
    where it has one, may lie behind or ahead of that."""

    folder: Path
    claim: Claim
    shorter: Shorter | None


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def claim(
        self, identity: RunIdentity, *, retry_diverged: bool = False
    ) -> Finished | Busy | Claimed:
        """Decide who does the run. A failed run is always retried, a diverged one when asked.

        Raises: RunFolderError where the store cannot be read or written.
        """
        with exclusive(self.root):
            by_hash = self.folders()
            folder = self.root / by_hash.get(identity.digits, identity.name)
            summary = names.read_summary(folder)
            if summary is not None and summary["run_id"] != identity.run:
                raise RunFolderError(
                    f"{folder} belongs to run {summary['run_id'][:16]}, not {identity.run[:16]}: "
                    "their ids begin alike; use another store=<folder> for this run"
                )
            again = ("failed", "diverged") if retry_diverged else ("failed",)
            if summary is not None and summary["status"] not in again:
                return Finished(folder, summary)
            owner = live_owner(folder)
            if owner is not None:
                return Busy(folder, owner)
            shorter = self.shorter(identity, by_hash)
            if isinstance(shorter, Busy):
                return shorter
            claim = Claim(folder)
            names.remove_unfinished(folder)
            if summary is not None:
                self._clear(folder, keep_checkpoint=summary["status"] == "failed")
            return Claimed(folder, claim, shorter)

    def claim_finished(self, folder: Path) -> Claim | Busy:
        """The right to add to the folder of a finished run, such as scores.

        Raises: RunFolderError where the store cannot be written.
        """
        with exclusive(self.root):
            owner = live_owner(folder)
            return Claim(folder) if owner is None else Busy(folder, owner)

    def folders(self) -> dict[str, str]:
        """Run folders by the hash that their names end in."""
        folders: dict[str, str] = {}
        if not self.root.is_dir():
            return folders
        with os.scandir(self.root) as entries:
            for entry in entries:
                digits = entry.name.rpartition("-")[2]
                if len(digits) == HASH_DIGITS and entry.is_dir():
                    folders[digits] = entry.name
        return folders

    def owner(self, identity: RunIdentity, folders: dict[str, str]) -> Owner | None:
        """Who is at work on the run, or on a shorter one of its trajectory; None where it could
        be claimed."""
        owner = live_owner(self.root / folders.get(identity.digits, identity.name))
        if owner is not None:
            return owner
        shorter = self.shorter(identity, folders)
        return shorter.owner if isinstance(shorter, Busy) else None

    def shorter(self, identity: RunIdentity, folders: dict[str, str]) -> Shorter | Busy | None:
        """What the run can go on from; Busy where a process is at work on a shorter one, since
        whoever trains beside it does its epochs twice. folders: the store's."""
        # A run's id follows from its trajectory and epochs, so its shorter siblings are found
        # by name, with no index to keep.
        for epochs in range(identity.epochs - 1, 0, -1):
            sibling = run_id(identity.trajectory, epochs)
            name = folders.get(sibling[:HASH_DIGITS])
            if name is None:
                continue
            folder = self.root / name
            owner = live_owner(folder)
            if owner is not None:
                return Busy(folder, owner)
            try:
                summary = names.read_summary(folder)
            except RunFolderError as error:
                log.warning("%s", error)
                continue
            if (
                summary is not None
                and summary["run_id"] == sibling
                and summary["status"] == "done"
                and (folder / names.CHECKPOINT).exists()
            ):
                return Shorter(folder, epochs)
        return None

    @staticmethod
    def _clear(folder: Path, *, keep_checkpoint: bool) -> None:
        (folder / names.SUMMARY).unlink()
        if not keep_checkpoint:
            (folder / names.CHECKPOINT).unlink(missing_ok=True)


def adopt(shorter: Path, folder: Path) -> None:
    """Give a run the checkpoint, metrics and samples of the shorter run that it continues.

    Raises: RunFolderError where the store cannot be written.
    """
    try:
        if (shorter / names.SAMPLES).is_dir():
            shutil.copytree(shorter / names.SAMPLES, folder / names.SAMPLES, dirs_exist_ok=True)
        # The checkpoint last: with it, the rest counts.
        for name in (names.SCORES, names.METRICS, names.CHECKPOINT):
            if name == names.SCORES and not (shorter / name).exists():
                continue
            with (shorter / name).open("rb") as source, names.atomic_write(folder / name) as target:
                shutil.copyfileobj(source, target)
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be given the checkpoint of {shorter}: {error.strerror or error}"
        ) from error
