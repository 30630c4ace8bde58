"""Loss curves of a group, read from its runs' metrics and folded over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.errors import RunFolderError
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.runs.folder import METRICS, read_metrics

LOSSES = ("loss_generator", "loss_discriminator")
MAX_RUNS = 20


@dataclass(frozen=True, slots=True)
class Band:
    """One loss by epoch over the runs of a group. low and high: the extremes over runs."""

    epochs: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupCurves:
    """bands: by loss, over the finished runs. stopped: by loss, the (epochs, values) of each run
    that ended early."""

    group: Group
    num_runs: int
    bands: dict[str, Band]
    stopped: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]]


def read_curves(group: Group, problems: list[Problem]) -> GroupCurves:
    """Losses of at most MAX_RUNS finished and MAX_RUNS stopped runs of a group."""
    finished = _read(group.done, problems)
    stopped = _read([run for run in group.runs if run.status == "diverged"], problems)
    bands = {loss: _band([_curve(rows, loss) for rows in finished]) for loss in LOSSES}
    ends = {loss: [_curve(rows, loss) for rows in stopped] for loss in LOSSES}
    return GroupCurves(
        group,
        len(finished),
        {loss: band for loss, band in bands.items() if band is not None},
        {loss: [curve for curve in curves if len(curve[0])] for loss, curves in ends.items()},
    )


def _read(runs: Sequence[Run], problems: list[Problem]) -> list[list[dict[str, Any]]]:
    read = []
    for run in runs[:MAX_RUNS]:
        if run.folder is None:
            continue
        try:
            rows = read_metrics(run.folder)
        except RunFolderError:
            problems.append(Problem(run.name, f"{METRICS} is damaged: no loss curve"))
            continue
        if rows:
            read.append(rows)
        else:
            problems.append(Problem(run.name, f"{METRICS} has no epoch: no loss curve"))
    return read


def _curve(
    rows: Sequence[dict[str, Any]], loss: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [
        (float(row["epoch"]), float(row[loss]))
        for row in rows
        if _is_number(row.get("epoch")) and _is_number(row.get(loss))
    ]
    epochs, values = zip(*points, strict=True) if points else ((), ())
    return np.array(epochs, dtype=float), np.array(values, dtype=float)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -1e100 < value < 1e100
        and math.isfinite(value)
    )


def _band(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Band | None:
    """Over whatever runs have an epoch, so that none has to have all."""
    all_epochs = [epochs for epochs, _ in curves if len(epochs)]
    if not all_epochs:
        return None
    epochs = np.unique(np.concatenate(all_epochs))
    table = np.full((len(curves), len(epochs)), np.nan)
    for row, (own, values) in zip(table, curves, strict=True):
        row[np.searchsorted(epochs, own)] = values
    return Band(
        epochs, np.nanmean(table, axis=0), np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    )
