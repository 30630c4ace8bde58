"""The utility study's results: do synthetic images help a classifier, and is that beyond chance?"""

from __future__ import annotations

import json
from collections.abc import Collection as Container
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lungan.errors import RunFolderError
from lungan.results.arms import ARMS, PRIMARY_SCORE, QUESTIONS
from lungan.results.comparisons import Comparison, Summary, correct, summarize
from lungan.results.groups import Group, Grouping, text
from lungan.results.read import Problem, Run, Scalar, read_run
from lungan.results.statistics import Difference, paired
from lungan.runs.folder import SUMMARY, UTILITY

if TYPE_CHECKING:
    from lungan.results.utility_patients import OverPatients

FRACTION, NUM_REAL = "data.fraction", "data.num_real_images"
GAN, GAN_RUNS = "gan.name", "gan.runs"
FACTORS = (FRACTION, NUM_REAL, "arm", "ratio")
_SETTINGS = tuple(f"classifier.{key}" for key in ("classifier", "updates", "batch_size", "peak_lr"))
_WORDS = {
    "classifier.classifier": "{}",
    "classifier.updates": "{} updates",
    "classifier.batch_size": "batches of {}",
    "classifier.peak_lr": "peak_lr={}",
    GAN: "{}",
}
_HIDDEN = ("used.precision", "data_hash", "classifier.positive", "classifier.version")


@dataclass(frozen=True, slots=True)
class Utility:
    """groups: of trials that differ only in their seed. answers: each arm against its controls,
    question by question."""

    store: Path
    trials: list[Run]
    grouping: Grouping
    summaries: list[Summary]
    answers: list[Comparison]
    problems: list[Problem]
    over_patients: list[OverPatients]

    @property
    def groups(self) -> list[Group]:
        return self.grouping.groups


def read_utility(
    store: Path,
    *,
    run_ids: Container[str] | None = None,
    runs: Container[str] | None = None,
) -> Utility | None:
    """All finished trials of a store, or those of ``run_ids``, or those whose generators are among
    the folders ``runs`` with their controls; None where there are none."""
    root = store / UTILITY
    if not root.is_dir():
        return None
    trials, problems = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if not (folder / SUMMARY).is_file():
            continue  # under way, or stopped and to be gone on with
        try:
            trial = read_run(folder)
            if trial.config.get("arm") not in ARMS:
                raise RunFolderError(f"{SUMMARY} is not a utility trial's")
        except RunFolderError as error:
            problems.append(Problem(f"{UTILITY}/{folder.name}", str(error)))
            continue
        trials.append(trial)
    if run_ids is not None:
        trials = [trial for trial in trials if trial.facts["run_id"] in run_ids]
    if runs is not None:
        trials = _with_controls(trials, runs)
    if not trials:
        return None
    from lungan.results.utility_patients import compare_over_patients  # which needs pandas

    grouping = _group(trials)
    summaries = summarize(grouping.groups)
    answers = _answer(summaries)
    over_patients = compare_over_patients(
        [
            (one.first.group, one.second.group)
            for one in answers
            if one.first.score == PRIMARY_SCORE
        ],
        problems,
    )
    return Utility(store, trials, grouping, summaries, answers, problems, over_patients)


def value(group: Group, key: str) -> Scalar:
    """A setting that all trials of a group share."""
    return _of_trial(group.runs[0], key)


def setting(group: Group) -> tuple[Scalar, ...]:
    """What two groups must share to stand in one picture: data and classifier, not arm or GAN."""
    return tuple(value(group, key) for key in (*_SETTINGS, *_HIDDEN))


def title(group: Group) -> str:
    """The arm, with its ratio."""
    arm, ratio = ARMS[str(value(group, "arm"))], value(group, "ratio")
    return arm.title if ratio is None else f"{arm.title} (x{text(ratio)})"


def is_primary(comparison: Comparison) -> bool:
    """Whether this is what the study was made for."""
    asked = tuple(value(side.group, "arm") for side in (comparison.first, comparison.second))
    return comparison.first.score == PRIMARY_SCORE and asked == QUESTIONS[0]


