"""Scores of groups: summarized over seeds, compared in pairs, and what may be said of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from lungan.results.groups import Group
from lungan.results.records import Run, Scalar
from lungan.results.statistics import (
    SIGNIFICANCE,
    Difference,
    Interval,
    Sample,
    compare,
    holm,
    mean_interval,
)
from lungan.scores import catalogue

MAX_PAIRED_GROUPS = 20
"""With more groups than this, pairs grow past what anyone reads: all are compared to the first."""

NO_DIFFERENCE = "no significant difference"


@dataclass(frozen=True, slots=True)
class Summary:
    """One score of one group over its finished runs.

    settings: what scores must share to be compared. floor, real: means over the runs of the
    score between real sets of the same N, and of the real set's own.
    """

    group: Group
    score: str
    settings: tuple[Scalar, ...]
    runs: list[Run]
    values: list[float]
    interval: Interval
    floor: float | None
    floor_std: float | None
    real: float | None

    @property
    def num_images(self) -> Scalar:
        return self.settings[0] if self.settings else None


@dataclass(frozen=True, slots=True)
class Comparison:
    first: Summary
    second: Summary
    result: Difference
    p_holm: float | None

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE

    @property
    def verdict(self) -> str:
        """What may be said: which is better, that no difference is, or why nothing can be."""
        if self.result.obstacle:
            return f"cannot be tested: {self.result.obstacle}"
        if not self.significant:
            return NO_DIFFERENCE
        first, second, word = better(self)
        return f"{first.group.label} is {word} than {second.group.label}"


def summarize(groups: Sequence[Group]) -> list[Summary]:
    """All scores of all groups, score by score; runs scored otherwise stand apart."""
    summaries = []
    for group in groups:
        cells: dict[str, dict[tuple[Scalar, ...], list[Run]]] = {}
        for run in group.done:
            for key, encoder in _own_keys(tuple(run.scores)):
                if run.scores[key] is not None:
                    settings = run.settings.get(encoder) or run.settings.get("", ())
                    cells.setdefault(key, {}).setdefault(settings, []).append(run)
        for key, by_settings in cells.items():
            summaries += [_summary(group, key, *cell) for cell in by_settings.items()]
    return sorted(summaries, key=lambda summary: catalogue.order(summary.score))


def main_settings(summaries: Sequence[Summary]) -> dict[str, tuple[Scalar, ...]]:
    """For each score the settings that most runs were scored under, which tables show."""
    runs: defaultdict[str, Counter[tuple[Scalar, ...]]] = defaultdict(Counter)
    for summary in summaries:
        runs[summary.score][summary.settings] += summary.interval.n
    return {score: counter.most_common(1)[0][0] for score, counter in runs.items()}


def compare_groups(summaries: Sequence[Summary]) -> list[Comparison]:
    """Pairs of groups, score by score, corrected after Holm within each score.

    Only scores taken under the same settings are compared. A pair without a test has no part in
    the correction.
    """
    families: dict[str, dict[tuple[Scalar, ...], list[Summary]]] = {}
    for summary in summaries:
        by_settings = families.setdefault(summary.score, {})
        by_settings.setdefault(summary.settings, []).append(summary)
    comparisons = []
    for by_settings in families.values():
        pairs = [pair for members in by_settings.values() for pair in _pairs(members)]
        samples = {id(each): _sample(each) for members in by_settings.values() for each in members}
        results = compare((samples[id(first)], samples[id(second)]) for first, second in pairs)
        p_values = [result.p for result in results if result.p is not None]
        adjusted = iter(holm(p_values))
        for (first, second), result in zip(pairs, results, strict=True):
            p_holm = None if result.p is None else next(adjusted)
            comparisons.append(Comparison(first, second, result, p_holm))
    return comparisons


def better(comparison: Comparison) -> tuple[Summary, Summary, str]:
    """The two sides, the better or else the higher first, and which of these it is.

    Only for significant comparisons: nothing else has an order.
    """
    first, second = comparison.first, comparison.second
    direction = catalogue.describe(first.score).direction
    if (comparison.result.difference > 0) == (direction == "lower"):
        first, second = second, first
    word = "better" if direction in ("higher", "lower") else "higher"
    return first, second, word


def _pairs(members: Sequence[Summary]) -> list[tuple[Summary, Summary]]:
    if len(members) <= MAX_PAIRED_GROUPS:
        return list(combinations(members, 2))
    return [(members[0], other) for other in members[1:]]


def _sample(summary: Summary) -> Sample:
    seeds = [run.config.get("seed") for run in summary.runs]
    return Sample.of(summary.values, seeds, summary.interval)


@lru_cache(maxsize=256)
def _own_keys(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """The scores among a run's flat keys with their encoders; most runs have the same keys."""
    return [(key, catalogue.split_key(key)[0]) for key in keys if catalogue.is_score(key)]


def _summary(group: Group, key: str, settings: tuple[Scalar, ...], runs: list[Run]) -> Summary:
    values = [value for run in runs if (value := run.scores[key]) is not None]
    return Summary(
        group=group,
        score=key,
        settings=settings,
        runs=runs,
        values=values,
        interval=mean_interval(values),
        floor=_mean(runs, f"{key}.floor"),
        floor_std=_mean(runs, f"{key}.floor_std"),
        real=_mean(runs, f"{key}.real"),
    )


def _mean(runs: Sequence[Run], key: str) -> float | None:
    values = [value for run in runs if (value := run.scores.get(key)) is not None]
    return sum(values) / len(values) if values else None
