"""The utility study's results: do synthetic images help a classifier, and is that beyond chance?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection as Container
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lungan.errors import RunFolderError
from lungan.results import numbers
from lungan.results.comparisons import Comparison, Summary, correct, mean_of, summarize
from lungan.results.groups import Group, Grouping
from lungan.results.read import Problem, Run, noting, read_run
from lungan.results.statistics import SIGNIFICANCE, Difference, holm, mean_interval, paired
from lungan.runs.folder import SUMMARY, UTILITY, Scalar
from lungan.scores import catalogue
from lungan.utility.arms import ARMS, PRIMARY, PRIMARY_SCORE, QUESTIONS
from lungan.utility.manifest import Manifest, manifest_path, manifests, read_manifest

if TYPE_CHECKING:
    from lungan.utility.patients import OneClassifier, OverPatients

FRACTION, PREVALENCE, DRAW = "data.fraction", "data.prevalence", "data.fraction_seed"
NUM_REAL, RARE, SHOWN = "data.num_real_images", "data.rare", "shown.all"
GAN, GAN_RUNS = "gan.name", "gan.runs"
NETWORK = "network"
RECIPE = "recipe"
FACTORS = (FRACTION, PREVALENCE, "arm", "ratio")
EXPLORATORY = "exploratory"
"""In the label of every group that was not planned before the first result."""
_SETTINGS = tuple(f"classifier.{key}" for key in ("classifier", "updates", "batch_size", "peak_lr"))
_WORDS = {
    "classifier.classifier": "{}",
    "classifier.updates": "{} updates",
    "classifier.batch_size": "batches of {}",
    "classifier.peak_lr": "peak_lr={}",
    GAN: "{}",
    NETWORK: "{}",
}
_HIDDEN = (
    *("used.precision", "data_hash", "classifier.positive", "classifier.version"),
    *("classifier.tuned", "tested_on", RARE),
)


Tested: TypeAlias = "tuple[Comparison, OverPatients | None]"
"""Two arms over seeds, and over patients and seeds together where predictions were kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The question that a study was made for, at one place: one scenario, ratio and generator.

    against: the asked arm against each control. p: the largest of all their p-values, after Holm
    over the study's places; the arm differs from every control where it is below 5 %.
    Source of the largest: Berger 1982, doi:10.1080/00401706.1982.10487790.
    """

    against: list[Tested]
    p: float | None

    @property
    def asked(self) -> Summary:
        return self.against[0][0].first

    @property
    def direction(self) -> int:
        """1 where the arm is better than every control, -1 where worse, else 0."""
        if self.p is None or self.p >= SIGNIFICANCE:
            return 0
        signs = {1 if one.result.difference > 0 else -1 for one, _ in self.against}
        return signs.pop() if len(signs) == 1 else 0

    @property
    def over_patients(self) -> list[OverPatients]:
        """Of every comparison, or none."""
        found = [over for _, over in self.against if over is not None]
        return found if len(found) == len(self.against) else []

    @property
    def detectable(self) -> float | None:
        """The smallest gain over every control that four of five such studies would find."""
        sizes = (
            over.results[PRIMARY_SCORE].detectable(over.num_tests) for over in self.over_patients
        )
        return max(sizes, default=None)


@dataclass(frozen=True, slots=True)
class Utility:
    """groups: of trials that differ only in their seed. comparisons: each arm against its controls,
    question by question; ``tested``: those in the primary score. answers: the study's own question,
    place by place. generators: runs that made its images, as far as the store has them. manifest:
    None where the trials are of no study, or of several. whole_seeds: of the planned ones those of
    which every planned trial has a result; where there are some, the ``num_left_out`` planned
    trials of other seeds are not among ``trials``, and where there are none, nothing is
    answered."""

    store: Path
    trials: list[Run]
    grouping: Grouping
    summaries: list[Summary]
    comparisons: list[Comparison]
    problems: list[Problem]
    tested: list[Tested]
    classifiers: list[OneClassifier]
    answers: list[Answer]
    generators: list[Run]
    question: tuple[str, tuple[str, ...]]
    manifest: Manifest | None
    whole_seeds: list[int]
    num_left_out: int

    @property
    def groups(self) -> list[Group]:
        return self.grouping.groups

    @property
    def measured_on(self) -> str:
        """The kind of images: ``test``, or ``validation`` where options were tried."""
        is_trial = any(value(group, "tested_on") == "val" for group in self.groups)
        return "validation" if is_trial else "test"


def read_utility(
    store: Path, *, study: str | None = None, runs: Container[str] | None = None
) -> Utility | None:
    """All finished trials of a store, or those of ``study``, or those whose generators are among
    the folders ``runs`` with their controls; None where there are none.

    The manifest of the store's only study is used where none is named.
    """
    trials, problems = read_trials(store)
    manifest = _manifest(store, study, problems)
    if study is not None and manifest is not None:
        trials = [trial for trial in trials if trial.facts["run_id"] in manifest.trials]
    if runs is not None:
        trials = _with_controls(trials, runs)
    return analyze(store, trials, problems, manifest) if trials else None


def read_trials(store: Path) -> tuple[list[Run], list[Problem]]:
    """All trials of a store that have ended, and those that cannot be read."""
    trials: list[Run] = []
    problems: list[Problem] = []
    for path in sorted((store / UTILITY).glob(f"*/{SUMMARY}")):
        with noting(problems, f"{UTILITY}/{path.parent.name}"):
            trial = read_run(path.parent)
            if trial.config.get("arm") not in ARMS:
                raise RunFolderError(f"{SUMMARY} is not a utility trial's, or of an arm of old")
            trials.append(trial)
    return trials, problems


def analyze(
    store: Path, trials: list[Run], problems: list[Problem], manifest: Manifest | None
) -> Utility:
    """Groups of the trials, and every comparison that they allow. ``problems`` grows."""
    from lungan.utility.patients import compare_over_patients  # which needs pandas

    number = len(trials)
    whole_seeds = [] if manifest is None else manifest.whole_seeds(trials)
    if manifest is not None and whole_seeds:
        trials = [
            trial
            for trial in trials
            if trial.config.get("seed") in whole_seeds or not manifest.is_of_plan(trial)
        ]
    grouping = _group(trials, manifest)
    summaries = [_pool(summary) for summary in summarize(grouping.groups)]
    if manifest is None:
        question = usual_question({str(value(group, "arm")) for group in grouping.groups})
    else:
        question = manifest.asked, manifest.controls
    comparisons = _compare(summaries, question)
    primary = [one for one in comparisons if one.first.score == PRIMARY_SCORE]
    pairs = [(one.first.group, one.second.group) for one in primary]
    over_patients, classifiers = compare_over_patients(grouping.groups, pairs, problems)
    tested = list(zip(primary, over_patients, strict=True))
    generators = []
    for name in sorted({name for trial in trials for name in _gan_runs(trial)}):
        try:
            generators.append(read_run(store / name))
        except RunFolderError as error:
            problems.append(Problem(name, f"made synthetic images, and cannot be read: {error}"))
    return Utility(
        store=store,
        trials=trials,
        grouping=grouping,
        summaries=summaries,
        comparisons=comparisons,
        problems=problems,
        tested=tested,
        classifiers=classifiers,
        answers=_answer(tested, question) if manifest is None or whole_seeds else [],
        generators=generators,
        question=question,
        manifest=manifest,
        whole_seeds=whole_seeds,
        num_left_out=number - len(trials),
    )


def planned_only(utility: Utility) -> Utility:
    """The same without the seeds, arms and places that were added after a look at results."""
    manifest = utility.manifest
    if manifest is None:
        return utility
    trials = [trial for trial in utility.trials if manifest.is_planned(trial)]
    if not trials or len(trials) == len(utility.trials):
        return utility
    return analyze(utility.store, trials, [], manifest)


def _manifest(store: Path, study: str | None, problems: list[Problem]) -> Manifest | None:
    paths = list(manifests(store)) if study is None else [manifest_path(store, study)]
    if len(paths) != 1:
        return None
    with noting(problems, f"{UTILITY}/{paths[0].name}"):
        return read_manifest(paths[0])
    return None


def usual_question(arms: Container[str]) -> tuple[str, tuple[str, ...]]:
    """The arm that a study of these arms asks about, and its controls among them; of a study
    without synthetic images, its first arm that is more than another duration."""
    for asked, controls in PRIMARY.items():
        if asked in arms:
            return asked, tuple(control for control in controls if control in arms)
    if not any(ARMS[arm].uses_generator for arm in arms):
        for asked, control in QUESTIONS:
            if asked in arms and control in arms and not ARMS[asked].duration:
                return asked, (control,)
    asked, controls = next(iter(PRIMARY.items()))
    return asked, controls


def value(group: Group, key: str) -> Scalar:
    """A setting that all trials of a group share."""
    return _of_trial(group.runs[0], key)


def setting(group: Group) -> tuple[Scalar, ...]:
    """What two groups must share to stand in one picture: data and classifier, not arm or GAN."""
    return tuple(value(group, key) for key in (*_SETTINGS, *_HIDDEN))


def title(group: Group) -> str:
    """The arm, with its ratio."""
    arm, ratio = ARMS[str(value(group, "arm"))], value(group, "ratio")
    return arm.title if ratio is None else f"{arm.title} (x{numbers.scalar(ratio)})"


def num_real(group: Group) -> Scalar:
    """How many real images its classifiers had, on average over seeds where whole patients are
    drawn and the number differs."""
    number = average(group, NUM_REAL)
    return None if number is None else round(number)


def average(group: Group, key: str) -> float | None:
    """The mean over its trials of a number that may differ between them."""
    found = (one for run in group.runs if isinstance(one := run.config.get(key), int | float))
    return mean_of(found)


def place(group: Group) -> str:
    """``94 real images``, with the rare class's share where there is one."""
    share = value(group, PREVALENCE)
    rare = "" if share is None else f", {float(share):.3g} of them {value(group, RARE)}"
    return f"{num_real(group)} real images{rare}"


