"""Sinks: what a run's events become on disk and on the screen."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

from lungan.files import append_line, json_line, write_bytes, write_whole
from lungan.runs import pictures
from lungan.runs.folder import CHECKPOINT, LOG, METRICS, read_metrics, sample_path
from lungan.runs.store import Claim
from lungan.training.events import Checkpoint, EpochEnd, EpochStart, Event, Samples, StepEnd

LINE_EVERY_SECONDS = 30.0

log = logging.getLogger(__name__)


class FolderSink:
    """Writes metrics, samples and checkpoints; each stays good whenever the process is killed."""

    def __init__(self, folder: Path, claim: Claim, continued_from: str | None) -> None:
        self._folder = folder
        self._claim = claim
        self._origin = {"run": folder.name, "continued_from": continued_from}

    def __call__(self, event: Event) -> None:
        match event:
            case EpochEnd():
                append_line(self._folder / METRICS, dict(event.metrics))
            case Samples():
                path = sample_path(self._folder, event.epoch)
                with pictures.spared(f"samples of epoch {event.epoch}"):
                    pictures.write_png(path, pictures.grid(event.images))
            case Checkpoint():
                self._claim.assert_held()
                with write_whole(self._folder / CHECKPOINT) as stream:
                    threads = torch.get_num_threads()
                    torch.save({"state": event.state, "threads": threads, **self._origin}, stream)


def rewind_metrics(folder: Path, epoch: int) -> None:
    """Drop what metrics.jsonl holds of epochs after the checkpoint that the run continues from.

    Raises: RunFolderError where the file cannot be read or written.
    """
    rows = [row for row in read_metrics(folder) if row["epoch"] <= epoch]
    lines = "".join(json_line(row) for row in rows)
    write_bytes(folder / METRICS, lines.encode())


class LogFile(logging.FileHandler):
    """log.txt of a run folder. A disk that cannot take it ends no run: what the run's other files
    miss is said by them, in one line."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOG, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class ProgressSink:
    """A bar on a terminal and in a notebook; elsewhere a line in the log at the first epoch and
    then every half minute. name: what sets the run apart in its sweep; empty outside of sweeps."""

    def __init__(self, name: str, epochs: int) -> None:
        self._epochs = epochs
        self._shows_bar = sys.stderr.isatty() or issubclass(tqdm, tqdm_notebook)
        self._bar: Any = None
        self._prefix = f"{name}: " if name else ""
        self._began = time.monotonic()
        self._spoke = -LINE_EVERY_SECONDS
        self._first_epoch = 0

    def __call__(self, event: Event) -> None:
        match event:
            case EpochStart() if self._first_epoch == 0:
                self._first_epoch = event.epoch
                if self._shows_bar:
                    self._bar = tqdm(
                        total=self._epochs * event.num_steps,
                        initial=(event.epoch - 1) * event.num_steps,
                        desc=f"{self._prefix}epoch {event.epoch}/{self._epochs}",
                        unit="step",
                        dynamic_ncols=True,
                        bar_format="{desc} {percentage:3.0f}% {bar} {remaining} left{postfix}",
                    )
            case StepEnd() if self._bar is not None:
                self._bar.update()
            case EpochEnd():
                self._epoch(event)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _epoch(self, event: EpochEnd) -> None:
        figures = (
            f"generator {event.metrics['loss_generator']:.3f}, "
            f"discriminator {event.metrics['loss_discriminator']:.3f}, "
            f"{event.metrics['images_per_second']:.0f} images/s"
        )
        if self._bar is not None:
            self._bar.set_description_str(
                f"{self._prefix}epoch {min(event.epoch + 1, self._epochs)}/{self._epochs}",
                refresh=False,
            )
            self._bar.set_postfix_str(figures)
            return
        now = time.monotonic()
        if now - self._spoke < LINE_EVERY_SECONDS and event.epoch < self._epochs:
            return
        self._spoke = now
        per_epoch = (now - self._began) / (event.epoch - self._first_epoch + 1)
        left = per_epoch * (self._epochs - event.epoch)
        log.info(
            "%sepoch %d/%d: losses %s, %s left",
            self._prefix,
            event.epoch,
            self._epochs,
            figures,
            tqdm.format_interval(left),
        )