def _with_controls(trials: Sequence[Run], runs: Container[str]) -> list[Run]:
    """Trials whose generators are all among ``runs``, and those without any that they need."""
    own = [t for t in trials if GAN in t.config and all(run in runs for run in _gan_runs(t))]
    homes = {_home(trial) for trial in own}
    controls = [t for t in trials if GAN not in t.config and _home(t) in homes]
    return [*controls, *own]


def _gan_runs(trial: Run) -> list[str]:
    listed = json.loads(str(trial.config.get(GAN_RUNS, "[]")))
    return [str(name) for name in listed] if isinstance(listed, list) else []


def gan_runs(trials: Sequence[Run]) -> list[str]:
    """The folders of all generators that the trials used."""
    return sorted({name for trial in trials for name in _gan_runs(trial)})


def _home(trial: Run) -> tuple[Scalar, ...]:
    return tuple(_of_trial(trial, key) for key in (*_SETTINGS, *_HIDDEN, FRACTION, "seed"))


def _of_trial(trial: Run, key: str) -> Scalar:
    return trial.config.get(key, trial.facts.get(key))


def _group(trials: Sequence[Run]) -> Grouping:
    shown = _varying(trials, (*_SETTINGS, GAN))
    groups: dict[tuple[Scalar, ...], Group] = {}
    for trial in trials:
        key = tuple(_of_trial(trial, name) for name in (*FACTORS, GAN, *_SETTINGS, *_HIDDEN))
        groups.setdefault(key, Group(key[: len(FACTORS)], "")).runs.append(trial)
    order = list(ARMS)

    def place(group: Group) -> tuple[object, ...]:
        rest = tuple(str(value(group, key)) for key in (GAN, *_SETTINGS, *_HIDDEN))
        ratio = value(group, "ratio")
        arm = order.index(str(value(group, "arm")))
        return (*rest[1:], _float(value(group, FRACTION)), arm, _float(ratio), rest[0])

    ordered = sorted(groups.values(), key=place)
    for group in ordered:
        more = [_WORDS[key].format(one) for key in shown if (one := value(group, key)) is not None]
        words = [f"{title(group)}, {value(group, NUM_REAL)} real images", *more]
        group.label = " / ".join(words)
    return Grouping(list(FACTORS), ordered, [*FACTORS, "seed", *shown])


def _varying(trials: Sequence[Run], keys: Sequence[str]) -> list[str]:
    return [key for key in keys if len({trial.config.get(key) for trial in trials} - {None}) > 1]


def _float(number: Scalar) -> float:
    return float(number) if isinstance(number, int | float) else -1.0


def _answer(summaries: Sequence[Summary]) -> list[Comparison]:
    """Every question that there are trials for, paired by seed; p is corrected after Holm within
    one question and score, over fractions, ratios and generators."""
    answers = []
    for score in dict.fromkeys(summary.score for summary in summaries):
        of_score = [summary for summary in summaries if summary.score == score]
        for asked, control in QUESTIONS:
            pairs = [
                (first, second)
                for first in of_score
                if value(first.group, "arm") == asked
                for second in of_score
                if value(second.group, "arm") == control and _comparable(first, second)
            ]
            answers += correct([(*pair, _paired(*pair)) for pair in pairs])
    return answers


def _comparable(first: Summary, second: Summary) -> bool:
    sides = (first.group, second.group)
    same = setting(sides[0]) == setting(sides[1]) and first.settings == second.settings
    for key in (FRACTION, "ratio", GAN):
        left, right = (value(side, key) for side in sides)
        free = key != FRACTION and right is None
        same = same and (free or left == right)
    return same


def _paired(first: Summary, second: Summary) -> Difference:
    """Over the seeds that both have: the same images, initial weights and order of batches."""
    by_seed = [
        {run.config.get("seed"): one for run, one in zip(side.runs, side.values, strict=True)}
        for side in (first, second)
    ]
    common = [seed for seed in by_seed[0] if seed in by_seed[1]]
    if not common:
        return paired([first.interval.mean], [second.interval.mean])
    return paired([by_seed[0][seed] for seed in common], [by_seed[1][seed] for seed in common])
