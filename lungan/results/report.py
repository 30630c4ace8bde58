"""From run folders to everything that is written of them."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungan.errors import RunFolderError
from lungan.results.caveats import caveats
from lungan.results.comparisons import Comparison, Summary, compare_groups, summarize
from lungan.results.figures import FILES, choose, draw
from lungan.results.groups import Group, group
from lungan.results.markup import latex, markdown
from lungan.results.page import render
from lungan.results.read import Collection, Problem, Run, collect, one_line
from lungan.results.tables import (
    comparisons_csv,
    comparisons_table,
    problems_csv,
    results_csv,
    runs_table,
    summary_csv,
    summary_table,
)
from lungan.results.utility import read_utility
from lungan.results.utility_report import FIGURES_FOLDER, STALE, report_utility
from lungan.results.verdicts import headlines
from lungan.runs.folder import write_bytes

log = logging.getLogger(__name__)

REPORT = "report.html"
PROBLEMS = "problems.csv"
_MAX_LOGGED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What was read and found. verdicts: sentences, for a terminal or a report. files: what was
    written, below ``out``."""

    out: Path
    runs: list[Run]
    groups: list[Group]
    summaries: list[Summary]
    comparisons: list[Comparison]
    problems: list[Problem]
    verdicts: list[str]
    files: list[Path]


def write_results(
    store: Path, sweep: str | None, out: Path, columns: Sequence[str] = ()
) -> Results:
    """Read the runs of a sweep, or of a whole store, and write tables, figures and report.html.

    The same run folders give the same bytes. Damaged folders are named, on stderr too, and passed
    over. columns: config keys to show although they do not vary.

    Raises: RunFolderError where store or sweep do not exist or ``out`` cannot be written,
    ConfigError for a column that no run has.
    """
    collection = collect(store, sweep)
    grouping = group(collection, columns)
    summaries = summarize(grouping.groups)
    _check_writable(out)
    comparisons = compare_groups(summaries)
    problems = list(collection.problems)
    of_sweep = None if sweep is None else {run.name for run in collection.runs}
    utility = read_utility(store, runs=of_sweep)
    trials = None if utility is None else report_utility(utility)
    if trials is not None:
        problems += trials.problems
    verdicts = headlines(collection.runs, grouping.groups, summaries, comparisons)
    files = {
        "results.csv": results_csv(collection.runs, grouping),
        "summary.csv": summary_csv(summaries, grouping),
        "comparisons.csv": comparisons_csv(comparisons),
    }
    tables = {
        "results": runs_table(collection.runs, grouping),
        "summary": summary_table(summaries, [each for each in grouping.groups if each.done]),
        "comparisons": comparisons_table(comparisons),
    }
    for name, table in tables.items():
        files[f"{name}.md"] = _encode(markdown(table))
        files[f"{name}.tex"] = _encode(latex(table))
    files |= {} if trials is None else trials.files
    figures = draw(choose(grouping.groups, summaries), problems)
    if problems:
        files[PROBLEMS] = problems_csv(problems)
    for figure in figures:
        files[f"{FIGURES_FOLDER}/{figure.file}"] = figure.png
    page = render(
        collection,
        comparisons,
        tables,
        figures,
        problems,
        verdicts,
        caveats(collection.runs, grouping.groups, summaries, comparisons, problems),
        _commands(collection),
        out,
        trials,
    )
    files[REPORT] = _encode(page)
    for stale in (PROBLEMS, *STALE, *(f"{FIGURES_FOLDER}/{file}" for file in FILES)):
        if stale not in files:
            (out / stale).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes(out / name, content)
    _log_problems(problems)
    return Results(
        out=out,
        runs=collection.runs,
        groups=grouping.groups,
        summaries=summaries,
        comparisons=comparisons,
        problems=problems,
        verdicts=[*verdicts, *(trials.verdicts if trials is not None else [])],
        files=[out / name for name in files],
    )


def _commands(collection: Collection) -> list[str]:
    """What to type to have this again; a path of this machine is not for others to read."""
    store = "STORE" if collection.store.is_absolute() else shlex.quote(str(collection.store))
    again = f"python -m lungan.results {store}"
    if collection.sweep:
        name = shlex.quote(collection.sweep)
        again += f" --sweep {name} --out results/{name}"
    return [*([collection.command] if collection.command else []), again]


def _check_writable(out: Path) -> None:
    """Before the work is done, so that nothing is lost."""
    try:
        (out / FIGURES_FOLDER).mkdir(parents=True, exist_ok=True)
        writable = os.access(out, os.W_OK | os.X_OK)
    except OSError as error:
        raise RunFolderError(
            f"out must be a folder that can be written, got {out} ({error.strerror})"
        ) from error
    if not writable:
        raise RunFolderError(f"out must be a folder that can be written, got {out}")


def _encode(text: str) -> bytes:
    """A folder's name may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace")


def _log_problems(problems: Sequence[Problem]) -> None:
    for problem in problems[:_MAX_LOGGED]:
        log.warning("passed over %s: %s", one_line(problem.name), problem.text)
    if len(problems) > _MAX_LOGGED:
        log.warning("%d more are in %s", len(problems) - _MAX_LOGGED, PROBLEMS)
