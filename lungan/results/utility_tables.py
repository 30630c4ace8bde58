"""The utility study as tables: arms, answers, and the generators that were used."""

from __future__ import annotations

from lungan.errors import RunFolderError
from lungan.results import numbers
from lungan.results.comparisons import Summary
from lungan.results.groups import Group
from lungan.results.read import Problem, Run, read_run
from lungan.results.tables import Cell, Table, comparisons_table, write_csv
from lungan.results.utility import (
    FRACTION,
    PREVALENCE,
    RARE,
    SHOWN,
    Utility,
    gan_runs,
    num_real,
    title,
    value,
)
from lungan.scores import catalogue

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


def arms_table(utility: Utility) -> Table:
    """A row a group, in the order of fractions and arms: mean ± half of the 95 % interval."""
    scores = list(dict.fromkeys(summary.score for summary in utility.summaries))
    cells: dict[tuple[int, str], Summary] = {
        (id(summary.group), summary.score): summary for summary in utility.summaries
    }
    header = ["arm", "real images", "each shown", "seeds"]
    header += [f"{catalogue.title(key)}, {catalogue.describe(key).hint}" for key in scores]
    rows = []
    for group in utility.groups:
        number, often = num_real(group), value(group, SHOWN)
        more = [one for one in (_rare(group), *group.label.split(" / ")[1:]) if one]
        row = [Cell(", ".join([title(group), *more])), Cell(numbers.scalar(number), number)]
        shown = f"{often:.0f} times" if isinstance(often, float) else numbers.NOTHING
        row.append(Cell(shown, often))
        row.append(Cell(str(len(group.done)), len(group.done)))
        for key in scores:
            cell = cells.get((id(group), key))
            if cell is None:
                row.append(Cell(numbers.NOTHING))
                continue
            words = numbers.interval(cell.interval)
            row.append(Cell(words, cell.interval.mean))
        rows.append(row)
    return Table(header, rows)


def answers_table(utility: Utility) -> Table:
    """Every arm against its controls."""
    return comparisons_table(utility.comparisons)


def _rare(group: Group) -> str:
    share = value(group, PREVALENCE)
    return "" if share is None else f"{share:g} {value(group, RARE)}"


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
    for one in utility.over_patients:
        for measure, found in one.results.items():
            sizes = [one.num_seeds, one.num_images, one.num_patients]
            ends = [found.difference, found.low, found.high, found.standard_error, found.p]
            names = [one.first.label, one.second.label]
            rows.append([measure, *names, *sizes, *ends, found.detectable(one.num_tests)])
    return write_csv(header, rows)


def generators_table(utility: Utility) -> tuple[Table, list[Problem]]:
    """The runs that the synthetic images come from with their scores, beside floors; and those
    that are no longer in the store."""
    runs, problems = [], []
    for name in gan_runs(utility.trials):
        folder = utility.store / name
        try:
            runs.append(read_run(folder))
        except RunFolderError as error:
            problems.append(Problem(name, f"made synthetic images, and cannot be read: {error}"))
    keys = [
        key
        for key in sorted({key for run in runs for key in run.scores}, key=catalogue.order)
        if catalogue.split_key(key)[1] in _OF_GENERATORS
        and any(run.scores.get(key) is not None for run in runs)
    ]
    header = ["generator", "classes", "fraction", "seed", "trained on"]
    header += [catalogue.title(key) for key in keys]
    return Table(header, [_row(run, keys) for run in runs]), problems


def _row(run: Run, keys: list[str]) -> list[Cell]:
    classes = str(run.config.get("data.classes", "[]")).strip("[]").replace('"', "") or "all"
    fraction = run.config.get(FRACTION, 1.0)
    trained_on, seed = run.facts.get("num_train_images"), run.config.get("seed")
    row = [Cell(run.name), Cell(classes), Cell(numbers.scalar(fraction), fraction)]
    row += [Cell(numbers.scalar(seed), seed), Cell(numbers.scalar(trained_on), trained_on)]
    for key in keys:
        score, floor = run.scores.get(key), run.scores.get(f"{key}.floor")
        words = numbers.NOTHING if score is None else numbers.number(score, 3)
        if score is not None and floor is not None:
            words += f" (floor {numbers.number(floor, 3)})"
        row.append(Cell(words, score))
    return row
