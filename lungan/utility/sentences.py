"""What a utility study allows to be said, in sentences, and what a reader must know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lungan.results import numbers
from lungan.results.comparisons import Comparison
from lungan.results.groups import Group
from lungan.scores import catalogue
from lungan.utility.analysis import (
    GAN,
    GAN_RUNS,
    Answer,
    Utility,
    arms_of,
    is_asked,
    place,
    planned_only,
    title,
    value,
)
from lungan.utility.arms import ARMS, PRIMARY_SCORE

if TYPE_CHECKING:
    from lungan.utility.manifest import Design
    from lungan.utility.patients import OverPatients

FEW_SEEDS = 5


def verdicts(utility: Utility) -> list[str]:
    """The answer that the study was made for, its numbers place by place, then the others."""
    planned = planned_only(utility)
    lines = [_in_short(planned), *(_in_full(answer) for answer in planned.answers)]
    if utility.manifest is not None and utility.manifest.has_more_seeds:
        lines += [
            f"Exploratory, with the seeds that were added after a look: {_in_full(answer)}"
            for answer in utility.answers
        ]
    lines += _others(utility)
    lines += _alone(utility)
    diverged = sum(trial.status == "diverged" for trial in utility.trials)
    if diverged:
        lines.append(f"{diverged} of {len(utility.trials)} classifiers diverged.")
    return lines


def caveats(utility: Utility) -> list[str]:
    """How the numbers came about."""
    asked, controls = utility.question
    named = _listed([ARMS[name].title for name in controls])
    lines = [_of_manifest(utility)]
    lines += [
        f"The question is whether {ARMS[asked].title} is better than each of: {named}. Its p is "
        "the largest over these controls and over two tests of each: Student's t paired by seed, "
        "and test patients and seeds drawn again together, corrected after Holm over fractions, "
        "shares and ratios.",
        "The other sentences say better or worse where both tests show it, each corrected within "
        "its own pair of arms; what the t-test alone shows holds for other seeds on these test "
        "images, and is said so. None of them was the study's question.",
        "Intervals of the tables and the figure are over seeds: initial weights, order of images, "
        "real and synthetic images and, where several were given, generators. They say nothing "
        "about other patients, which utility_patients.csv does.",
        "Weights are averaged over the last quarter of the updates and chosen by no image. "
        "Thresholds for accuracy and sensitivity come from validation images, of which there are "
        "as few as the fraction gives: with fewer than 20 negatives, the highest of them is the "
        "threshold, and the specificity reached on the test images stands beside it.",
        "How often each real image was shown stands in the table: arms of equal updates show it "
        "less often where synthetic images take part.",
    ]
    if any(summary.interval.n < len(summary.group.done) for summary in utility.summaries):
        lines.append(
            "Several sets of generators of one name, seed and draw of real images count once, by "
            "their mean; trials are compared with controls of the same seed and draw."
        )
    of_generators = [group.done for group in utility.groups if value(group, GAN)]
    num_sets = min(
        (len({run.config[GAN_RUNS] for run in runs}) for runs in of_generators), default=0
    )
    if num_sets < max(map(len, of_generators), default=0):
        lines.append(
            f"Seeds share {num_sets} sets of generators and, where a fraction is drawn, their real "
            "images: intervals and tests over seeds know too little of how these vary."
        )
    seeds = sorted({len(group.done) for group in utility.groups})
    if seeds and seeds[0] < FEW_SEEDS:
        lines.append(f"Some groups have {seeds[0]} seeds only, too few to see a small difference.")
    if any(value(group, "tested_on") == "val" for group in utility.groups):
        lines.append("Measured on validation images: for trying options, not for an answer.")
    return lines


def _in_short(utility: Utility) -> str:
    """One sentence: with which real images synthetic ones help."""
    asked, controls = (ARMS[utility.question[0]], utility.question[1])
    if not utility.answers:
        needed = _listed([arm.title for arm in (asked, *(ARMS[name] for name in controls))])
        return f"Nothing is answered yet: that takes finished trials of {needed}."
    subject = "Synthetic images"
    said = {1: "help a classifier", -1: "harm a classifier", 0: "are not shown to help"}
    if not asked.uses_generator:
        subject = _capitalized(asked.title)
        said = {1: "is better than every control", -1: "is worse than every control"}
        said[0] = "is not shown to be better than every control"
    parts = []
    for direction, words in said.items():
        members = [answer for answer in utility.answers if answer.direction == direction]
        if members:
            parts.append(f"{words} with {_places([answer.asked.group for answer in members])}")
    return f"{subject} {_listed(parts)}.{_standing(utility)}"


def _standing(utility: Utility) -> str:
    if utility.manifest is None:
        return " Exploratory: no manifest says what was fixed before the results."
    if utility.manifest.results_before:
        return " Exploratory: the question was written down after results were there."
    if not all(answer.over_patients for answer in utility.answers):
        return " This rests on seeds alone, since predictions were not kept."
    return ""


def _in_full(answer: Answer) -> str:
    asked = answer.asked
    line = f"With {place(asked.group)}, {title(asked.group)} has "
    line += f"{catalogue.title(asked.score)} {asked.interval.mean:.3f}"
    for one, over in answer.against:
        line += f"; {title(one.second.group)} has {one.second.interval.mean:.3f}, "
        line += f"a difference of {numbers.number(one.result.difference, 3)}"
        result = one.result if over is None else over.results[PRIMARY_SCORE]
        if result.low is not None and result.high is not None:
            line += f" (95 % CI {numbers.span(result.low, result.high)})"
    if answer.p is None:
        return f"{line}. This cannot be tested."
    line += f"; corrected p {numbers.p_relation(answer.p)}"
    if answer.detectable is not None:
        sizes = answer.over_patients[0]
        unit = "images" if sizes.num_patients == sizes.num_images else "patients"
        line += (
            f" ({sizes.num_patients} test {unit} and {sizes.num_seeds} seeds drawn again together;"
            " the smallest gain that four of five such studies would find is "
            f"{numbers.number(answer.detectable, 2)})"
        )
    return f"{line}."


def _others(utility: Utility) -> list[str]:
    """Each arm against each control that is not the question, in the study's score."""
    by_arms: dict[tuple[str, str], dict[str, list[Group]]] = {}
    for one, over in utility.tested:
        if not is_asked(one, utility.question):
            parts = by_arms.setdefault(arms_of(one), {})
            parts.setdefault(_judged(one, over), []).append(one.first.group)
    lines = []
    for (arm, control), parts in by_arms.items():
        said = [f"{words} with {_places(parts[words])}" for words in sorted(parts)]
        first, second = ARMS[arm].title, ARMS[control].title
        score = catalogue.title(PRIMARY_SCORE)
        lines.append(f"{_capitalized(first)} against {second}, in {score}: {'; '.join(said)}.")
    return lines


