"""What a utility study allows to be said, in sentences, and what a reader must know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lungan.results import numbers
from lungan.results.arms import ARMS, PRIMARY_SCORE, QUESTIONS
from lungan.results.comparisons import Comparison, Summary, better
from lungan.results.groups import text
from lungan.results.utility import FRACTION, NUM_REAL, Utility, is_primary, title, value
from lungan.scores import catalogue

if TYPE_CHECKING:
    from lungan.results.utility_patients import OverPatients

_MAX_IN_FULL = 4


def verdicts(utility: Utility) -> list[str]:
    """The answer that the study was made for, at every fraction and ratio; then the others."""
    diverged = sum(trial.status == "diverged" for trial in utility.trials)
    lines = [f"{diverged} of {len(utility.trials)} classifiers diverged."] if diverged else []
    primary = [answer for answer in utility.answers if is_primary(answer)]
    lines += _primary(primary, utility.over_patients)
    if not primary:
        asked, control = (ARMS[name].title for name in QUESTIONS[0])
        lines.append(f"There are no trials of both {asked} and {control}, so nothing is answered.")
    for question in QUESTIONS[1:]:
        of_question = [
            answer
            for answer in utility.answers
            if _asked(answer) == question and answer.first.score == PRIMARY_SCORE
        ]
        if of_question:
            lines.append(_in_short(question, of_question))
    return [*lines, *_alone(utility)]


def caveats(utility: Utility) -> list[str]:
    """How the numbers came about."""
    selected = "selected on the validation images and tested once on the test images"
    lines = [
        "Every classifier had the same number of updates, whatever its arm, and was "
        f"{selected}. Duplicates repeat real images as often as synthetic ones are added, class by "
        "class: what they gain is owed to the count, not to the images.",
        "Intervals and tests are over seeds: initial weights, order of images, synthetic images "
        "and, where several were given, generators. All use the same test images, so they say "
        "nothing about other patients."
        + (
            " Intervals in utility_patients.csv draw patients and seeds again together, with the "
            "threshold for sensitivity from validation. The first question is answered by a gain "
            "or harm only where both tests show it; the other sentences are about seeds alone."
            if utility.over_patients
            else ""
        ),
        "Differences are tested with Student's t, paired by seed. p is corrected after Holm within "
        "one question and score, over fractions and ratios; intervals are for one pair, "
        "uncorrected, and the verdict follows p. The first question is the one that was asked "
        "before any result; the others explain it.",
    ]
    seeds = sorted({len(group.done) for group in utility.groups})
    if seeds and seeds[0] < 5:
        lines.append(f"Some groups have {seeds[0]} seeds only, too few to see a small difference.")
    return lines


def _in_full(answer: Comparison, over_patients: OverPatients | None) -> str:
    first, second, result = answer.first, answer.second, answer.result
    where = f"With {value(first.group, NUM_REAL)} real images"
    what = (
        f"{where}, {title(first.group)} has {catalogue.title(first.score)} "
        f"{_mean(first)} and {title(second.group)} {_mean(second)}"
    )
    if result.obstacle:
        return f"{what}; this cannot be tested: {result.obstacle}."
    assert result.low is not None and result.high is not None
    more = _over_patients(over_patients)
    size = (
        f"a difference of {numbers.number(result.difference, 3)} (95 % CI "
        f"{numbers.span(result.low, result.high)}, corrected p {numbers.p_relation(answer.p_holm)})"
    )
    if not answer.significant:
        return (
            f"{what}, {size}: no significant difference, so nothing shows that synthetic images do "
            f"more than the real ones shown more often.{more}"
        )
    if over_patients is not None and over_patients.results[PRIMARY_SCORE].includes_zero:
        return f"{what}, {size}: beyond chance over seeds, but not shown for other patients.{more}"
    word = "help" if better(answer)[0] is first else "harm"
    return f"{what}, {size}: these synthetic images {word}.{more}"


def _over_patients(one: OverPatients | None) -> str:
    if one is None:
        return ""
    found = one.results[PRIMARY_SCORE]
    unit = "images" if one.num_patients == one.num_images else "patients"
    return (
        f" With {one.num_patients} {unit} and {one.num_seeds} seeds drawn again together, its "
        f"interval is {numbers.span(found.low, found.high)}; the smallest gain that four of five "
        f"such studies would find is {numbers.number(found.detectable(one.num_tests), 2)}."
    )


def _primary(answers: Sequence[Comparison], found: Sequence[OverPatients]) -> list[str]:
    """In full where something was found or there is little to say, the others together."""
    of = {(id(one.first), id(one.second)): one for one in found}
    if len(answers) <= _MAX_IN_FULL:
        return [_in_full(answer, of.get(_sides(answer))) for answer in answers]
    lines = [_in_full(one, of.get(_sides(one))) for one in answers if one.significant]
    others = [answer for answer in answers if not answer.significant]
    if others:
        asked, control = (ARMS[name].title for name in QUESTIONS[0])
        line = (
            f"No significant difference in {catalogue.title(PRIMARY_SCORE)} between {asked} and "
            f"{control} with {_places(others)}: nothing shows that synthetic images do more there "
            "than the real ones shown more often"
        )
        above = [one for one in others if one.result.low is not None and one.result.low > 0]
        if above:
            line += (
                f". Uncorrected, the interval lies above 0 with {_places(above)}: worth a study of "
                "its own, with more seeds"
            )
        lines.append(f"{line}.")
    return lines


def _in_short(question: tuple[str, str], answers: Sequence[Comparison]) -> str:
    """Of the primary score: where the arm is better, where worse, and where neither."""
    asked, control = (ARMS[name].title for name in question)
    parts: dict[str, list[Comparison]] = {"better": [], "worse": [], "open": []}
    for answer in answers:
        if not answer.significant:
            parts["open"].append(answer)
        else:
            parts["better" if better(answer)[0] is answer.first else "worse"].append(answer)
    said = [f"{word} with {_places(parts[word])}" for word in ("better", "worse") if parts[word]]
    if parts["open"]:
        said.append(f"no significant difference with {_places(parts['open'])}")
    score = catalogue.title(PRIMARY_SCORE)
    return f"{asked[0].upper()}{asked[1:]} against {control}, in {score}: {'; '.join(said)}."


def _places(answers: Sequence[Comparison]) -> str:
    """``235 (x0.5, x1) and 471 real images``."""
    ratios: dict[str, list[str]] = {}
    for answer in answers:
        ratio = value(answer.first.group, "ratio")
        listed = ratios.setdefault(str(value(answer.first.group, NUM_REAL)), [])
        words = "" if ratio is None else f"x{text(ratio)}"
        if words not in listed:  # other generators and classifiers stand in the table
            listed.append(words)
    places = [f"{number} ({', '.join(filter(None, own))})" for number, own in ratios.items()]
    listed = [place.removesuffix(" ()") for place in places]
    together = ", ".join(listed[:-1]) + (" and " if len(listed) > 1 else "") + listed[-1]
    return f"{together} real images"


def _alone(utility: Utility) -> list[str]:
    """What synthetic images are worth without any real one beside them."""
    found = [
        summary
        for summary in utility.summaries
        if summary.score == PRIMARY_SCORE and value(summary.group, "arm") == "synthetic"
    ]
    if not found:
        return []
    best = max(found, key=lambda summary: summary.interval.mean)
    real = [
        summary
        for summary in utility.summaries
        if summary.score == PRIMARY_SCORE
        and value(summary.group, "arm") == "real"
        and value(summary.group, FRACTION) == value(best.group, FRACTION)
    ]
    beside = f", where the real ones reach {_mean(real[0])}" if real else ""
    return [
        f"Trained on synthetic images alone, a classifier reaches {catalogue.title(PRIMARY_SCORE)} "
        f"{_mean(best)} at most (generators of {value(best.group, NUM_REAL)} real images, "
        f"{title(best.group)}){beside}."
    ]


def _sides(answer: Comparison) -> tuple[int, int]:
    return id(answer.first.group), id(answer.second.group)


def _mean(summary: Summary) -> str:
    return f"{summary.interval.mean:.3f}"


def _asked(answer: Comparison) -> tuple[str, str]:
    first, second = (str(value(s.group, "arm")) for s in (answer.first, answer.second))
    return first, second
