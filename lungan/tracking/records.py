"""A run's records as trackers take them, read from its folder: live, and afterwards alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lungan.errors import LunganError, RunFolderError
from lungan.files import without_paths
from lungan.runs.folder import read_epochs, read_manifest, read_scores, sample_path
from lungan.runs.naming import name_by_differences, name_in_sweep

log = logging.getLogger(__name__)


class TrackerError(LunganError):
    """A tracker, or the service behind it, did not take a run's records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """What a tracker is given of a run before its epochs.

    run_id: 64 hex digits. sweep: its name, where the run belongs to one, and question: what that
    sweep asks. config and summary: as config.yaml and summary.json hold them, without paths;
    summary is None for a run that is under way.
    """

    folder: Path
    run_id: str
    name: str
    config: dict[str, Any]
    sweep: str | None = None
    question: str = ""
    job_type: str = "train"
    summary: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """``metrics``: one line of metrics.jsonl. ``samples``: the grid of this epoch, where there is
    one. ``scores``: values by flat key, such as ``domain.recall.floor``, where it was scored."""

    epoch: int
    metrics: dict[str, float]
    samples: Path | None = None
    scores: dict[str, float] = field(default_factory=dict)


class Tracker(Protocol):
    """Where a run's records go besides its folder. What a tracker raises ends the tracking of this
    run, never the run."""

    def open(self) -> None:
        """Begin the run, in place of what an earlier part of it left here."""

    def add(self, epoch: Epoch) -> None:
        """Take an epoch; they come in order from the first, each once."""

    def close(self, summary: dict[str, Any] | None) -> None:
        """End. ``summary``: what summary.json holds, without paths; None for a stopped run."""


def read_records(
    folder: Path, begin: int = 0, *, is_finished: bool = True
) -> tuple[list[Epoch], int]:
    """The epochs of a run folder from byte ``begin`` of metrics.jsonl on, and where they end.

    is_finished: where the run is not, its last epoch may lack its grid and scores, and is left out.

    Raises: RunFolderError where a file is damaged.
    """
    rows = list(read_epochs(folder, begin))[: None if is_finished else -1]
    scores: dict[int, dict[str, float]] = {}
    for result in read_scores(folder).values() if rows else ():
        scores.setdefault(result["epoch"], {}).update(_known(result["values"]))
    epochs, end = [], begin
    for metrics, end in rows:  # noqa: B007
        epoch = metrics["epoch"]
        samples = sample_path(folder, epoch)
        epochs.append(
            Epoch(
                epoch=epoch,
                metrics=_known(metrics),
                samples=samples if samples.is_file() else None,
                scores=scores.get(epoch, {}),
            )
        )
    return epochs, end


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def describe_run(
    folder: Path,
    run_id: str,
    config: Mapping[str, Any],
    sweep: str | None,
    summary: Mapping[str, Any] | None = None,
) -> TrackedRun:
    """A run of a store, named by its sweep where it has one.

    config and summary: as config.yaml and summary.json have them.
    """
    question = ""
    if sweep is not None:
        try:
            question = read_manifest(folder.parent, sweep).get("question", "")
        except RunFolderError as error:
            log.warning("the manifest of sweep %s cannot be read: %s", sweep, error)
    return TrackedRun(
        folder=folder,
        run_id=run_id,
        name=without_paths(
            name_in_sweep(folder.parent, sweep, run_id) or name_by_differences(config)
        ),
        config=without_paths(config),
        sweep=sweep,
        question=without_paths(question),
        summary=without_paths(summary),
    )


def data_found(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says of a run's data in numbers; its notes may hold names of files."""
    data = summary.get("data") or {}
    counts = {key: data[key] for key in ("counts", "groups", "sizes", "modes") if key in data}
    return {**counts, "num_skipped": len(data.get("skipped") or {})}


def in_words(error: BaseException) -> str:
    """``ValueError: its first line``."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