def _with_controls(trials: Sequence[Run], runs: Container[str]) -> list[Run]:
    """Trials whose generators are all among ``runs``, and those without any that they need."""
    own = [t for t in trials if GAN in t.config and all(run in runs for run in _gan_runs(t))]
    homes = {_home(trial) for trial in own}
    controls = [t for t in trials if GAN not in t.config and _home(t) in homes]
    return [*controls, *own]


def _gan_runs(trial: Run) -> list[str]:
    listed = json.loads(str(trial.config.get(GAN_RUNS, "[]")))
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _home(trial: Run) -> tuple[Scalar, ...]:
    keys = (*_SETTINGS, *_HIDDEN, FRACTION, PREVALENCE, DRAW, "seed")
    return tuple(_of_trial(trial, key) for key in keys)


def _of_trial(trial: Run, key: str) -> Scalar:
    return trial.config.get(key, trial.facts.get(key))


def _group(trials: Sequence[Run], manifest: Manifest | None) -> Grouping:
    told = (*_SETTINGS, GAN, NETWORK)
    values = {key: {trial.config.get(key) for trial in trials} for key in told}
    shown = [key for key, found in values.items() if len(found - {None}) > 1]
    groups: dict[tuple[Scalar, ...], Group] = {}
    for trial in trials:
        key = tuple(_of_trial(trial, name) for name in (*FACTORS, *told, *_HIDDEN))
        groups.setdefault(key, Group(key[: len(FACTORS)], "")).runs.append(trial)
    order = list(ARMS)

    def rank(group: Group) -> tuple[object, ...]:
        rest = tuple(str(value(group, key)) for key in (GAN, *_SETTINGS, *_HIDDEN, NETWORK))
        where = (_float(value(group, FRACTION)), _float(value(group, PREVALENCE)))
        arm = order.index(str(value(group, "arm")))
        return (*rest[1:], *where, arm, _float(value(group, "ratio")), rest[0])

    ordered = sorted(groups.values(), key=rank)
    for group in ordered:
        more = [_WORDS[key].format(one) for key in shown if (one := value(group, key)) is not None]
        if manifest is not None and not all(map(manifest.is_planned, group.runs)):
            more.append(EXPLORATORY)
        group.label = " / ".join([f"{title(group)}, {place(group)}", *more])
    chosen = [RECIPE] if any(RECIPE in trial.config for trial in trials) else []
    columns = [*FACTORS, NUM_REAL, SHOWN, "seed", *shown, *chosen]
    return Grouping(list(FACTORS), ordered, columns)


