"""The W&B report of a sweep: its group's curves, scores and grids, and the verdicts in words.

Built from the run folders; W&B draws its panels from the runs that it was sent.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lungan.errors import ConfigError
from lungan.results.comparisons import Summary, compare_groups, summarize
from lungan.results.groups import Grouping, group
from lungan.results.read import Collection
from lungan.results.verdicts import headlines
from lungan.scores import catalogue
from lungan.tracking.wandb import PROJECT, wandb_name

CURVES = (
    ("Generator loss", "loss_generator"),
    ("Discriminator loss", "loss_discriminator"),
    ("Mean logit of real images", "logit_real"),
    ("Mean logit of generated images", "logit_fake"),
)
_PANEL_WIDTH = 12
_PANEL_HEIGHT = 8


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

    def agreed(key: str, told: str | None, otherwise: str) -> str:
        if told is not None:
            return told
        values = [run.config.get(f"tracker.{key}") for run in collection.runs]
        found = Counter(str(value) for value in values if value is not None)
        if len(found) > 1:
            raise ConfigError(
                f"the runs of {collection.sweep} have several values of tracker.{key} "
                f"({', '.join(sorted(found))}); a report shows one"
                + ("" if key == "group" else f": choose with --{key}")
            )
        return next(iter(found), otherwise)

    return Place(
        entity=agreed("entity", entity, os.environ.get("WANDB_ENTITY") or ""),
        project=agreed("project", project, os.environ.get("WANDB_PROJECT") or PROJECT),
        group=agreed("group", None, collection.sweep),
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
    verdicts = headlines(collection.runs, grouping.groups, summaries, compare_groups(summaries))
    factors = _config_factors(grouping)
    grouped = _runset(reports, where, "By " + (" and ".join(factors) or "run"))
    grouped.groupby = [f"config.{factor}" for factor in factors]
    single = _runset(reports, where, "Runs")
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
            reports.PanelGrid(runsets=[single], panels=[_grids(reports)]),
            reports.H2("Runs compared"),
            reports.PanelGrid(runsets=[single], panels=[_comparer(reports)]),
            reports.H2("To repeat it"),
            reports.MarkdownBlock(f"```bash\n{_commands(collection)}\n```"),
        ],
    )


def spec(report: Any) -> dict[str, Any]:
    """What W&B stores of a report."""
    content: dict[str, Any] = json.loads(
        report._to_model().model_dump_json(by_alias=True, exclude_none=True)
    )
    return content


def save(collection: Collection, where: Place) -> str:
    """Create the report in W&B and give its address.

    Raises: ConfigError where W&B does not take it.
    """
    import wandb

    try:
        entity = where.entity or wandb.Api().default_entity or ""
        report = build_report(collection, Place(entity, where.project, where.group))
        return str(report.save().url)
    except ConfigError:
        raise
    except Exception as error:
        # wandb_workspaces raises bare Exception, ValueError and requests' errors alike.
        text = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"W&B did not take the report ({type(error).__name__}: {text}); see that the runs "
            f"are there (wandb sync) and the project is right (--entity, --project)"
        ) from error


def _runset(reports: Any, where: Place, name: str) -> Any:
    # repr, since wandb_workspaces parses filters as Python and escapes nothing itself.
    chosen = f'Metric("Group") == {where.group!r}'
    return reports.Runset(entity=where.entity, project=where.project, name=name, filters=chosen)


def _config_factors(grouping: Grouping) -> list[str]:
    """The factors that W&B knows: what a run found out by itself is no config key."""
    runs = [run for each in grouping.groups for run in each.runs]
    return [key for key in grouping.factors if any(key in run.config for run in runs)]


def _bars(reports: Any, summaries: Sequence[Summary]) -> list[Any]:
    """A panel a score, beside its floor where it has one."""
    with_floor: dict[str, bool] = {}
    for summary in summaries:
        has_floor = with_floor.get(summary.score, False) or summary.floor is not None
        with_floor[summary.score] = has_floor
    panels: list[Any] = []
    for score, has_floor in with_floor.items():
        metrics = [wandb_name(score)]
        title = f"{catalogue.title(score)}, {catalogue.describe(score).hint}"
        if has_floor:
            metrics.append(wandb_name(f"{score}.floor"))
            title += ", beside its floor between real sets"
        layout = _layout(reports, len(panels))
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
            layout=_layout(reports, number),
        )
        for number, (title, metric) in enumerate(CURVES)
    ]


def _grids(reports: Any) -> Any:
    return reports.MediaBrowser(
        title="Samples by epoch",
        media_keys=["samples"],
        mode="grid",
        grid_x_axis="step",
        grid_y_axis="run",
        layout=reports.Layout(w=2 * _PANEL_WIDTH, h=2 * _PANEL_HEIGHT),
    )


def _comparer(reports: Any) -> Any:
    return reports.RunComparer(
        diff_only="split", layout=reports.Layout(w=2 * _PANEL_WIDTH, h=2 * _PANEL_HEIGHT)
    )


def _layout(reports: Any, number: int) -> Any:
    """Two panels a row."""
    return reports.Layout(
        x=number % 2 * _PANEL_WIDTH,
        y=number // 2 * _PANEL_HEIGHT,
        w=_PANEL_WIDTH,
        h=_PANEL_HEIGHT,
    )


def _commands(collection: Collection) -> str:
    results = f"python -m lungan.results --sweep {shlex.quote(collection.sweep)}"
    return "\n".join(filter(None, [collection.command, results]))
