"""Tables: the CSV files in full, and what people read, as Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from lungan.files import without_paths
from lungan.results import numbers
from lungan.results.comparisons import Comparison, Summary, mean_of
from lungan.results.groups import Group, Grouping
from lungan.results.read import STATUSES, Problem, Run, one_line
from lungan.runs.folder import Scalar
from lungan.scores import catalogue

if TYPE_CHECKING:
    import pandas as pd

MAX_GROUP_COLUMNS = 6
"""Up to so many groups stand side by side, as columns; more go down the page, as rows."""

MAX_ROWS = 500
MAX_GROUPS = 200
"""What a person may still look through; the CSV files have all."""

_MAX_TABULAR_ROWS = 40
_FACTS_FIRST = ("epochs_done", "scores.num_images", "seconds.total")
_FACTS_LAST = ("scores.reasons", "run_id", "trajectory_id")
_SUFFIXES = ("", *catalogue.SATELLITES)

_SUMMARY_COLUMNS = {
    "n": "interval.n",
    "mean": "interval.mean",
    "std": "interval.std",
    "ci95_low": "interval.low",
    "ci95_high": "interval.high",
    "min": "least",
    "max": "greatest",
    "floor": "floor",
    "floor_std": "floor_std",
    "real": "real",
    "num_images": "num_images",
    "center": "interval.center",
    "floor_low": "floor_low",
    "floor_high": "floor_high",
    "against_floor": "side",
    "p_floor_holm": "p_floor",
}
_COMPARISON_COLUMNS = {
    "score": "first.score",
    "first": "first.group.label",
    "second": "second.group.label",
    "n_first": "first.interval.n",
    "n_second": "second.interval.n",
    "mean_first": "first.interval.mean",
    "mean_second": "second.interval.mean",
    "difference": "result.difference",
    "ci95_low": "result.low",
    "ci95_high": "result.high",
    "test": "result.test",
    "t": "result.t",
    "dof": "result.dof",
    "p": "result.p",
    "p_holm": "p_holm",
    "num_images": "first.num_images",
    "verdict": "verdict",
    "ratio": "result.ratio",
    "detectable": "detectable",
}
"""Columns of summary.csv and comparisons.csv with the attributes that they hold."""


class Cell(NamedTuple):
    """Text as shown and, where that does not sort by itself, the value to sort by."""

    text: str
    value: Scalar = None

    @property
    def is_number(self) -> bool:
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)


@dataclass(frozen=True, slots=True)
class Table:
    """more: what was left out, and where all is; empty where nothing was. Whatever a cell holds
    stays text in Markdown and LaTeX."""

    header: list[str]
    rows: list[list[Cell]]
    more: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [any(row[i].is_number for row in self.rows) for i in range(len(self.header))]

    def markdown(self) -> bytes:
        """A pipe table of GitHub's kind."""
        frame = self._frame(markdown_text)
        text = frame.to_markdown(index=False, tablefmt="github", disable_numparse=True)
        return encode(f"{text}\n" + (f"\n{self.more}\n" if self.more else ""))

    def latex(self) -> bytes:
        """A booktabs tabular, or a longtable where it cannot fit on a page. The preamble needs
        ``booktabs``, ``longtable`` and a font encoding (T1) or engine that has the names' letters.
        """
        style = self._frame(one_line).style.hide(axis="index").format(escape="latex")
        text = style.format_index(escape="latex", axis="columns").to_latex(
            column_format="l" * len(self.header),
            hrules=True,
            environment="longtable" if len(self.rows) > _MAX_TABULAR_ROWS else None,
        )
        text = text.replace("∞", r"$\infty$")  # which LaTeX does not have as a letter
        return encode(f"% {self.more}\n{text}" if self.more else text)

    def _frame(self, escape: Callable[[str], str]) -> pd.DataFrame:
        import pandas as pd

        rows = [[escape(cell.text) for cell in row] for row in self.rows]
        return pd.DataFrame(rows, columns=[escape(text) for text in self.header], dtype=object)


