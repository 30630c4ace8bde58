"""What the numbers allow to be said, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from lungan.results import catalogue, numbers
from lungan.results.comparisons import Comparison, Summary, better, main_settings
from lungan.results.groups import Group, status_counts
from lungan.results.records import Run

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
    by_score: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_score.setdefault(comparison.first.score, []).append(comparison)
    equal, untested = [], []
    for score, family in by_score.items():
        supported = [comparison for comparison in family if comparison.significant]
        if supported:
            lines.append(_supported(score, supported, len(family)))
        elif all(comparison.p_holm is None for comparison in family):
            untested.append(score)
        else:
            equal.append(score)
    if equal:
        lines.append(f"No significant difference between any two groups in {_titles(equal)}.")
    if untested:
        lines.append(
            f"Cannot be tested, for want of runs or of any variation: {_titles(untested)}."
        )
    return lines + _floors(summaries)


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


def _supported(score: str, supported: Sequence[Comparison], num_pairs: int) -> str:
    sentences = []
    for comparison in supported[:_MAX_NAMED]:
        first, second, word = better(comparison)
        result = comparison.result
        bounds = sorted(abs(bound) for bound in (result.low, result.high) if bound is not None)
        p_holm = comparison.p_holm
        assert p_holm is not None
        p = numbers.p_value(p_holm)
        sentences.append(
            f"{first.group.label} is {word} than {second.group.label} by "
            f"{numbers.number(abs(result.difference), 3)} "
            f"(95 % CI {numbers.span(bounds[0], bounds[1])}, p {p if p[0] == '<' else '= ' + p})"
        )
    if len(supported) > _MAX_NAMED:
        sentences.append(f"{len(supported) - _MAX_NAMED} more are in comparisons.csv")
    others = num_pairs - len(supported)
    if others:
        pairs = "the other pair" if others == 1 else f"the other {others} pairs"
        sentences.append(f"no difference is supported in {pairs}")
    hint = catalogue.describe(score).hint
    return f"{catalogue.title(score)}, {hint}: {'; '.join(sentences)}."


def _floors(summaries: Sequence[Summary]) -> list[str]:
    """Which groups do as well as real images against real images."""
    main = main_settings(summaries)
    reached: dict[str, list[str]] = {}
    for summary in summaries:
        reaches = _reaches_floor(summary)
        if summary.settings != main[summary.score] or reaches is None:
            continue
        labels = reached.setdefault(summary.score, [])
        if reaches:
            labels.append(summary.group.label)
    lines = []
    none = [score for score, labels in reached.items() if not labels]
    if none:
        lines.append(f"No group comes up to the floor of real images in {_titles(none)}.")
    for score, labels in reached.items():
        if labels:
            named = "; ".join(labels) if len(labels) <= _MAX_NAMED else f"{len(labels)} groups"
            lines.append(f"{catalogue.title(score)}: the interval reaches the floor for {named}.")
    return lines


def _reaches_floor(summary: Summary) -> bool | None:
    direction = catalogue.describe(summary.score).direction
    low, high, floor = summary.interval.low, summary.interval.high, summary.floor
    if low is None or high is None or floor is None or catalogue.is_inception_score(summary.score):
        return None
    if direction == "lower":
        return low <= floor
    return high >= floor if direction == "higher" else None


def _titles(scores: Sequence[str]) -> str:
    """Scores by encoder: ``Precision, Recall (domain)``."""
    by_encoder: dict[str, list[str]] = {}
    for score in scores:
        encoder = catalogue.split_key(score)[0]
        by_encoder.setdefault(encoder, []).append(catalogue.describe(score).title)
    return "; ".join(
        f"{', '.join(titles)} ({encoder})" if encoder else ", ".join(titles)
        for encoder, titles in by_encoder.items()
    )
