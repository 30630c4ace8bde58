"""W&B runs of what lies in a store, made afterwards from the run folders alone.

``--artifacts`` adds W&B artifacts: data, generators and a sweep's tables. W&B draws their lineage:
data, the run that used them, its generator, and the tables made of the generators' scores. It
knows an artifact by the hash of its content, so one that it has gets no second version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.config.run import AGENT_VARIABLE, RunConfig, WandbConfig
from lungan.errors import ConfigError, LunganError, RunFolderError
from lungan.files import without_paths
from lungan.runs.folder import (
    CONFIG,
    GENERATOR,
    SWEEPS,
    Run,
    read_manifest,
    read_summary,
    run_folders,
)
from lungan.tracking.records import (
    TrackedRun,
    TrackerError,
    data_found,
    describe_run,
    in_words,
    read_records,
)
from lungan.tracking.wandb import ARTIFACTS, WandbTracker, remember_sent, sent

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)


def upload_line(store: Path, *, sweep: str | None = None, run: str | None = None) -> str:
    """The command that uploads a sweep, or a run, of a store."""
    chosen = ["--sweep", sweep] if sweep is not None else [run] if run is not None else []
    return shlex.join(["lungan", "upload", str(store), *chosen])


def choose_runs(
    store: Path, sweep: str | None, runs: Sequence[str]
) -> tuple[list[TrackedRun], list[str]]:
    """The finished runs of a store, of a sweep, or of these folder names or their last digits; and
    a line for each that is passed over.

    Raises: RunFolderError where there is no such store, sweep or run.
    """
    folders = [folder for folder in run_folders(store) if (folder / CONFIG).is_file()]
    by_name = {name: each for each in folders for name in (each.name, each.name[-8:])}
    if sweep is not None:
        digits = [run["run_id"][:8] for run in read_manifest(store, sweep)["runs"]]
        folders = [by_name[each] for each in digits if each in by_name]
    elif runs:
        if unknown := [run for run in runs if Path(run).name not in by_name]:
            raise RunFolderError(
                f"the store {store} has no run named {unknown[0]}; give a run's folder name, "
                "or the 8 digits that it ends in"
            )
        folders = [by_name[Path(run).name] for run in runs]
    finished, passed_over = [], []
    for folder in folders:
        try:
            summary = read_summary(folder)
        except RunFolderError as error:
            passed_over.append(str(error))
            continue
        if summary is None:
            passed_over.append(f"{folder.name} has not finished: train it to its end first")
            continue
        named = sweep or next(iter(summary.get("sweeps") or []), None)
        run_id, config = summary["run_id"], summary["config"]
        finished.append(describe_run(folder, run_id, config, named, summary))
    if not folders:
        raise RunFolderError(
            f"the store {store} holds no run to upload; train first, or give another store"
        )
    return finished, passed_over


def upload(
    runs: Sequence[TrackedRun],
    config: WandbConfig,
    *,
    recordings: Path | None = None,
    artifacts: bool = False,
) -> Iterator[tuple[TrackedRun, bool]]:
    """Send what W&B lacks of each finished run; gives each, and whether there was something to
    send.

    A run that was broken off is sent whole once more, in place of what W&B has of it; runs that
    W&B has in full are not asked for. recordings: the folder in whose ``wandb`` an offline upload
    records the runs, where ``wandb sync`` finds them. artifacts: the generator too, and which data
    it is from.

    Raises: TrackerError where W&B does not take a run.
    """
    for run in runs:
        assert run.summary is not None
        with tempfile.TemporaryDirectory(prefix="lungan-upload-") as scratch:
            tracker = WandbTracker(config, run, directory=recordings or Path(scratch))
            kept = recordings or run.folder
            mark = tracker.destination + ARTIFACTS * artifacts
            content = tracker.fingerprint(run.summary)
            is_gone = recordings is not None and not tracker.recordings()
            if is_new := is_gone or sent(kept).get(mark) != content:
                used = [data_artifact(run, Path(scratch))] if artifacts else []
                made = generator_artifacts(run, Path(scratch)) if artifacts else []
                _replay(tracker, run, used, made)
                remember_sent(kept, mark, content)
        yield run, is_new


def replay_for_agent(config: RunConfig, run: Run) -> None:
    """Send a run that had been finished before to the W&B run of the agent that asks for it.

    Elsewhere ``lungan upload`` does so when it is asked to.
    """
    if os.environ.get(AGENT_VARIABLE) and isinstance(config.tracker, WandbConfig):
        settings = dataclasses.asdict(config)
        tracked = describe_run(run.folder, run.summary["run_id"], settings, None, run.summary)
        try:
            list(upload([tracked], config.tracker))
        except LunganError as error:
            log.warning("%s", error)


def upload_tables(store: Path, sweep: str, runs: Sequence[TrackedRun], config: WandbConfig) -> bool:
    """Send a sweep's tables from a W&B run of their own, outside of the sweep's group, which used
    the runs' generators; gives whether W&B lacked them.

    Raises: TrackerError where W&B does not take them.
    """
    folder = store / SWEEPS / sweep
    ids = " ".join([sweep, *sorted(run.run_id for run in runs)])
    tables_run = TrackedRun(
        folder=folder,
        run_id=hashlib.sha256(ids.encode()).hexdigest(),
        name=f"tables of {sweep}",
        config={},
        job_type="results",
        summary={"status": "done"},
    )
    with tempfile.TemporaryDirectory(prefix="lungan-upload-") as scratch:
        tracker = WandbTracker(config, tables_run, directory=Path(scratch))
        tables = tables_artifact(folder, sweep)
        mark = tracker.destination + ARTIFACTS
        if sent(folder).get(mark) == tables.digest:
            return False
        used = [each for run in runs for each in generator_artifacts(run, Path(scratch))]
        _replay(tracker, tables_run, used, [tables])
        remember_sent(folder, mark, tables.digest)
    return True


def _replay(
    tracker: WandbTracker,
    run: TrackedRun,
    used: Sequence[wandb.Artifact],
    made: Sequence[wandb.Artifact],
) -> None:
    """Send a finished run with the artifacts that it used and made.

    Raises: TrackerError, ConfigError; RunFolderError where a file of the run is damaged.
    """
    if tracker.mode == "disabled":
        raise ConfigError(
            "WANDB_MODE=disabled or WANDB_DISABLED says to record nothing; unset it to upload"
        )
    epochs, _ = read_records(run.folder)  # a damaged folder is named before W&B is asked
    try:
        tracker.open()
        for epoch in epochs:
            tracker.add(epoch)
        tracker.add_artifacts(used, made)
        tracker.close(run.summary)
    except LunganError:
        raise
    # wandb raises errors of its own, OSError, and leaves some paths by sys.exit.
    except (Exception, SystemExit) as error:
        raise TrackerError(
            f"W&B did not take {run.folder.name} ({in_words(error)}); the same command goes on "
            "with it"
        ) from error


def data_artifact(run: TrackedRun, directory: Path) -> wandb.Artifact:
    """The hash that the run's data have, with the counts found in them; no image, no path."""
    summary = run.summary or {}
    content = directory / "data.json"
    content.write_text(json.dumps({"data_hash": summary["data_hash"]}))
    name = f"data-{summary['data_hash'][:16]}"
    return _artifact(name, "dataset", {content.name: content}, {"found": data_found(summary)})


