"""What a utility study allows to be said, in sentences, and what a reader must know beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lungan.results import numbers
from lungan.results.comparisons import Comparison
from lungan.results.groups import Group
from lungan.results.verdicts import render
from lungan.scores import catalogue
from lungan.utility.analysis import (
    GAN,
    GAN_RUNS,
    RECIPE,
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
    from lungan.utility.patients import OverPatients

FEW_SEEDS = 5


def verdicts(utility: Utility) -> list[str]:
    """The answer that the study was made for, its numbers place by place, then the others."""
    planned, images = planned_only(utility), utility.measured_on
    lines = [_in_short(planned), *(_in_full(answer, images) for answer in planned.answers)]
    lines += _cut_short(utility)
    if utility.manifest is not None and utility.manifest.has_more_seeds:
        lines += [
            "Exploratory, with the seeds that were added after a look: " + _in_full(answer, images)
            for answer in utility.answers
        ]
    lines += _others(utility)
    lines += _alone(utility)
    diverged = sum(trial.status == "diverged" for trial in utility.trials)
    if diverged:
        lines.append(f"{diverged} of {len(utility.trials)} classifiers diverged.")
    return lines


def caveats(utility: Utility) -> list[str]:
    """How the numbers came about, in the words of caveats.txt.j2."""
    asked, controls = utility.question
    of_generators = [group.done for group in utility.groups if value(group, GAN)]
    sets = [len({run.config[GAN_RUNS] for run in runs}) for runs in of_generators]
    num_shared = min(sets, default=0)
    seeds = [len(group.done) for group in utility.groups]
    few = min(seeds, default=FEW_SEEDS)
    return render(
        "caveats.txt.j2",
        "lungan.utility",
        manifest=utility.manifest,
        asked=ARMS[asked].title,
        controls=_listed([ARMS[name].title for name in controls]),
        recipes=_recipes(utility),
        is_pooled=any(one.interval.n < len(one.group.done) for one in utility.summaries),
        num_shared_sets=num_shared if num_shared < max(map(len, of_generators), default=0) else 0,
        few_seeds=few if few < FEW_SEEDS else 0,
        measured_on=utility.measured_on,
    )


def _recipes(utility: Utility) -> str:
    """Which recipes were chosen how often, arm by arm; empty where none were."""
    parts = []
    for group in utility.groups:
        chosen = Counter(str(run.config[RECIPE]) for run in group.done if RECIPE in run.config)
        if chosen:
            counts = ", ".join(f"{name} {often}" for name, often in chosen.most_common())
            parts.append(f"{title(group)} ({place(group)}): {counts}")
    return "; ".join(parts)


def _in_short(utility: Utility) -> str:
    """One sentence: with which real images synthetic ones help."""
    asked, controls = (ARMS[utility.question[0]], utility.question[1])
    if not utility.answers:
        needed = _listed([arm.title for arm in (asked, *(ARMS[name] for name in controls))])
        return f"Nothing is answered yet: that takes finished trials of {needed}."
    subject = "Synthetic images"
    said = {1: "help a classifier", -1: "harm a classifier", 0: "are not shown to help"}
    if not asked.has_synthetic:
        subject = _capitalized(asked.title)
        said = {1: "is better than every control", -1: "is worse than every control"}
        said[0] = "is not shown to be better than every control"
    parts = []
    for direction, words in said.items():
        members = [answer for answer in utility.answers if answer.direction == direction]
        if members:
            parts.append(f"{words} with {_places([answer.asked.group for answer in members])}")
    where = ", on validation images" if utility.measured_on == "validation" else ""
    return f"{subject} {_listed(parts)}{where}.{_standing(utility)}"


def _standing(utility: Utility) -> str:
    if utility.manifest is None:
        return " Exploratory: no manifest says what was fixed before the results."
    if utility.manifest.results_before:
        return " Exploratory: the question was written down after results were there."
    if not all(answer.over_patients for answer in utility.answers):
        return " This rests on seeds alone, since predictions were not kept."
    return ""


def _in_full(answer: Answer, measured_on: str) -> str:
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
            f" ({sizes.num_patients} {measured_on} {unit} and {sizes.num_seeds} seeds drawn again "
            "together; the smallest gain that four of five such studies would find is "
            f"{numbers.number(answer.detectable, 2)})"
        )
    return f"{line}."


def _cut_short(utility: Utility) -> list[str]:
    """Of a study without all its planned seeds, which there are and what that means."""
    manifest, seeds = utility.manifest, utility.whole_seeds
    if manifest is None or len(seeds) == manifest.planned.seeds:
        return []
    number = manifest.planned.seeds
    if not seeds:
        each = len(manifest.planned.places)
        return [f"None of the {number} planned seeds is whole: each takes {each} trials."]
    are = "is" if len(seeds) == 1 else "are"
    line = f"{len(seeds)} of the {number} planned seeds {are} whole ({_ranges(seeds)}). The answer "
    line += "has the power of so many seeds, likely less than that of all that were planned."
    if utility.num_left_out:
        line += f" Trials of seeds that are not whole are left out: {utility.num_left_out}."
    return [line]


def _ranges(seeds: Sequence[int]) -> str:
    """``20 to 43, 45``."""
    ends = [seed for seed in seeds if seed + 1 not in seeds]
    starts = [seed for seed in seeds if seed - 1 not in seeds]
    return ", ".join(
        f"{first}" if first == last else f"{first} to {last}"
        for first, last in zip(starts, ends, strict=True)
    )


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
