"""W&B runs of what lies in a store, made afterwards from the run folders alone."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.config.run import WandbConfig
from lungan.errors import ConfigError, LunganError, RunFolderError
from lungan.runs.folder import CONFIG, SWEEPS, read_manifest, read_summary
from lungan.tracking.artifacts import data_artifact, generator_artifact, tables_artifact
from lungan.tracking.live import in_words
from lungan.tracking.records import Records, TrackedRun, TrackerError, describe_run, without_paths
from lungan.tracking.wandb import WandbTracker, is_sent, remember_sent

if TYPE_CHECKING:
    import wandb

WHOLE = "lungan.txt"
"""In an offline recording that has all of a run: what it has, and for where."""
ARTIFACTS = " artifacts"
"""Behind a destination in sent.json: it has the artifacts too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that can be uploaded. ``summary``: as summary.json has it, without paths."""

    tracked: TrackedRun
    summary: dict[str, Any]


def upload_line(store: Path, *, sweep: str | None = None, run: str | None = None) -> str:
    """The command that uploads a sweep, or a run, of a store."""
    chosen = ["--sweep", sweep] if sweep is not None else [run] if run is not None else []
    return shlex.join(["lungan", "upload", str(store), *chosen])


def choose_runs(
    store: Path, sweep: str | None, runs: Sequence[str]
) -> tuple[list[Finished], list[str]]:
    """The finished runs of a store, of a sweep, or of these folder names or their last digits; and
    a line for each that is passed over.

    Raises: RunFolderError where there is no such store, sweep or run.
    """
    if not store.is_dir():
        raise RunFolderError(f"the store must be a folder of runs, got {store}")
    folders = {path.parent.name: path.parent for path in sorted(store.glob(f"*/{CONFIG}"))}
    chosen = list(folders)
    if sweep is not None:
        digits = {run["run_id"][:8] for run in read_manifest(store, sweep)["runs"]}
        chosen = [name for name in folders if name.rpartition("-")[2] in digits]
    if runs:
        chosen = []
        for run in runs:
            found = [name for name in folders if run.rstrip("/") in (name, name.rpartition("-")[2])]
            if not found:
                raise RunFolderError(f"{store} has no run named {run}")
            chosen += found
    finished, passed_over = [], []
    for name in chosen:
        try:
            summary = read_summary(folders[name])
        except RunFolderError as error:
            passed_over.append(str(error))
            continue
        if summary is None:
            passed_over.append(f"{name} has not finished: train it to its end first")
            continue
        sweeps = summary.get("sweeps") or [None]
        tracked = describe_run(
            folders[name], summary["run_id"], summary["config"], sweep or sweeps[0]
        )
        finished.append(Finished(tracked=tracked, summary=without_paths(summary)))
    if not chosen:
        raise RunFolderError(f"the store {store} holds no run to upload")
    return finished, passed_over


def upload(
    runs: Sequence[Finished], config: WandbConfig, *, artifacts: bool = False
) -> Iterator[tuple[Finished, bool]]:
    """Send what W&B lacks of each run; gives each run, and whether there was something to send.

    A run that was broken off is sent whole once more, in place of what W&B has of it; runs that
    W&B has in full are not asked for. artifacts: the generator too, and which data it is from.

    Raises: TrackerError where W&B does not take a run.
    """
    for run in runs:
        folder = run.tracked.folder
        with tempfile.TemporaryDirectory(prefix="lungan-upload-") as directory:
            tracker = WandbTracker(config, run.tracked, directory=Path(directory))
            content = tracker.fingerprint(run.summary)
            is_new = not is_sent(folder, tracker.destination, content)
            mark = tracker.destination + ARTIFACTS
            if artifacts and not is_sent(folder, mark, content):
                made = generator_artifact(folder, run.summary, Path(directory))
                data = data_artifact(run.summary, Path(directory))
                _replay(tracker, run, used=[data], made=[made] if made is not None else [])
                remember_sent(folder, mark, content)
                is_new = True
            elif is_new:
                _replay(tracker, run)
        yield run, is_new


def upload_tables(store: Path, sweep: str, runs: Sequence[Finished], config: WandbConfig) -> bool:
    """Send a sweep's tables from a W&B run of their own, outside of the sweep's group, which used
    the runs' generators; gives whether W&B lacked them.

    Raises: TrackerError where W&B does not take them.
    """
    folder = store / SWEEPS / sweep
    ids = [run.tracked.run_id for run in runs]
    run_id = hashlib.sha256(" ".join([sweep, *sorted(ids)]).encode()).hexdigest()
    tracked = TrackedRun(
        folder=folder, run_id=run_id, name=f"tables of {sweep}", config={}, job_type="results"
    )
    with tempfile.TemporaryDirectory(prefix="lungan-upload-") as directory:
        tracker = WandbTracker(config, tracked, directory=Path(directory))
        tables = tables_artifact(folder, sweep, Path(directory))
        mark = tracker.destination + ARTIFACTS
        if is_sent(folder, mark, tables.digest):
            return False
        used = []
        for run in runs:
            own = Path(directory) / run.tracked.run_id
            own.mkdir()
            used.append(generator_artifact(run.tracked.folder, run.summary, own))
        finished = Finished(tracked=tracked, summary={"status": "done"})
        _replay(tracker, finished, used=[each for each in used if each is not None], made=[tables])
        remember_sent(folder, mark, tables.digest)
    return True


def record(
    runs: Sequence[Finished], config: WandbConfig, directory: Path
) -> Iterator[tuple[Finished, bool]]:
    """Record each run in ``directory``/wandb, where ``wandb sync`` finds it; gives each run, and
    whether it was recorded now. A recording that was broken off, or that the run's folder has
    overtaken, is replaced.

    Raises: TrackerError where W&B cannot record a run.
    """
    for run in runs:
        tracker = WandbTracker(config, run.tracked, directory=directory)
        content = f"{tracker.destination} {tracker.fingerprint(run.summary)}"
        is_new = not any(_holds(recording, content) for recording in tracker.recordings())
        if is_new:
            _replay(tracker, run)
            for recording in tracker.recordings():
                (recording / WHOLE).write_text(content)
        yield run, is_new


def _holds(recording: Path, content: str) -> bool:
    path = recording / WHOLE
    return path.is_file() and path.read_text() == content


def _replay(
    tracker: WandbTracker,
    run: Finished,
    *,
    used: Sequence[wandb.Artifact] = (),
    made: Sequence[wandb.Artifact] = (),
) -> None:
    """Raises: TrackerError, ConfigError."""
    if tracker.is_disabled:
        raise ConfigError(
            "WANDB_MODE=disabled or WANDB_DISABLED says to record nothing; unset it to upload"
        )
    try:
        tracker.open()
        for epoch in Records(run.tracked.folder).new():
            tracker.add(epoch)
        tracker.add_artifacts(used, made)
        tracker.close(run.summary)
    except LunganError:
        raise
    # wandb raises errors of its own, OSError, and leaves some paths by sys.exit.
    except (Exception, SystemExit) as error:
        raise TrackerError(
            f"W&B did not take {run.tracked.folder.name} ({in_words(error)}); the same command "
            "goes on with it"
        ) from error