def generator_artifacts(run: TrackedRun, directory: Path) -> list[wandb.Artifact]:
    """The run's final generator as ``load_generator`` takes it, without the paths of its plug-ins;
    none for a run that has none."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path, summary = run.folder / GENERATOR, run.summary or {}
    if not path.is_file():
        return []
    with safe_open(path, "pt") as stream:
        description = json.loads(stream.metadata()["lungan"])
    content = directory / f"{run.run_id}.safetensors"
    save_file(load_file(path), content, {"lungan": json.dumps(without_paths(description))})
    metadata = {key: summary[key] for key in ("run_id", "data_hash", "epochs_done")}
    return [_artifact(f"generator-{run.run_id[:16]}", "model", {GENERATOR: content}, metadata)]


def tables_artifact(folder: Path, sweep: str) -> wandb.Artifact:
    """The CSV files in ``folder``, which ``lungan.results`` writes without paths."""
    tables = {path.name: path for path in sorted(folder.glob("*.csv"))}
    name = re.sub(r"[^\w.-]", "-", f"tables-{sweep}")[:128]
    return _artifact(name, "results", tables, {"sweep": sweep})


def _artifact(
    name: str, kind: str, files: Mapping[str, Path], metadata: dict[str, Any]
) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    for inside, path in files.items():
        # Neither W&B's staging folder nor its cache gets a copy: the file outlives the upload.
        artifact.add_file(str(path), name=inside, policy="immutable", skip_cache=True)
    return artifact
