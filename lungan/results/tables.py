"""Tables as data: the CSV files in full, and what people read of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from lungan.results import numbers
from lungan.results.comparisons import Comparison, Summary, main_settings
from lungan.results.groups import Group, Grouping
from lungan.results.read import Problem, Run, Scalar
from lungan.results.standing import stand
from lungan.scores import catalogue

MAX_GROUP_COLUMNS = 6
"""Up to so many groups stand side by side, as columns; more go down the page, as rows."""

MAX_ROWS = 500
MAX_GROUPS = 200
"""What a person may still look through; the CSV files have all."""

_FACTS_FIRST = ("epochs_done", "scores.num_images", "seconds.total")
_FACTS_LAST = ("scores.reasons", "run_id", "trajectory_id")
_SUFFIXES = ("", *catalogue.SATELLITES)


class Cell(NamedTuple):
    """Text as shown and, where that does not sort by itself, the value to sort by."""

    text: str
    value: Scalar = None

    @property
    def is_number(self) -> bool:
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)


@dataclass(frozen=True, slots=True)
class Table:
    """more: what was left out, and where all is; empty where nothing was."""

    header: list[str]
    rows: list[list[Cell]]
    more: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [any(row[i].is_number for row in self.rows) for i in range(len(self.header))]


def results_csv(runs: Sequence[Run], grouping: Grouping) -> bytes:
    """A row a run: what it is, how it ended, the columns that vary, all scores and facts."""
    labels = {id(run): group.label for group in grouping.groups for run in group.runs}
    scores = score_columns(runs)
    facts = _fact_columns(runs)
    header = ["run", "status", "reason", "group", *grouping.columns, *scores, *facts]
    rows = (
        [
            run.name,
            run.status,
            run.reason,
            labels[id(run)],
            *map(run.config.get, grouping.columns),
            *map(run.scores.get, scores),
            *map(run.facts.get, facts),
        ]
        for run in runs
    )
    return _csv(header, rows)


def summary_csv(summaries: Sequence[Summary], grouping: Grouping) -> bytes:
    """A row a group and score, over its finished runs."""
    header = ["group", *grouping.factors, "score", "better", "n", "mean", "std"]
    header += ["ci95_low", "ci95_high", "min", "max", "floor", "floor_std", "real", "num_images"]
    header += ["center", "floor_low", "floor_high", "against_floor", "p_floor_holm"]
    header += ["runs", "done", "diverged", "failed", "unfinished", "missing"]
    statuses = ("done", "diverged", "failed", "unfinished", "missing")
    standings = {id(each.summary): each for each in stand(summaries)}
    counts = {
        id(group): [len(group.runs), *map(group.count, statuses)] for group in grouping.groups
    }
    rows = (
        [
            summary.group.label,
            *summary.group.values,
            summary.score,
            catalogue.describe(summary.score).direction,
            summary.interval.n,
            summary.interval.mean,
            summary.interval.std,
            summary.interval.low,
            summary.interval.high,
            min(summary.values),
            max(summary.values),
            summary.floor,
            summary.floor_std,
            summary.real,
            summary.num_images,
            summary.interval.center,
            summary.floor_low,
            summary.floor_high,
            standing.side if (standing := standings.get(id(summary))) else None,
            standing.p_holm if standing else None,
            *counts[id(summary.group)],
        ]
        for summary in summaries
    )
    return _csv(header, rows)


def comparisons_csv(comparisons: Sequence[Comparison]) -> bytes:
    """A row a pair of groups and score; the difference is first minus second.

    Where there is a ratio, first divided by second, the interval and ``detectable`` are of ratios.
    """
    header = ["score", "first", "second", "n_first", "n_second", "mean_first", "mean_second"]
    header += ["difference", "ci95_low", "ci95_high", "test", "t", "dof", "p", "p_holm"]
    header += ["num_images", "verdict", "ratio", "detectable"]
    rows = (
        [
            comparison.first.score,
            comparison.first.group.label,
            comparison.second.group.label,
            comparison.first.interval.n,
            comparison.second.interval.n,
            comparison.first.interval.mean,
            comparison.second.interval.mean,
            comparison.result.difference,
            comparison.result.low,
            comparison.result.high,
            comparison.result.test,
            comparison.result.t,
            comparison.result.dof,
            comparison.result.p,
            comparison.p_holm,
            comparison.first.num_images,
            comparison.verdict,
            comparison.result.effect if comparison.result.is_ratio else None,
            comparison.detectable,
        ]
        for comparison in comparisons
    )
    return _csv(header, rows)


def problems_csv(problems: Sequence[Problem]) -> bytes:
    return _csv(["name", "problem"], ([problem.name, problem.text] for problem in problems))


def runs_table(runs: Sequence[Run], grouping: Grouping) -> Table:
    """A row a run, with the scores that any of them has."""
    taken = {key for run in runs for key, value in run.scores.items() if value is not None}
    scores = sorted(filter(catalogue.is_score, taken), key=catalogue.order)
    factors = [factor for factor in grouping.factors if factor in grouping.columns]
    columns = [*factors, *(["seed"] if "seed" in grouping.columns else [])]
    header = ["run", "status", *columns, *map(catalogue.title, scores), "N", "time", "reason"]
    rows = [_run_row(run, columns, scores) for run in runs[:MAX_ROWS]]
    return Table(header, rows, _more(len(runs), MAX_ROWS, "runs", "results.csv"))


def summary_table(summaries: Sequence[Summary], groups: Sequence[Group]) -> Table:
    """Mean with its 95 % interval; the floor stands beside the groups. Scores go down and groups
    across where these are few, else the other way round."""
    more = _more(len(groups), MAX_GROUPS, "groups", "summary.csv")
    groups = groups[:MAX_GROUPS]
    main = main_settings(summaries)
    shown = {
        (id(summary.group), summary.score): summary
        for summary in summaries
        if summary.settings == main[summary.score]
    }
    grid = [[Cell("score"), Cell("N"), Cell("floor"), *(_group_head(group) for group in groups)]]
    for score, settings in main.items():
        cells = [shown.get((id(group), score)) for group in groups]
        present = [cell for cell in cells if cell]
        row = [
            Cell(f"{catalogue.title(score)}, {catalogue.describe(score).hint}"),
            Cell(numbers.scalar(settings[0] if settings else None)),
            Cell(_floor(present)),
        ]
        for group, cell in zip(groups, cells, strict=True):
            text = numbers.summary(cell, len(group.done)) if cell else numbers.NOTHING
            row.append(Cell(text, cell.interval.center if cell else None))
        grid.append(row)
    if main and len(groups) > MAX_GROUP_COLUMNS:
        grid = [list(row) for row in zip(*grid, strict=True)]
        grid[0][0] = Cell("group")
    return Table([cell.text for cell in grid[0]], grid[1:], more)


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    header = ["score", "first", "second", "first - second, or ratio (95 % CI)", "test", "p (Holm)"]
    header += ["found in 4 of 5 studies", "verdict"]
    rows = []
    for comparison in comparisons[:MAX_ROWS]:
        result = comparison.result
        sign = "ratio " if result.is_ratio else ""
        difference = f"{sign}{numbers.number(result.effect, 3)}"
        if result.low is not None and result.high is not None:
            difference += f" ({numbers.span(result.low, result.high)})"
        p_holm = comparison.p_holm
        rows.append(
            [
                Cell(catalogue.title(comparison.first.score)),
                Cell(comparison.first.group.label),
                Cell(comparison.second.group.label),
                Cell(difference, result.effect),
                Cell(result.test or numbers.NOTHING),
                Cell(numbers.NOTHING if p_holm is None else numbers.p_value(p_holm), p_holm),
                Cell(_found(comparison), comparison.detectable),
                Cell(comparison.verdict),
            ]
        )
    more = _more(len(comparisons), MAX_ROWS, "comparisons", "comparisons.csv")
    return Table(header, rows, more)


def _found(comparison: Comparison) -> str:
    if comparison.detectable is None:
        return numbers.NOTHING
    size = numbers.number(comparison.detectable, 2)
    return f"ratio {size}" if comparison.result.is_ratio else size


def problems_table(problems: Sequence[Problem]) -> Table:
    rows = [[Cell(problem.name), Cell(problem.text)] for problem in problems[:MAX_ROWS]]
    more = _more(len(problems), MAX_ROWS, "problems", "problems.csv")
    return Table(["passed over", "why"], rows, more)


def score_columns(runs: Iterable[Run]) -> list[str]:
    """All flat score keys, each score before its own spread and floor."""
    keys: set[str] = set().union(*(run.scores for run in runs))

    def position(key: str) -> tuple[tuple[str, float, str], int]:
        if catalogue.is_score(key):
            return catalogue.order(key), 0
        base, _, ending = key.rpartition(".")
        return catalogue.order(base), _SUFFIXES.index(f".{ending}")

    return sorted(keys, key=position)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Scalar]]) -> bytes:
    """Comma-separated UTF-8 with a line feed after each row; None is an empty cell."""
    import pandas as pd

    # Cells stay objects: numbers are written as Python writes them, whole ones without a point.
    frame = pd.DataFrame(list(rows), columns=pd.Index(header), dtype=object)
    text = frame.to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8", "backslashreplace")


def _more(count: int, limit: int, what: str, file: str) -> str:
    return f"The first {limit} of {count} {what}; all are in {file}." if count > limit else ""


def _run_row(run: Run, columns: Sequence[str], scores: Sequence[str]) -> list[Cell]:
    row = [Cell(run.name), Cell(run.status)]
    row += [Cell(numbers.scalar(value), value) for value in map(run.config.get, columns)]
    for value in map(run.scores.get, scores):
        row.append(Cell(numbers.NOTHING) if value is None else Cell(numbers.number(value), value))
    total = run.facts.get("seconds.total")
    seconds = total if isinstance(total, int | float) else None
    row.append(Cell(numbers.scalar(run.num_images), run.num_images))
    row.append(Cell("" if seconds is None else numbers.seconds(seconds), seconds))
    row.append(Cell(run.reason))
    return row


def _group_head(group: Group) -> Cell:
    done, total = len(group.done), len(group.runs)
    return Cell(
        f"{group.label} (n = {done})" if done == total else f"{group.label} (n = {done} of {total})"
    )


def _floor(summaries: Sequence[Summary]) -> str:
    """The mean floor and its spread over pairs of real sets; then the real images' own score."""
    floors = [summary.floor for summary in summaries if summary.floor is not None]
    reals = [summary.real for summary in summaries if summary.real is not None]
    words = [numbers.number(sum(floors) / len(floors), 3)] if floors else []
    if reals:
        words.append(f"real images {numbers.number(sum(reals) / len(reals), 3)}")
    return "; ".join(words) or numbers.NOTHING


def _fact_columns(runs: Iterable[Run]) -> list[str]:
    found = dict.fromkeys(chain.from_iterable(run.facts for run in runs))
    first = [key for key in _FACTS_FIRST if key in found]
    last = [key for key in _FACTS_LAST if key in found]
    return [*first, *(key for key in found if key not in (*first, *last)), *last]
