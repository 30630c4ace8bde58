"""What is written of a utility study: tables, figures and sentences, and the files of these."""

from __future__ import annotations

from dataclasses import dataclass

from lungan.results import numbers
from lungan.results.figures import Figure
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.results.tables import (
    Cell,
    Table,
    comparisons_csv,
    comparisons_table,
    results_csv,
    summary_csv,
    write_csv,
)
from lungan.scores import catalogue
from lungan.utility.analysis import (
    FRACTION,
    PREVALENCE,
    RARE,
    SHOWN,
    Utility,
    average,
    num_real,
    title,
    value,
)
from lungan.utility.figures import FILES as FIGURE_FILES
from lungan.utility.figures import draw_utility
from lungan.utility.manifest import Manifest
from lungan.utility.sentences import caveats, verdicts

_OF_GENERATORS = (
    "frechet_distance",
    "kernel_distance",
    "precision",
    "coverage",
    "memorization_distance_ratio",
    "memorization_share",
    "authenticity",
    "near_copies",
)
FIGURES_FOLDER = "figures"
STALE = (
    *("utility.csv", "utility_summary.csv", "utility_comparisons.csv"),
    *("utility_patients.csv", "utility_classifiers.csv"),
    *("utility.md", "utility.tex", "utility_comparisons.md", "utility_comparisons.tex"),
    *(f"{FIGURES_FOLDER}/{file}" for file in FIGURE_FILES),
)
"""All files that there can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilityReport:
    """files: contents by path below the folder that they go to."""

    utility: Utility
    verdicts: list[str]
    caveats: list[str]
    arms: Table
    answers: Table
    generators: Table
    figures: list[Figure]
    problems: list[Problem]
    files: dict[str, bytes]


def report_utility(utility: Utility) -> UtilityReport:
    """Tables as CSV, Markdown and LaTeX, figures, and all else that the page shows."""
    problems = list(utility.problems)
    arms, answers = arms_table(utility), comparisons_table(utility.comparisons)
    figures = draw_utility(utility, problems)
    files = {
        "utility.csv": results_csv(utility.trials, utility.grouping),
        "utility_summary.csv": summary_csv(utility.summaries, utility.grouping),
        "utility_comparisons.csv": comparisons_csv(utility.comparisons),
    }
    if any(over is not None for _, over in utility.tested):
        files["utility_patients.csv"] = patients_csv(utility)
    if utility.classifiers:
        files["utility_classifiers.csv"] = classifiers_csv(utility)
    for name, table in (("utility", arms), ("utility_comparisons", answers)):
        files[f"{name}.md"], files[f"{name}.tex"] = table.markdown(), table.latex()
    files |= {f"{FIGURES_FOLDER}/{figure.file}": figure.png for figure in figures}
    return UtilityReport(
        utility=utility,
        verdicts=verdicts(utility),
        caveats=caveats(utility),
        arms=arms,
        answers=answers,
        generators=generators_table(utility.generators),
        figures=figures,
        problems=problems,
        files=files,
    )


def arms_table(utility: Utility) -> Table:
    """A row a group, in the order of fractions and arms: mean ± half of the 95 % interval."""
    scores = list(dict.fromkeys(summary.score for summary in utility.summaries))
    cells = {(id(summary.group), summary.score): summary for summary in utility.summaries}
    header = ["arm", "real images", "each shown", "seeds"]
    header += [f"{catalogue.title(key)}, {catalogue.describe(key).hint}" for key in scores]
    rows = []
    for group in utility.groups:
        number, often, share = num_real(group), average(group, SHOWN), value(group, PREVALENCE)
        rare = [] if share is None else [f"{share:g} {value(group, RARE)}"]
        row = [
            Cell(", ".join([title(group), *rare, *group.label.split(" / ")[1:]])),
            Cell(numbers.scalar(number), number),
            Cell(numbers.NOTHING if often is None else f"{often:.0f} times", often),
            Cell(_of_planned(group, utility.manifest), len(group.done)),
        ]
        for key in scores:
            cell = cells.get((id(group), key))
            if cell is None:
                row.append(Cell(numbers.NOTHING))
            else:
                row.append(Cell(numbers.interval(cell.interval), cell.interval.mean))
        rows.append(row)
    return Table(header, rows)


def _of_planned(group: Group, manifest: Manifest | None) -> str:
    """``25 of 28`` seeds, where fewer are done than were planned."""
    number = len(group.done)
    if manifest is None or not all(map(manifest.is_planned, group.runs)):
        return str(number)
    planned = manifest.planned.seeds
    return f"{number} of {planned}" if number < planned else str(number)


def classifiers_csv(utility: Utility) -> bytes:
    """A row a classifier: its AUC, with intervals over patients drawn again and by DeLong."""
    header = ["trial", "auc", "ci95_low", "ci95_high", "delong95_low", "delong95_high"]
    rows = (
        [one.trial.name, one.auc, *one.over_patients, *(one.delong or (None, None))]
        for one in utility.classifiers
    )
    return write_csv(header, rows)


def patients_csv(utility: Utility) -> bytes:
    """A row a question and measure, first minus second, over patients and seeds together."""
    header = ["measure", "first", "second", "seeds", "images", "patients"]
    header += ["difference", "ci95_low", "ci95_high", "standard_error", "p", "detectable"]
    rows = []
    for one, over in utility.tested:
        if over is None:
            continue
        names = [one.first.group.label, one.second.group.label]
        sizes = [over.num_seeds, over.num_images, over.num_patients]
        for measure, found in over.results.items():
            ends = [found.difference, found.low, found.high, found.standard_error, found.p]
            rows.append([measure, *names, *sizes, *ends, found.detectable(over.num_tests)])
    return write_csv(header, rows)


def generators_table(runs: list[Run]) -> Table:
    """A row a run that made synthetic images, with its scores beside their floors."""
    keys = [
        key
        for key in sorted({key for run in runs for key in run.scores}, key=catalogue.order)
        if catalogue.name_of(key) in _OF_GENERATORS
        and any(run.scores.get(key) is not None for run in runs)
    ]
    header = ["generator", "classes", "fraction", "seed", "trained on"]
    rows = []
    for run in runs:
        classes = str(run.config.get("data.classes", "[]")).strip("[]").replace('"', "") or "all"
        fraction, seed = run.config.get(FRACTION, 1.0), run.config.get("seed")
        row = [Cell(run.name), Cell(classes)]
        about = (fraction, seed, run.facts.get("num_train_images"))
        row += [Cell(numbers.scalar(number), number) for number in about]
        for key in keys:
            score, floor = run.scores.get(key), run.scores.get(f"{key}.floor")
            words = numbers.NOTHING if score is None else numbers.number(score, 3)
            if score is not None and floor is not None:
                words += f" (floor {numbers.number(floor, 3)})"
            row.append(Cell(words, score))
        rows.append(row)
    return Table([*header, *map(catalogue.title, keys)], rows)