def results_csv(runs: Sequence[Run], grouping: Grouping) -> bytes:
    """A row a run: what it is, how it ended, the columns that vary, all scores and facts."""
    labels = {run: group.label for group in grouping.groups for run in group.runs}
    scores, facts = score_columns(runs), _fact_columns(runs)
    header = ["run", "status", "reason", "group", *grouping.columns, *scores, *facts]
    rows = []
    for run in runs:
        settings = without_paths({key: run.config.get(key) for key in grouping.columns})
        rows.append({**run.record, **settings, "group": labels[run]})
    return write_csv(header, rows)


def summary_csv(summaries: Sequence[Summary], grouping: Grouping) -> bytes:
    """A row a group and score, over its finished runs."""
    header = ["group", *grouping.factors, "score", "better", *_SUMMARY_COLUMNS]
    header += ["runs", *STATUSES]
    counts = {group: [len(group.runs), *map(group.count, STATUSES)] for group in grouping.groups}
    values = attrgetter(*_SUMMARY_COLUMNS.values())
    rows = []
    for each in summaries:
        better = catalogue.describe(each.score).direction
        what = [each.group.label, *each.group.values, each.score, better]
        rows.append([*what, *values(each), *counts[each.group]])
    return write_csv(header, rows)


def comparisons_csv(comparisons: Sequence[Comparison]) -> bytes:
    """A row a pair of groups and score; the difference is first minus second.

    Where there is a ratio, first divided by second, the interval and ``detectable`` are of ratios.
    """
    rows = map(attrgetter(*_COMPARISON_COLUMNS.values()), comparisons)
    return write_csv(list(_COMPARISON_COLUMNS), rows)


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> bytes:
    """Comma-separated UTF-8 with a line feed after each row; None is an empty cell. Rows by name
    may lack columns of the header and have others.
    """
    import pandas as pd

    # Cells stay objects: numbers are written as Python writes them, whole ones without a point.
    frame = pd.DataFrame(list(rows), columns=pd.Index(header), dtype=object)
    return encode(frame.to_csv(index=False, lineterminator="\n"))


