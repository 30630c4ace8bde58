"""Scores of groups: summarized over seeds, compared in pairs, and what may be said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from lungan.results import catalogue
from lungan.results.groups import Group
from lungan.results.records import Run, Scalar
from lungan.results.statistics import (
    SIGNIFICANCE,
    Difference,
    Interval,
    compare,
    holm,
    mean_interval,
    welch,
)

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
        cells: dict[tuple[str, tuple[Scalar, ...]], list[Run]] = {}
        for run in group.done:
            for key, value in run.scores.items():
                if value is not None and catalogue.is_score(key):
                    cells.setdefault((key, _settings(run, key)), []).append(run)
        for (key, settings), runs in cells.items():
            values = [value for run in runs if (value := run.scores[key]) is not None]
            summaries.append(
                Summary(
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
            )
    return sorted(summaries, key=lambda summary: catalogue.order(summary.score))


def main_settings(summaries: Sequence[Summary]) -> dict[str, tuple[Scalar, ...]]:
    """For each score the settings that most runs were scored under, which tables show."""
    runs: dict[str, Counter[tuple[Scalar, ...]]] = {}
    for summary in summaries:
        counter = runs.setdefault(summary.score, Counter())
        counter[summary.settings] += summary.interval.n
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
        results = [_compare(first, second) for first, second in pairs]
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


def _compare(first: Summary, second: Summary) -> Difference:
    by_seed = [_by_seed(summary) for summary in (first, second)]
    if by_seed[0] is None or by_seed[1] is None:
        return welch(first.values, second.values)
    return compare(by_seed[0], by_seed[1])


def _by_seed(summary: Summary) -> dict[int, float] | None:
    """Values by seed, or None where a seed is unknown or there twice."""
    seeds = [run.config.get("seed") for run in summary.runs]
    by_seed = {
        seed: value
        for seed, value in zip(seeds, summary.values, strict=True)
        if isinstance(seed, int)
    }
    return by_seed if len(by_seed) == len(seeds) else None


def _settings(run: Run, key: str) -> tuple[Scalar, ...]:
    encoder = catalogue.split_key(key)[0]
    return run.settings.get(encoder) or run.settings.get("", ())


def _mean(runs: Sequence[Run], key: str) -> float | None:
    values = [value for run in runs if (value := run.scores.get(key)) is not None]
    return sum(values) / len(values) if values else None
