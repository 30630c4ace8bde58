"""The W&B report of a sweep: its group's curves, scores and grids, and the verdicts in words.

Built from the run folders; W&B draws its panels from the runs that it was sent.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lungan.errors import ConfigError
from lungan.results.comparisons import Summary, compare_groups, summarize
from lungan.results.groups import group
from lungan.results.read import Collection
from lungan.results.verdicts import headlines
from lungan.scores import catalogue
from lungan.tracking.records import in_words
from lungan.tracking.wandb import PROJECT, wandb_name

CURVES = (
    ("Generator loss", "loss_generator"),
    ("Discriminator loss", "loss_discriminator"),
    ("Mean logit of real images", "logit_real"),
    ("Mean logit of generated images", "logit_fake"),
)
_PANEL = {"w": 12, "h": 8}
"""Two in a row; wandb_workspaces moves panels that would overlap."""
_WIDE_PANEL = {"w": 24, "h": 16}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in W&B the runs are. ``entity`` is empty where W&B's default is meant."""

    entity: str
    project: str
    group: str


def place(collection: Collection, entity: str | None, project: str | None) -> Place:
    """Where the sweep's runs were sent, unless told otherwise; W&B's own variables say where the
    runs left it open.

    Raises: ConfigError where the runs disagree.
    """

    def agreed(key: str, otherwise: str) -> str:
        found = {str(run.config.get(f"tracker.{key}") or "") for run in collection.runs} - {""}
        if len(found) > 1:
            raise ConfigError(
                f"the runs of {collection.sweep} have several values of tracker.{key} "
                f"({', '.join(sorted(found))}), and a W&B report shows one; "
                + (f"choose it with --{key}" if key != "group" else "give all runs the same")
            )
        return next(iter(found), otherwise)

    return Place(
        entity=entity or agreed("entity", os.environ.get("WANDB_ENTITY") or ""),
        project=project or agreed("project", os.environ.get("WANDB_PROJECT") or PROJECT),
        group=agreed("group", collection.sweep),
    )


def build_report(collection: Collection, where: Place) -> Any:
    """The report as wandb_workspaces' object; nothing is sent.

    Raises: ConfigError where wandb_workspaces is not installed.
    """
    try:
        # Any, since the package re-exports its classes in a way that type checkers refuse.
        reports: Any = importlib.import_module("wandb_workspaces.reports.v2")
    except ImportError as error:
        raise ConfigError(
            f"the W&B report needs wandb-workspaces ({error}); pip install wandb-workspaces"
        ) from error

    grouping = group(collection)
    summaries = summarize(grouping.groups)
    verdicts = headlines(grouping.groups, summaries, compare_groups(summaries))
    # What a run found out by itself is no config key, and W&B does not know it.
    known = {key for each in grouping.groups for run in each.runs for key in run.config}
    factors = [key for key in grouping.factors if key in known]
    grouped = _runset(reports, where, "By " + (" and ".join(factors) or "run"))
    grouped.groupby = [f"config.{factor}" for factor in factors]
    single = _runset(reports, where, "Runs")
    grids = reports.MediaBrowser(
        title="Samples by epoch",
        media_keys=["samples"],
        mode="grid",
        grid_x_axis="step",
        grid_y_axis="run",
        layout=reports.Layout(**_WIDE_PANEL),
    )
    comparer = reports.RunComparer(diff_only="split", layout=reports.Layout(**_WIDE_PANEL))
    return reports.Report(
        entity=where.entity,
        project=where.project,
        title=f"lungan: {collection.sweep}"[:128],
        description=collection.question,
        width="fluid",
        blocks=[
            reports.H2("What was found"),
            reports.UnorderedList(verdicts),
            reports.P(
                "Tests, confidence intervals and floors are in the sweep's report.html; W&B's "
                "bars show means over seeds without them, so a difference here is not a finding."
            ),
            reports.H2("Scores"),
            reports.PanelGrid(runsets=[grouped], panels=_bars(reports, summaries)),
            reports.H2("Training"),
            reports.PanelGrid(runsets=[grouped], panels=_curves(reports)),
            reports.H2("Generated images"),
            reports.P("The same latents at every epoch of a run."),
            reports.PanelGrid(runsets=[single], panels=[grids]),
            reports.H2("Runs compared"),
            reports.PanelGrid(runsets=[single], panels=[comparer]),
            reports.H2("To repeat it"),
            reports.MarkdownBlock("\n".join(["```bash", *collection.commands, "```"])),
        ],
    )


def spec(report: Any) -> dict[str, Any]:
    """What W&B stores of a report."""
    content: dict[str, Any] = report._to_model().model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    return content


def save(collection: Collection, where: Place) -> str:
    """Create the report in W&B and give its address.

    Raises: ConfigError where W&B does not take it.
    """
    import wandb

    try:
        entity = where.entity or wandb.Api().default_entity or ""
        report = build_report(collection, dataclasses.replace(where, entity=entity))
        return str(report.save().url)
    except ConfigError:
        raise
    except Exception as error:
        # wandb_workspaces raises bare Exception, ValueError and requests' errors alike.
        raise ConfigError(
            f"W&B did not take the report ({in_words(error)}); see that the runs are there (wandb "
            "sync) and the project is right (--entity, --project)"
        ) from error


def _runset(reports: Any, where: Place, name: str) -> Any:
    # repr, since wandb_workspaces parses filters as Python and escapes nothing itself.
    chosen = f'Metric("Group") == {where.group!r}'
    return reports.Runset(entity=where.entity, project=where.project, name=name, filters=chosen)


def _bars(reports: Any, summaries: Sequence[Summary]) -> list[Any]:
    """A panel a score, beside its floor where it has one."""
    with_floor = {summary.score for summary in summaries if summary.floor is not None}
    panels: list[Any] = []
    for score in dict.fromkeys(summary.score for summary in summaries):
        metrics = [wandb_name(score)]
        title = f"{catalogue.title(score)}, {catalogue.describe(score).hint}"
        if score in with_floor:
            metrics.append(wandb_name(f"{score}.floor"))
            title += ", beside its floor between real sets"
        layout = reports.Layout(**_PANEL)
        panels.append(reports.BarPlot(title=title, metrics=metrics, layout=layout))
    return panels


def _curves(reports: Any) -> list[Any]:
    return [
        reports.LinePlot(
            title=title,
            x="epoch",
            y=[metric],
            title_x="epoch",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            layout=reports.Layout(**_PANEL),
        )
        for title, metric in CURVES
    ]