def encode(text: str) -> bytes:
    """UTF-8; a folder's name may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace")


def runs_table(runs: Sequence[Run], names: Mapping[Run, str]) -> Table:
    """A row a run under its display name, with the scores that any of them has."""
    taken = {key for run in runs for key, value in run.scores.items() if value is not None}
    scores = sorted(filter(catalogue.is_score, taken), key=catalogue.order)
    header = ["run", "status", *map(catalogue.title, scores), "N", "time", "reason"]
    rows = []
    for run in runs[:MAX_ROWS]:
        num_images, seconds = map(run.facts.get, ("scores.num_images", "seconds.total"))
        time = numbers.seconds(seconds) if isinstance(seconds, int | float) else ""
        row = [Cell(names[run]), Cell(run.status)]
        row += [_number(run.scores.get(key)) for key in scores]
        row += [Cell(numbers.scalar(num_images), num_images), Cell(time, seconds), Cell(run.reason)]
        rows.append(row)
    return Table(header, rows, _more(len(runs), MAX_ROWS, "runs", "results.csv"))


def run_names(grouping: Grouping) -> dict[Run, str]:
    """What sets each run apart, as ``adam / 50 epochs, seed 0``; with the hash of its folder where
    that leaves two alike."""
    names = {
        run: group.label + ("" if (seed := run.config.get("seed")) is None else f", seed {seed}")
        for group in grouping.groups
        for run in group.runs
    }
    counts = Counter(names.values())
    return {
        run: name if counts[name] == 1 else f"{name} ({run.name[-8:]})"
        for run, name in names.items()
    }


def summary_table(summaries: Sequence[Summary], groups: Sequence[Group]) -> Table:
    """Mean with its 95 % interval; the floor stands beside the groups. Scores go down and groups
    across where these are few, else the other way round."""
    more = _more(len(groups), MAX_GROUPS, "groups", "summary.csv")
    groups = groups[:MAX_GROUPS]

    def heading(group: Group) -> str:
        done, total = len(group.done), len(group.runs)
        return f"{group.label} (n = {done if done == total else f'{done} of {total}'})"

    shown = {(summary.group, summary.score): summary for summary in summaries if summary.is_main}
    grid = [[Cell("score"), Cell("N"), Cell("floor"), *(Cell(heading(group)) for group in groups)]]
    num_images_of = {score: summary.num_images for (_, score), summary in shown.items()}
    for score, num_images in num_images_of.items():
        cells = [shown.get((group, score)) for group in groups]
        row = [
            Cell(f"{catalogue.title(score)}, {catalogue.describe(score).hint}"),
            Cell(numbers.scalar(num_images), num_images),
            _floor([cell for cell in cells if cell]),
        ]
        for group, cell in zip(groups, cells, strict=True):
            if cell is None:
                row.append(Cell(numbers.NOTHING))
                continue
            n = "" if cell.interval.n == len(group.done) else f" (n = {cell.interval.n})"
            row.append(Cell(numbers.interval(cell.interval) + n, cell.interval.center))
        grid.append(row)
    if shown and len(groups) > MAX_GROUP_COLUMNS:
        grid = [list(row) for row in zip(*grid, strict=True)]
        grid[0][0] = Cell("group")
    return Table([cell.text for cell in grid[0]], grid[1:], more)


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    header = ["score", "first", "second", "first - second, or ratio (95 % CI)", "test", "p (Holm)"]
    header += ["found in 4 of 5 studies", "verdict"]
    rows = []
    for each in comparisons[:MAX_ROWS]:
        result, kind = each.result, "ratio " if each.result.is_ratio else ""
        size = f"{kind}{numbers.number(result.effect, 3)}"
        if result.low is not None and result.high is not None:
            size += f" ({numbers.span(result.low, result.high)})"
        least = each.detectable
        found = numbers.NOTHING if least is None else kind + numbers.number(least, 2)
        names = (catalogue.title(each.first.score), each.first.group.label, each.second.group.label)
        row = [*map(Cell, names), Cell(size, result.effect), Cell(result.test or numbers.NOTHING)]
        row += [_number(each.p_holm, numbers.p_value), Cell(found, least), Cell(each.verdict)]
        rows.append(row)
    more = _more(len(comparisons), MAX_ROWS, "comparisons", "comparisons.csv")
    return Table(header, rows, more)


def problems_table(problems: Sequence[Problem]) -> Table:
    rows = [[Cell(problem.name), Cell(problem.text)] for problem in problems[:MAX_ROWS]]
    more = _more(len(problems), MAX_ROWS, "problems", "problems.csv")
    return Table(["passed over", "why"], rows, more)


def score_columns(runs: Iterable[Run]) -> list[str]:
    """All flat score keys, each score before its own spread and floor."""
    keys: set[str] = set().union(*(run.scores for run in runs))
    scores = {key if catalogue.is_score(key) else key.rpartition(".")[0] for key in keys}
    ordered = sorted(scores, key=catalogue.order)
    return [key for score in ordered for end in _SUFFIXES if (key := score + end) in keys]


def markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", one_line(text)).replace("&", "&amp;")


def _more(count: int, limit: int, what: str, file: str) -> str:
    return f"The first {limit} of {count} {what}; all are in {file}." if count > limit else ""


def _number(value: float | None, words: Callable[[float], str] = numbers.number) -> Cell:
    return Cell(numbers.NOTHING) if value is None else Cell(words(value), value)


def _floor(summaries: Sequence[Summary]) -> Cell:
    """The mean floor; then the real images' own score."""
    floor, real = (mean_of(getattr(each, name) for each in summaries) for name in ("floor", "real"))
    words = [] if floor is None else [numbers.number(floor, 3)]
    if real is not None:
        words.append(f"real images {numbers.number(real, 3)}")
    return Cell("; ".join(words) or numbers.NOTHING, real if floor is None else floor)


def _fact_columns(runs: Iterable[Run]) -> list[str]:
    found = dict.fromkeys(chain.from_iterable(run.facts for run in runs))
    middle = [key for key in found if key not in (*_FACTS_FIRST, *_FACTS_LAST)]
    return [key for key in (*_FACTS_FIRST, *middle, *_FACTS_LAST) if key in found]
