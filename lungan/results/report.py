"""From run folders to everything that is written of them, and the page: one HTML file that needs
nothing else, in which all that comes from runs is escaped."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from lungan.errors import RunFolderError
from lungan.files import write_bytes
from lungan.results import tables
from lungan.results.comparisons import Comparison, compare_groups, summarize
from lungan.results.figures import FILES, Figure, draw
from lungan.results.groups import group, status_counts
from lungan.results.read import STATUSES, Collection, Problem, Run, collect, one_line, to_publish
from lungan.results.tables import Cell, Table
from lungan.results.verdicts import caveats, headlines, templates
from lungan.utility.analysis import Utility, read_utility
from lungan.utility.arms import ARMS
from lungan.utility.page import FIGURES_FOLDER, STALE, UtilityReport, report_utility

log = logging.getLogger(__name__)

REPORT = "report.html"
PROBLEMS = "problems.csv"
_MAX_LOGGED = 20

_INSIDE_A_NUMBER = re.compile(
    r"(?<=\d) (?=%|± |to -?\d|of \d)|(?<=%) (?=CI )|(?<=% CI) (?=-?\d)|(?<=±) (?=\d)"
    r"|(?<=\d (?:to|of)) (?=-?\d)|(?<=\b[np]) (?=[=<] )|(?<=\b[np] [=<]) (?=\d)"
)
"""Spaces of ``95 % CI 1.2 to 3.4``, ``5.1 ± 0.3`` and ``p = 0.02``, where no line may break."""

_PROVENANCE = ("git_commit", "data_hash", "num_", "used.", "versions.", "encoders.")
"""How the facts begin that say what runs were made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The runs that were read, the findings, and the files that are written below ``out``.

    names: display names of runs. findings: sentences, the answer first; caveats: what a reader has
    to know beside them. tables: ``results``, ``summary`` and ``comparisons``.
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
    runs, groups, names = collection.runs, grouping.groups, tables.run_names(grouping)
    summaries = summarize(groups)
    comparisons = compare_groups(summaries)
    problems = [*collection.problems, *(of_utility.problems if of_utility else [])]
    figures = draw(groups, summaries, problems)
    problems = [Problem(each.name, to_publish(each.text, store)) for each in problems]
    leads = study is not None or not summaries
    findings = of_utility.verdicts[:1] if of_utility is not None and leads else []
    # A study's generators are spoken of where they have scores.
    if not findings or (runs if study is None else summaries):
        findings += headlines(groups, summaries, comparisons)
    results = Results(
        out=out,
        collection=collection,
        names=names,
        comparisons=comparisons,
        findings=findings,
        caveats=caveats(groups, summaries, comparisons, problems),
        tables={
            "results": tables.runs_table(runs, names),
            "summary": tables.summary_table(summaries, [each for each in groups if each.done]),
            "comparisons": tables.comparisons_table(comparisons),
        },
        figures=figures,
        problems=problems,
        utility=of_utility,
    )
    files = {
        "results.csv": tables.results_csv(runs, grouping),
        "summary.csv": tables.summary_csv(summaries, grouping),
        "comparisons.csv": tables.comparisons_csv(comparisons),
    }
    for name, table in results.tables.items():
        files[f"{name}.md"], files[f"{name}.tex"] = table.markdown(), table.latex()
    files |= of_utility.files if of_utility else {}
    if problems:
        rows = [[each.name, each.text] for each in problems]
        files[PROBLEMS] = tables.write_csv(["name", "problem"], rows)
    for figure in figures:
        files[f"{FIGURES_FOLDER}/{figure.file}"] = figure.png
    files[REPORT] = tables.encode(render(results))
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


def render(results: Results) -> str:
    """The whole page; its links start from the folder ``results.out``."""
    environment = templates("lungan.results", autoescape=True, lstrip_blocks=True)
    together = partial(_INSIDE_A_NUMBER.sub, "\N{NO-BREAK SPACE}")
    environment.filters |= {"base64": _base64, "together": together}
    here = Path(__file__).with_name("templates")
    script, style = ((here / name).read_text("utf-8") for name in ("script.js", "style.css"))
    sweep, study = results.collection.sweep, results.collection.study
    title = f"Utility study {study}" if study else "All runs of the store"
    return environment.get_template("report.html.j2").render(
        title=f"Sweep {sweep}" if sweep else title,
        results=results,
        counts=status_counts(results.runs),
        statuses=STATUSES,
        num_significant=sum(each.significant for each in results.comparisons),
        num_tested=sum(each.p_holm is not None for each in results.comparisons),
        figures={figure.file: figure for figure in results.figures},
        problems=tables.problems_table(results.problems),
        provenance=_provenance(results.runs),
        links=_links(results),
        sent=_sent(results),
        style=style,
        script=script,
        script_hash=_base64(hashlib.sha256(script.encode()).digest()),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _links(results: Results) -> dict[str, str]:
    """The way from the page to each run's folder, by the run's display name.

    Only where that tells no more of this machine's folders than the store's name as it was given.
    """
    store = results.collection.store
    way = Path(os.path.relpath(store.resolve(), results.out.resolve()))
    named = [part for part in way.parts if part != ".."]
    given = (store.name,) if store.is_absolute() else store.parts
    if named != list(given[len(given) - len(named) :]):
        return {}
    return {
        results.names[run]: quote(os.fsencode(way / run.folder.name)) + "/"
        for run in results.runs
        if run.status != "missing"
    }


def _sent(results: Results) -> dict[str, str]:
    """Where W&B shows each run that it has, by the run's display name."""
    from lungan.tracking.wandb import address  # which needs more than this page

    found = {results.names[run]: address(run.folder) for run in results.runs[: tables.MAX_ROWS]}
    return {name: place for name, place in found.items() if place}


def _provenance(runs: Sequence[Run]) -> Table:
    """Versions, commit, device, data and parameters, with how many runs had which."""
    found = dict.fromkeys(chain.from_iterable(run.facts for run in runs))
    rows = []
    for key in (key for key in found if key.startswith(_PROVENANCE)):
        counts = Counter(str(value) for run in runs if (value := run.facts.get(key)) is not None)
        values = [f"{each} ({n} runs)" if len(counts) > 1 else each for each, n in counts.items()]
        if values:
            rows.append([Cell(key.removeprefix("versions.")), Cell(", ".join(sorted(values)[:10]))])
    return Table(["what", "with"], rows)
