"""Weights & Biases as a sink that can neither stop nor slow a run.

All of it, the import included, happens in one daemon thread behind a bounded queue; every wait
is bounded, and what goes wrong there is one warning. The run folder stays the truth.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lungan.config import WandbConfig
from lungan.errors import RunFolderError
from lungan.runs import folder as names
from lungan.tracking.wandb_recording import Record, Recorder, SavedSamples, sync_line
from lungan.training.events import EpochEnd, Event, RunEnd, Samples

ID_DIGITS = 16
MAX_PENDING = 1000
CLOSE_SECONDS = 10.0
"""Longest wait of ``close``: a failed online start, then an offline one, with time to spare."""

log = logging.getLogger(__name__)


class WandbSink:
    """One W&B run, named by the run id: a continued run is the same W&B run.

    What the folder holds of earlier epochs is recorded again first, since an offline recording
    replaces what was synced under its id before: each recording is whole.
    """

    def __init__(
        self,
        config: WandbConfig,
        *,
        folder: Path,
        run_id: str,
        name: str,
        run_config: dict[str, Any],
        group: str | None,
        job_type: str,
        tags: list[str],
    ) -> None:
        self._pending: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._num_dropped = 0
        self._abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        if config.mode == "disabled":
            return
        start = {
            "project": config.project,
            "entity": config.entity,
            "dir": str(folder.resolve()),
            "id": run_id[:ID_DIGITS],
            "name": name,
            "config": run_config,
            "group": group,
            "job_type": job_type,
            "tags": tags,
        }
        earlier = list(_earlier(folder))
        recorder = Recorder(config.mode, start, earlier, self._pending, self._abandoned)
        self._thread = threading.Thread(target=recorder.work, name="wandb sink", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if self._thread is None or not isinstance(event, EpochEnd | Samples | RunEnd):
            return
        if self._pending.qsize() < MAX_PENDING:
            self._pending.put(event)
        elif self._thread.is_alive():
            self._num_dropped += 1

    def close(self) -> None:
        """Wait for W&B to take what is pending, for ``CLOSE_SECONDS`` at most."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        self._pending.put(None)
        thread.join(CLOSE_SECONDS)
        if thread.is_alive():
            self._abandoned.set()
            self._num_dropped += max(0, self._pending.qsize() - 1)
            log.warning("W&B did not finish within %.0f s and is left behind", CLOSE_SECONDS)
        if self._num_dropped:
            log.warning(
                "W&B lacks %d of this run's records; the run folder has them all",
                self._num_dropped,
            )


def sync_command(folder: Path) -> str | None:
    """The line that uploads the newest offline recording of a run folder; None where there is
    none or W&B has marked it as uploaded."""
    recordings = sorted((folder / names.WANDB).glob("offline-run-*"))
    if not recordings or any(recordings[-1].glob("*.synced")):
        return None
    return sync_line(recordings[-1])


def _earlier(folder: Path) -> Iterator[Record]:
    """The epochs that the folder holds, in order."""
    try:
        rows = names.read_metrics(folder)
    except RunFolderError as error:
        log.warning("W&B lacks this run's earlier epochs: %s", error)
        return
    for row in rows:
        yield EpochEnd(row["epoch"], {key: row[key] for key in row if row[key] is not None})
        path = names.sample_path(folder, row["epoch"])
        if path.is_file():
            yield SavedSamples(row["epoch"], path)
