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
    Utility,
    arms_of,
    is_asked,
    place,
    planned_only,
    title,
    value,
)
from lungan.utility.arms import ARMS, PRIMARY_SCORE, Arm

if TYPE_CHECKING:
    from lungan.utility.patients import OverPatients

FEW_SEEDS = 5


def verdicts(utility: Utility) -> list[str]:
    """The answer that the study was made for, its numbers place by place, then the others, in the
    words of verdicts.txt.j2."""
    planned, (asked, controls) = planned_only(utility), utility.question
    of_score = [one for one in utility.summaries if one.score == PRIMARY_SCORE]
    # What synthetic images are worth without any real one beside them.
    found = [one for one in of_score if value(one.group, "arm") == "synthetic"]
    alone = max(found, key=lambda summary: summary.interval.mean, default=None)
    reals = [one for one in of_score if value(one.group, "arm") == "real"]
    real = [one for one in reals if alone and place(one.group) == place(alone.group)]
    return render(
        "verdicts.txt.j2",
        "lungan.utility",
        utility=utility,
        planned=planned,
        needed=_listed([ARMS[name].title for name in (asked, *controls)]),
        in_short=_in_short(planned),
        others=_others(utility),
        alone=alone,
        real=real[0] if real else None,
        num_diverged=sum(trial.status == "diverged" for trial in utility.trials),
        primary=PRIMARY_SCORE,
        score=catalogue.title(PRIMARY_SCORE),
        called=title,
        place=place,
        ranges=_ranges,
        capitalized=_capitalized,
        span=numbers.span,
        p_relation=numbers.p_relation,
    )


def caveats(utility: Utility) -> list[str]:
    """How the numbers came about, in the words of caveats.txt.j2."""
    asked, controls = utility.question
    of_generators = [group.done for group in utility.groups if value(group, GAN)]
    num_shared = min((len({run.config[GAN_RUNS] for run in of}) for of in of_generators), default=0)
    few = min((len(group.done) for group in utility.groups), default=FEW_SEEDS)
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
    """With which real images synthetic ones help."""
    asked, subject = ARMS[utility.question[0]], "Synthetic images"
    said = {1: "help a classifier", -1: "harm a classifier", 0: "are not shown to help"}
    if not asked.has_synthetic:
        subject = _capitalized(asked.title)
        said = {1: "is better than every control", -1: "is worse than every control"}
        said[0] = "is not shown to be better than every control"
    parts = []
    for direction, words in said.items():
        groups = [one.asked.group for one in utility.answers if one.direction == direction]
        parts += [f"{words} with {_places(groups)}"] if groups else []
    return f"{subject} {_listed(parts)}"


def _ranges(seeds: Sequence[int]) -> str:
    """``20 to 43, 45``."""
    ends = [seed for seed in seeds if seed + 1 not in seeds]
    starts = [seed for seed in seeds if seed - 1 not in seeds]
    return ", ".join(
        f"{first}" if first == last else f"{first} to {last}"
        for first, last in zip(starts, ends, strict=True)
    )


def _others(utility: Utility) -> list[tuple[Arm, Arm, str]]:
    """Each arm and control that is not the question, with what is said of them in the study's
    score."""
    by_arms: dict[tuple[str, str], dict[str, list[Group]]] = {}
    for one, over in utility.tested:
        if not is_asked(one, utility.question):
            parts = by_arms.setdefault(arms_of(one), {})
            parts.setdefault(_judged(one, over), []).append(one.first.group)
    return [
        (
            ARMS[arm],
            ARMS[control],
            "; ".join(f"{words} with {_places(parts[words])}" for words in sorted(parts)),
        )
        for (arm, control), parts in by_arms.items()
    ]


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