def _judged(one: Comparison, found: OverPatients | None) -> str:
    """What both tests allow to be said."""
    if not one.significant:
        return "no difference shown"
    word = "better" if one.result.difference > 0 else "worse"
    if found is None:
        return f"{word} over seeds alone (no predictions were kept)"
    return word if found.significant else f"{word} over seeds alone, not shown for other patients"


def _places(groups: Sequence[Group]) -> str:
    """``94 real images (x0.5, x1) and 235 real images``: generators and classifiers, of which there
    may be several at a place, stand in the table."""
    ratios: dict[str, dict[str, None]] = {}
    for group in groups:
        ratio = value(group, "ratio")
        listed = ratios.setdefault(place(group), {})
        listed |= {} if ratio is None else {f"x{numbers.scalar(ratio)}": None}
    several = any(len(own) > 1 for own in ratios.values())
    return _listed(
        [
            f"{where} ({', '.join(own)})" if several and own else where
            for where, own in ratios.items()
        ]
    )


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _capitalized(words: str) -> str:
    return words[0].upper() + words[1:]


def _alone(utility: Utility) -> list[str]:
    """What synthetic images are worth without any real one beside them."""
    of_score = [one for one in utility.summaries if one.score == PRIMARY_SCORE]
    found = [one for one in of_score if value(one.group, "arm") == "synthetic"]
    if not found:
        return []
    best = max(found, key=lambda summary: summary.interval.mean)
    real = [
        one
        for one in of_score
        if value(one.group, "arm") == "real" and place(one.group) == place(best.group)
    ]
    beside = f", where the real ones reach {real[0].interval.mean:.3f}" if real else ""
    return [
        f"Trained on synthetic images alone, a classifier reaches {catalogue.title(PRIMARY_SCORE)} "
        f"{best.interval.mean:.3f} at most (generators of {place(best.group)}, "
        f"{title(best.group)}){beside}."
    ]


def _of_manifest(utility: Utility) -> str:
    """What was fixed when."""
    manifest = utility.manifest
    if manifest is None:
        return (
            "No manifest of one study belongs to these trials, so nothing says what was fixed "
            "before the results: the whole study is exploratory."
        )
    before = manifest.results_before
    when = "before the first result" if before == 0 else f"when {before} results were there"
    line = (
        f"Study {manifest.name}, written down on {manifest.created} {when}: "
        f"{_design(manifest.planned)}."
    )
    for one in manifest.added:
        line += f" Added on {one.time}, after {one.results_before} results, and exploratory: "
        line += f"{_design(one.design)}."
    if manifest.has_more_seeds:
        line += (
            " Adding seeds after a look finds differences that are not there more often than "
            "tests say; the answer is therefore of the planned seeds."
        )
    return line


def _design(design: Design) -> str:
    shares, fractions, ratios = (
        ", ".join(map(numbers.scalar, each))
        for each in (design.prevalences, design.fractions, design.ratios)
    )
    rare = f", {design.rare} at shares {shares}" if shares else ""
    return (
        f"{design.seeds} seeds from {design.first_seed} on, fractions {fractions}{rare}, "
        f"ratios {ratios}, arms {', '.join(design.arms)}"
    )
