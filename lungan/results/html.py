"""The report as one HTML file that needs nothing else; all that comes from runs is escaped."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from lungan.results.canvas import Figure
from lungan.results.collect import Collection, Problem
from lungan.results.comparisons import Comparison
from lungan.results.groups import status_counts
from lungan.results.page import SCRIPT, STYLE, policy
from lungan.results.records import STATUSES, Run, Scalar
from lungan.results.tables import (
    Cell,
    Table,
    problems_table,
)
from lungan.results.utility_report import UtilityReport


def render(
    collection: Collection,
    comparisons: Sequence[Comparison],
    tables: Mapping[str, Table],
    figures: Sequence[Figure],
    problems: Sequence[Problem],
    verdicts: Sequence[str],
    caveats: Sequence[str],
    commands: Sequence[str],
    utility: UtilityReport | None = None,
) -> str:
    """The whole page. tables: ``results``, ``summary`` and ``comparisons``."""
    title = f"Sweep {collection.sweep}" if collection.sweep else "All runs of the store"
    sections = [
        _head(title, collection),
        _section("Verdicts", _list(verdicts, "verdicts")),
        _section("Does it help a classifier?", _utility(utility) if utility else ""),
        _section("Scores by group", _summaries(tables["summary"])),
        _section("Figures", "".join(map(_figure, figures))),
        _section("Differences between groups", _comparisons(comparisons, tables["comparisons"])),
        _section("Caveats", _list(caveats)),
        _section("Runs", _table(tables["results"], sortable=True)),
        _section("Problems", _table(problems_table(problems)) if problems else ""),
        _section("To repeat it", _repeat(collection.runs, commands)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)} - lungan</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(sections)}<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _head(title: str, collection: Collection) -> str:
    question = (
        f'<p class="question">{_text(collection.question)}</p>' if collection.question else ""
    )
    created = (
        f'<p class="soft">Sweep begun {_text(collection.created)}</p>' if collection.created else ""
    )
    chips = "".join(
        f'<li class="{status}">{count} {status}</li>'
        for status, count in status_counts(collection.runs).items()
    )
    return (
        f"<header>\n<h1>{_text(title)}</h1>\n{question}{created}"
        f'<ul class="chips"><li>{len(collection.runs)} runs</li>{chips}</ul>\n</header>\n'
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>\n" if body else ""


def _list(items: Iterable[str], kind: str = "") -> str:
    lines = "".join(f"<li>{_text(item)}</li>\n" for item in items)
    return f'<ul class="{kind}">\n{lines}</ul>' if lines else ""


def _summaries(table: Table) -> str:
    if not table.rows:
        return ""
    note = (
        "Mean ± half of the 95 % confidence interval over seeds, beside the floor: the same score "
        "between two disjoint sets of real images. Overlapping or separate intervals are no test; "
        "the verdicts above are."
    )
    return f"<p>{note}</p>\n{_table(table, row_heads=True)}"


def _comparisons(comparisons: Sequence[Comparison], table: Table) -> str:
    if not comparisons:
        return ""
    supported = sum(comparison.significant for comparison in comparisons)
    tested = sum(comparison.p_holm is not None for comparison in comparisons)
    untested = (
        f", {len(comparisons) - tested} could not be tested" if tested < len(comparisons) else ""
    )
    return (
        f"<details><summary>{len(comparisons)} comparisons: {supported} with a significant "
        f"difference, {tested - supported} without{untested}</summary>\n"
        f"{_table(table, sortable=True)}</details>"
    )


def _utility(report: UtilityReport) -> str:
    note = (
        "Classifiers trained on real and synthetic images under equal numbers of updates: mean ± "
        "half of the 95 % confidence interval over seeds, on real test images."
    )
    tested = len(report.utility.answers)
    generators = (
        f"<details><summary>The generators and their scores</summary>\n{_table(report.generators)}"
        "</details>"
        if report.generators.rows
        else ""
    )
    return (
        f"{_list(report.verdicts, 'verdicts')}<p>{note}</p>\n{_table(report.arms, sortable=True)}"
        f"{''.join(map(_figure, report.figures))}"
        f"<details><summary>{tested} comparisons of arms with their controls</summary>\n"
        f"{_table(report.answers, sortable=True)}</details>{generators}{_list(report.caveats)}"
    )


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    return (
        f'<figure><div><img alt="{_text(figure.title)}" src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption><b>{_text(figure.title)}.</b> {_text(figure.caption)}</figcaption></figure>\n"
    )


def _repeat(runs: Sequence[Run], commands: Sequence[str]) -> str:
    lines = "\n".join(map(_text, commands))
    rows = []
    for key in _provenance_keys(runs):
        counts = Counter(str(run.facts[key]) for run in runs if run.facts.get(key) is not None)
        values = [
            f"{value} ({count} runs)" if len(counts) > 1 else value
            for value, count in sorted(counts.items())
        ]
        if values:
            rows.append([Cell(key.removeprefix("versions.")), Cell(", ".join(values[:10]))])
    return f"<pre>{lines}</pre>\n{_table(Table(['what', 'with'], rows))}"


def _provenance_keys(runs: Sequence[Run]) -> list[str]:
    found = dict.fromkeys(chain.from_iterable(run.facts for run in runs))
    named = ("git_commit", "used.device", "used.precision", "data_hash", "num_train_images")
    return [
        *(key for key in found if key.startswith("versions.")),
        *(key for key in named if key in found),
        *(key for key in found if key.startswith(("num_parameters.", "encoders."))),
    ]


def _table(table: Table, *, sortable: bool = False, row_heads: bool = False) -> str:
    """row_heads: the first cell of a row names it, with what follows a comma as small print."""
    numeric = [
        any(_is_number(row[column].value) for row in table.rows)
        for column in range(len(table.header))
    ]
    head = "".join(
        f'<th scope="col"{_class(["number"] if number else [])}>{_text(text)}</th>'
        for text, number in zip(table.header, numeric, strict=True)
    )
    body = []
    for row in table.rows:
        cells = [
            _row_head(cell.text) if row_heads and column == 0 else _cell(cell, numeric[column])
            for column, cell in enumerate(row)
        ]
        body.append(f"<tr>{''.join(cells)}</tr>\n")
    more = f'<p class="soft">{_text(table.more)}</p>\n' if table.more else ""
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="wide"><table{kind}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(body)}</tbody>\n</table></div>\n{more}"
    )


def _cell(cell: Cell, number: bool) -> str:
    value = cell.value
    classes = ["number"] if number else []
    if cell.text in STATUSES:
        classes.append(cell.text)
    data = ""
    if _is_number(value):
        data = f' data-value="{value!r}"'
    return f"<td{_class(classes)}{data}>{_text(cell.text)}</td>"


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _row_head(text: str) -> str:
    name, _, rest = text.partition(", ")
    small = f"<small>{_text(rest)}</small>" if rest else ""
    return f'<th scope="row">{_text(name)}{small}</th>'


def _class(classes: Sequence[str]) -> str:
    return f' class="{" ".join(classes)}"' if classes else ""


def _text(value: str) -> str:
    return html.escape(value, quote=True)