def repeat(trial: Run) -> tuple[Scalar, Scalar]:
    """The seed and the draw of real images: trials that have both in common are compared."""
    return trial.config.get("seed"), trial.config.get(DRAW)


def _pool(summary: Summary) -> Summary:
    """With one value for each repeat, the mean over its sets of generators, since further sets are
    no further seeds."""
    found: dict[tuple[Scalar, Scalar], list[tuple[Run, float]]] = {}
    for run, one in zip(summary.runs, summary.values, strict=True):
        found.setdefault(repeat(run), []).append((run, one))
    if len(found) == len(summary.values):
        return summary
    score = catalogue.describe(summary.score)
    values = [sum(one for _, one in of) / len(of) for of in found.values()]
    interval = mean_interval(values, least=score.low, greatest=score.high)
    runs = [members[0][0] for members in found.values()]
    return dataclasses.replace(summary, runs=runs, values=values, interval=interval)


def _float(number: Scalar) -> float:
    return float(number) if isinstance(number, int | float) else -1.0


def _compare(
    summaries: Sequence[Summary], question: tuple[str, tuple[str, ...]]
) -> list[Comparison]:
    """Every question that there are trials for, the study's own first, paired by seed; p is
    corrected after Holm within one arm, control and score, over scenarios, ratios and generators.
    """
    asked, controls = question
    pairs = list(dict.fromkeys([*((asked, control) for control in controls), *QUESTIONS]))
    comparisons = []
    for score in dict.fromkeys(summary.score for summary in summaries):
        of_score = [summary for summary in summaries if summary.score == score]
        for arm, control in pairs:
            found = [
                (first, second)
                for first in of_score
                if value(first.group, "arm") == arm
                for second in of_score
                if value(second.group, "arm") == control and _comparable(first, second)
            ]
            comparisons += correct([(*pair, _paired(*pair)) for pair in found])
    return comparisons


