"""From run folders to everything that is written of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungan.errors import RunFolderError
from lungan.files import write_bytes
from lungan.results.comparisons import Comparison, compare_groups, summarize
from lungan.results.drawing import Figure
from lungan.results.figures import FILES, draw
from lungan.results.groups import group
from lungan.results.page import render
from lungan.results.read import Collection, Problem, Run, collect, one_line, to_publish
from lungan.results.tables import (
    Table,
    comparisons_csv,
    comparisons_table,
    encode,
    results_csv,
    run_names,
    runs_table,
    summary_csv,
    summary_table,
    write_csv,
)
from lungan.results.verdicts import caveats, headlines
from lungan.utility.analysis import Utility, read_utility
from lungan.utility.arms import ARMS
from lungan.utility.page import FIGURES_FOLDER, STALE, UtilityReport, report_utility

log = logging.getLogger(__name__)

REPORT = "report.html"
PROBLEMS = "problems.csv"
_MAX_LOGGED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The runs that were read, the findings, and the files that are written below ``out``.

    names: display names of runs. findings: sentences, the answer first; caveats:
    what a reader has to know beside them. tables: ``results``, ``summary`` and ``comparisons``.
    utility: of a utility study in the same store.
    """

    out: Path
    collection: Collection
    names: dict[Run, str]
    comparisons: list[Comparison]
    findings: list[str]
    caveats: list[str]
    tables: dict[str, Table]
    figures: list[Figure]
    problems: list[Problem]
    utility: UtilityReport | None
    files: list[Path] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return self.collection.runs

    @property
    def verdicts(self) -> list[str]:
        """All findings, those of the utility study last."""
        return [*self.findings, *self.study_verdicts]

    @property
    def study_verdicts(self) -> list[str]:
        """What the utility study found, without its answer where that leads the findings."""
        found = self.utility.verdicts if self.utility else []
        return found[1:] if found[:1] == self.findings[:1] else found


def write_results(
    store: Path,
    sweep: str | None,
    out: Path,
    columns: Sequence[str] = (),
    study: str | None = None,
) -> Results:
    """Read the runs of a sweep, or of a whole store, and write tables, figures and report.html.

    study: the name of a utility study, whose generators' runs these are then and whose answer comes
    first.

    The same run folders give the same bytes. Damaged folders are named, on stderr too, and passed
    over. columns: config keys to show although they do not vary.

    Raises: RunFolderError where store or sweep do not exist or ``out`` cannot be written,
    ConfigError for a column that no run has.
    """
    utility = None if study is None else read_utility(store, study=study)
    collection = collect(store, sweep) if utility is None else _of_study(store, utility)
    grouping = group(collection, columns)
    figures_folder, why = out / FIGURES_FOLDER, ""
    try:  # before the work is done, so that nothing is lost
        figures_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f" ({error.strerror})"
    if why or not all(os.access(path, os.W_OK | os.X_OK) for path in (out, figures_folder)):
        raise RunFolderError(f"out must be a folder that can be written, got {out}{why}")
    if study is None:
        of_sweep = {run.name for run in collection.runs} if collection.sweep else None
        utility = read_utility(store, runs=of_sweep)
    of_utility = report_utility(utility) if utility else None
    runs, groups, names = collection.runs, grouping.groups, run_names(grouping)
    summaries = summarize(groups)
    comparisons = compare_groups(summaries)
    problems = [*collection.problems, *(of_utility.problems if of_utility else [])]
    figures = draw(groups, summaries, problems)
    problems = [Problem(each.name, to_publish(each.text, store)) for each in problems]
    leads = study is not None or not summaries
    findings = of_utility.verdicts[:1] if of_utility is not None and leads else []
    if runs or not findings:  # a study without synthetic images has no generators to speak of
        findings += headlines(runs, groups, summaries, comparisons)
    results = Results(
        out=out,
        collection=collection,
        names=names,
        comparisons=comparisons,
        findings=findings,
        caveats=caveats(runs, groups, summaries, comparisons, problems),
        tables={
            "results": runs_table(runs, names),
            "summary": summary_table(summaries, [each for each in groups if each.done]),
            "comparisons": comparisons_table(comparisons),
        },
        figures=figures,
        problems=problems,
        utility=of_utility,
    )
    files = {
        "results.csv": results_csv(runs, grouping),
        "summary.csv": summary_csv(summaries, grouping),
        "comparisons.csv": comparisons_csv(comparisons),
    }
    for name, table in results.tables.items():
        files[f"{name}.md"], files[f"{name}.tex"] = table.markdown(), table.latex()
    files |= of_utility.files if of_utility else {}
    if problems:
        rows = [[each.name, each.text] for each in problems]
        files[PROBLEMS] = write_csv(["name", "problem"], rows)
    for figure in figures:
        files[f"{FIGURES_FOLDER}/{figure.file}"] = figure.png
    files[REPORT] = encode(render(results))
    for stale in (PROBLEMS, *STALE, *(f"{FIGURES_FOLDER}/{file}" for file in FILES)):
        if stale not in files:
            (out / stale).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes(out / name, content)
        results.files.append(out / name)
    for problem in problems[:_MAX_LOGGED]:
        log.warning("passed over %s: %s", one_line(problem.name), problem.text)
    if (more := len(problems) - _MAX_LOGGED) > 0:
        log.warning("%d more are in %s", more, PROBLEMS)
    return results


def _of_study(store: Path, utility: Utility) -> Collection:
    """The runs of the generators, as far as they lie in the store."""
    manifest = utility.manifest
    return Collection(
        store=store,
        runs=utility.generators,
        problems=[],
        question=(
            "Do synthetic images help a classifier?"
            if ARMS[utility.question[0]].has_synthetic
            else "What helps a classifier?"
        ),
        study=manifest.name if manifest else "",
        command=manifest.command if manifest else "",
        created=manifest.created if manifest else "",
    )
