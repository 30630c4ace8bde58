"""What is written of a utility study, alone or beside a store's runs."""

from __future__ import annotations

from dataclasses import dataclass

from lungan.results.figures import Figure
from lungan.results.read import Problem
from lungan.results.tables import Table, comparisons_csv, results_csv, summary_csv
from lungan.results.utility import Utility
from lungan.results.utility_figures import FILES as FIGURE_FILES
from lungan.results.utility_figures import draw_utility
from lungan.results.utility_tables import (
    answers_table,
    arms_table,
    classifiers_csv,
    generators_table,
    patients_csv,
)
from lungan.results.utility_words import caveats, verdicts

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
    generators, problems = generators_table(utility)
    problems = [*utility.problems, *problems]
    arms, answers = arms_table(utility), answers_table(utility)
    figures = draw_utility(utility, problems)
    files = {
        "utility.csv": results_csv(utility.trials, utility.grouping),
        "utility_summary.csv": summary_csv(utility.summaries, utility.grouping),
        "utility_comparisons.csv": comparisons_csv(utility.comparisons),
    }
    if utility.over_patients:
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
        generators=generators,
        figures=figures,
        problems=problems,
        files=files,
    )