def _answer(tested: Sequence[Tested], question: tuple[str, tuple[str, ...]]) -> list[Answer]:
    """Of each place that has every control: without one, nothing is answered."""
    places: dict[int, list[Tested]] = {}
    for one, over in tested:
        if is_asked(one, question):
            places.setdefault(id(one.first.group), []).append((one, over))
    found = []
    for against in places.values():
        if len(against) == len(question[1]):
            ps = [one.result.p for one, _ in against]
            ps += [over.results[PRIMARY_SCORE].p for _, over in against if over is not None]
            known = [p for p in ps if p is not None]
            found.append(Answer(against, max(known) if len(known) == len(ps) else None))
    adjusted = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else dataclasses.replace(one, p=next(adjusted)) for one in found]


def is_asked(one: Comparison, question: tuple[str, tuple[str, ...]]) -> bool:
    """Whether a comparison is the study's question and not a secondary one."""
    arm, control = arms_of(one)
    return arm == question[0] and control in question[1]


def arms_of(one: Comparison) -> tuple[str, str]:
    return str(value(one.first.group, "arm")), str(value(one.second.group, "arm"))


def _comparable(first: Summary, second: Summary) -> bool:
    sides = (first.group, second.group)
    same = setting(sides[0]) == setting(sides[1]) and first.settings == second.settings
    for key in (FRACTION, PREVALENCE, "ratio", GAN, NETWORK):
        left, right = (value(side, key) for side in sides)
        same &= left == right or (right is None and key in ("ratio", GAN, NETWORK))
    return same


def _paired(first: Summary, second: Summary) -> Difference:
    """Over the repeats that both have: the same images, initial weights and order of batches."""
    of_first, of_second = (
        dict(zip(map(repeat, side.runs), side.values, strict=True)) for side in (first, second)
    )
    common = [one for one in of_first if one in of_second]
    if not common:
        return paired([first.interval.mean], [second.interval.mean])
    return paired([of_first[one] for one in common], [of_second[one] for one in common])
