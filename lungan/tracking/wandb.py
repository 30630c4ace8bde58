"""Weights & Biases as a sink that can neither stop nor slow a run.

All of it, the import of wandb included, which takes a second, happens in one daemon thread behind
a bounded queue; every wait is bounded, and what goes wrong there is one warning. The run folder
stays the truth.
"""

from __future__ import annotations

import itertools
import logging
import netrc
import os
import queue
import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lungan.config import WandbConfig
from lungan.errors import RunFolderError
from lungan.runs import pictures
from lungan.runs.folder import WANDB, read_metrics, sample_path
from lungan.training.events import EpochEnd, Event, RunEnd, Samples

if TYPE_CHECKING:
    import wandb

ID_DIGITS = 16
MAX_PENDING = 1000
CLOSE_SECONDS = 10.0
"""Longest wait of ``close``: a failed online start, then an offline one, with time to spare."""
START_SECONDS = 5.0
FINISH_SECONDS = 5.0

_EXIT_CODES = {"done": 0, "diverged": 3}
_UNFINISHED = 1
_INTERNAL_SETTINGS = {
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""What W&B calls internal settings: left out where an installed version lacks them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SavedSamples:
    """A grid that an earlier part of this run left in its folder."""

    epoch: int
    path: Path


Record = EpochEnd | Samples | SavedSamples | RunEnd


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
    recordings = sorted((folder / WANDB).glob("offline-run-*"))
    if not recordings or any(recordings[-1].glob("*.synced")):
        return None
    return sync_line(recordings[-1])


def _earlier(folder: Path) -> Iterator[Record]:
    """The epochs that the folder holds, in order."""
    try:
        rows = read_metrics(folder)
    except RunFolderError as error:
        log.warning("W&B lacks this run's earlier epochs: %s", error)
        return
    for row in rows:
        yield EpochEnd(row["epoch"], {key: row[key] for key in row if row[key] is not None})
        path = sample_path(folder, row["epoch"])
        if path.is_file():
            yield SavedSamples(row["epoch"], path)


class Recorder:
    """start: what wandb.init is given besides settings. earlier: recorded before ``pending``, in
    which None ends the work. abandoned: nobody waits for this thread any more."""

    def __init__(
        self,
        mode: str,
        start: dict[str, Any],
        earlier: Sequence[Record],
        pending: queue.SimpleQueue[Record | None],
        abandoned: threading.Event,
    ) -> None:
        self._mode = mode
        self._start_arguments = start
        self._records: Iterator[Record] = itertools.chain(earlier, iter(pending.get, None))
        self._abandoned = abandoned
        self._exit_code = _UNFINISHED
        self._refused = False

    def work(self) -> None:
        try:
            run = self._start()
        except ImportError as error:
            log.warning("W&B gets nothing; pip install wandb, or tracker=none: %s", error)
        # wandb leaves some paths by sys.exit, which would end the thread without a word.
        except (Exception, SystemExit) as error:
            if not self._abandoned.is_set():
                log.warning("W&B cannot start, so it gets nothing: %s", _in_words(error))
        else:
            self._record_all(run)
            self._finish(run)

    def _start(self) -> wandb.Run:
        # Crash reports would leave the machine even in offline mode. Read by wandb when imported.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if self._mode == "online" and not logged_in():
            log.warning(
                "W&B has no login here, so this run is recorded offline: "
                "wandb login, then the wandb sync line at the end"
            )
            self._mode = "offline"
        if self._mode == "offline":
            return self._init("offline")
        try:
            return self._init("online")
        except (Exception, SystemExit) as error:
            if self._abandoned.is_set():
                raise
            log.warning("W&B cannot be reached, recording offline: %s", _in_words(error))
        import wandb

        wandb.teardown()  # the failed start still holds the run's id
        return self._init("offline")

    def _init(self, mode: str) -> wandb.Run:
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        settings: dict[str, Any] = {
            "mode": mode,
            "silent": True,
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "save_code": False,
        }
        if mode == "online":
            settings["init_timeout"] = START_SECONDS
            settings["finish_timeout"] = FINISH_SECONDS
            settings["finish_timeout_raises"] = True
        known = wandb.Settings.model_fields
        settings |= {key: value for key, value in _INTERNAL_SETTINGS.items() if key in known}
        run = wandb.init(
            **self._start_arguments,
            # Offline, "allow" would append the whole recording to what was synced before.
            resume="allow" if mode == "online" else None,
            reinit="finish_previous",
            settings=wandb.Settings(**settings),
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        return run

    def _record_all(self, run: wandb.Run) -> None:
        first_step = run.step  # what a resumed run has is there already, and bit-identical
        for record in self._records:
            try:
                if isinstance(record, RunEnd) or record.epoch >= first_step:
                    self._record(run, record)
            except (Exception, SystemExit) as error:
                if not self._refused:
                    log.warning(
                        "W&B refused a record, and may refuse more; the run folder has them all: "
                        "%s",
                        _in_words(error),
                    )
                self._refused = True

    def _record(self, run: wandb.Run, record: Record) -> None:
        import wandb

        match record:
            case EpochEnd():
                metrics = {wandb_name(key): value for key, value in record.metrics.items()}
                run.log(metrics | {"epoch": record.epoch}, step=record.epoch)
            case Samples():
                sheet = pictures.grid(record.images)
                image = wandb.Image(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
                run.log({"samples": image, "epoch": record.epoch}, step=record.epoch)
            case SavedSamples():
                image = wandb.Image(str(record.path))
                run.log({"samples": image, "epoch": record.epoch}, step=record.epoch)
            case RunEnd():
                run.summary.update(flat_summary(record.summary))
                found = {"data_found": record.summary.get("data")}
                run.config.update(found)  # type: ignore[no-untyped-call]
                self._exit_code = _EXIT_CODES.get(record.summary["status"], _UNFINISHED)

    def _finish(self, run: wandb.Run) -> None:
        recording = Path(run.dir).parent
        try:
            run.finish(exit_code=self._exit_code)
        except TimeoutError:
            log.warning(
                "W&B has not taken all within %.0f s; upload the rest with: %s",
                FINISH_SECONDS,
                sync_line(recording),
            )
        except (Exception, SystemExit) as error:
            log.warning("W&B did not finish this run: %s", _in_words(error))


def wandb_name(key: str) -> str:
    """``domain.recall.floor`` to ``domain_recall_floor``: W&B sorts and filters by no dots."""
    return key.replace(".", "_")


_NOT_FLAT = ("config", "data", "scores")


def flat_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """summary.json's content as W&B's summary: scores by name, without config and nulls."""
    flat = {key: value for key, value in summary.items() if key not in _NOT_FLAT}
    if scores := summary.get("scores"):
        flat |= {wandb_name(key): value for key, value in scores["values"].items()}
        for key in ("epoch", "num_images", "scoring_id", "encoders", "reasons"):
            flat[f"scores_{key}"] = scores.get(key)
    return {key: value for key, value in flat.items() if value is not None}


def logged_in() -> bool:
    """Whether W&B finds credentials without asking for them. Raises: ImportError."""
    import wandb

    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    if settings.api_key or settings.identity_token_file:
        return True
    files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for f in files if f and (p := Path(f).expanduser()).is_file()), None)
    if path is None:
        return False
    try:
        return netrc.netrc(path).authenticators(urlsplit(settings.base_url).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def sync_line(recording: Path) -> str:
    return f"wandb sync {shlex.quote(str(recording))}"


def _in_words(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
