"""What the numbers allow to be said, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from lungan.results import numbers
from lungan.results.comparisons import Comparison, Summary, better, main_settings
from lungan.results.groups import Group, status_counts
from lungan.results.records import Run
from lungan.scores import catalogue

_MAX_NAMED = 6


def headlines(
    runs: Sequence[Run],
    groups: Sequence[Group],
    summaries: Sequence[Summary],
    comparisons: Sequence[Comparison],
) -> list[str]:
    """The findings, those that a test supports first; nothing is ranked that is not."""
    lines = [_completeness(runs, groups)]
    if not summaries:
        return [*lines, "No finished run has a score, so there is nothing to compare."]
    if all(catalogue.is_inception_score(summary.score) for summary in summaries):
        return [
            *lines,
            "Inception Scores are the only ones here. They say nothing alone: score the runs "
            "again with python -m lungan.score.",
        ]
    if len({id(summary.group) for summary in summaries}) < 2:
        return [
            *lines,
            "Only one group has scores, so there is nothing to compare.",
            *_floors(summaries),
        ]
    return [*lines, *_differences(comparisons), *_floors(summaries)]


def _differences(comparisons: Sequence[Comparison]) -> list[str]:
    """The first score of each encoder pair by pair with its sizes, the others by name."""
    by_score: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_score.setdefault(comparison.first.score, []).append(comparison)
    place = {_labels(comparison): index for index, comparison in enumerate(comparisons)}
    lines, others, equal, untested = [], [], [], []
    encoders = set()
    for score, family in by_score.items():
        encoder = catalogue.split_key(score)[0]
        supported = [comparison for comparison in family if comparison.significant]
        if all(comparison.p_holm is None for comparison in family):
            untested.append(score)
        elif not supported:
            equal.append(score)
        elif encoder in encoders:
            others += supported
        else:
            lines.append(_in_full(score, supported, len(family)))
        encoders.add(encoder)
    others.sort(key=lambda comparison: place[_labels(comparison)])
    lines += _by_pair(others)
    if equal:
        lines.append(f"No significant difference between any two groups in {_titles(equal)}.")
    if untested:
        lines.append(
            f"Cannot be tested, for want of runs or of any variation: {_titles(untested)}."
        )
    return lines


def _completeness(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    counts = status_counts(runs)
    line = f"{counts.pop('done', 0)} of {len(runs)} runs finished"
    parts = []
    for status, count in counts.items():
        where = [
            f"{group.label}: {group.count(status)} of {len(group.runs)}"
            for group in groups
            if group.count(status)
        ]
        named = f" ({'; '.join(where)})" if len(where) <= _MAX_NAMED and len(groups) > 1 else ""
        parts.append(f"{count} {status}{named}")
    return "; ".join([line, *parts]) + "."


def _in_full(score: str, supported: Sequence[Comparison], num_pairs: int) -> str:
    sentences = []
    for comparison in supported:
        first, second, word = better(comparison)
        result, p = comparison.result, comparison.p_holm
        low, high = sorted(abs(bound or 0.0) for bound in (result.low, result.high))
        sentences.append(
            f"{first.group.label} is {word} than {second.group.label} by "
            f"{numbers.number(abs(result.difference), 3)} (95 % CI {numbers.span(low, high)}, "
            f"corrected p {numbers.p_relation(p)})"
        )
    others = num_pairs - len(supported)
    pairs = "the other pair" if others == 1 else f"the other {others} pairs"
    rest = f"; no difference is supported in {pairs}" if others else ""
    hint = catalogue.describe(score).hint
    return f"{catalogue.title(score)}, {hint}: {_listed(sentences)}{rest}."


def _by_pair(supported: Sequence[Comparison]) -> list[str]:
    """What is known of each pair of groups: the scores in which one is better, or higher."""
    pairs: dict[tuple[str, str], dict[str, list[str]]] = {}
    for comparison in supported:
        first, _, word = better(comparison)
        opposite = {"better": "worse", "higher": "lower"}
        said = word if first is comparison.first else opposite[word]
        pairs.setdefault(_labels(comparison), {}).setdefault(said, []).append(first.score)
    lines = [
        f"{first} against {second}: "
        + "; ".join(
            f"{word} in {_titles(words[word])}"
            for word in ("better", "worse", "higher", "lower")
            if word in words
        )
        + "."
        for (first, second), words in list(pairs.items())[:_MAX_NAMED]
    ]
    if len(pairs) > _MAX_NAMED:
        more = len(pairs) - _MAX_NAMED
        lines.append(f"Pairs of groups with more differences, in comparisons.csv: {more}.")
    return lines


def _labels(comparison: Comparison) -> tuple[str, str]:
    return comparison.first.group.label, comparison.second.group.label


def _floors(summaries: Sequence[Summary]) -> list[str]:
    """Where groups stand to what real images score against real images."""
    main = main_settings(summaries)
    sides: dict[str, dict[str, list[str]]] = {"short": {}, "open": {}, "past": {}}
    for summary in summaries:
        side = _side_of_floor(summary)
        if side and summary.settings == main[summary.score]:
            by_label = sides[side].setdefault(_with_n(summary), [])
            by_label.append(summary.score)
    far = [score for scores in sides["short"].values() for score in scores]
    near = {
        score for side in ("open", "past") for scores in sides[side].values() for score in scores
    }
    none = [score for score in dict.fromkeys(far) if score not in near]
    lines = []
    if none:
        lines.append(f"No group comes up to the floor of real images in {_titles(none)}.")
    for side, words in (
        ("open", "The floor of real images lies within the interval of"),
        ("past", "Nearer to real images than real ones are, so look for memorization:"),
    ):
        named = [f"{label} in {_titles(scores)}" for label, scores in sides[side].items()]
        if named:
            lines.append(f"{words} {_listed(named)}.")
    return lines


def _side_of_floor(summary: Summary) -> str:
    """``short`` of what real images reach, ``past`` it, ``open`` where the interval holds both;
    empty where there is no interval or no floor to arrive at."""
    described = catalogue.describe(summary.score)
    low, high, floor = summary.interval.low, summary.interval.high, summary.floor
    if low is None or high is None or floor is None or not described.limit:
        return ""
    if low <= floor <= high:
        return "open"
    return "short" if (low > floor) == (described.direction == "lower") else "past"


def _with_n(summary: Summary) -> str:
    return f"{summary.group.label} (n = {summary.interval.n})"


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _MAX_NAMED
    return "; ".join(items[:_MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _titles(scores: Sequence[str]) -> str:
    """Scores by encoder: ``Precision, Recall (domain) and Coverage (inception)``."""
    by_encoder: dict[str, list[str]] = {}
    for score in scores:
        encoder = catalogue.split_key(score)[0]
        by_encoder.setdefault(encoder, []).append(catalogue.describe(score).title)
    return " and ".join(
        f"{', '.join(titles)} ({encoder})" if encoder else ", ".join(titles)
        for encoder, titles in by_encoder.items()
    )
