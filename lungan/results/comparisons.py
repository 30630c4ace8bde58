"""Scores of groups: summarized over seeds, compared in pairs, and what may be said of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

from lungan.results.groups import Group
from lungan.results.read import Run, Scalar
from lungan.results.statistics import (
    SIGNIFICANCE,
    Difference,
    Interval,
    compare,
    detectable,
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

    settings: what scores must share to be compared. floor: of the score between real sets of the
    same N, and floor_low, floor_high, floor_std, floor_shared as the catalogue has them, which
    runs of lungan 0.1 lack but for the std; real: of the real set's own. All are means over runs.
    """

    group: Group
    score: str
    settings: tuple[Scalar, ...]
    runs: list[Run]
    values: list[float]
    interval: Interval
    floor: float | None
    floor_std: float | None
    floor_low: float | None
    floor_high: float | None
    floor_shared: float | None
    real: float | None

    @property
    def is_logarithmic(self) -> bool:
        """Whether the score is compared by ratios: positive and skewed, as distances are."""
        return catalogue.describe(self.score).scale == "log" and min(self.values) > 0

    @property
    def num_images(self) -> Scalar:
        return self.settings[0] if self.settings else None

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def greatest(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """p_holm: corrected for all tests of its family. detectable: the smallest difference, or ratio
    above 1, that so many seeds find in four of five studies, at the family's corrected level."""

    first: Summary
    second: Summary
    result: Difference
    p_holm: float | None
    detectable: float | None = None

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


def leading_score(summaries: Sequence[Summary]) -> str | None:
    """The one score of the answer, by which figures choose groups too: the Fréchet distance of the
    first encoder, else the first score that is no Inception Score. None without one."""
    scores = [s for s in main_settings(summaries) if not catalogue.is_inception_score(s)]
    first = scores[0] if scores else None
    return next((s for s in scores if catalogue.split_key(s)[1] == "frechet_distance"), first)


def rank_groups(summaries: Sequence[Summary]) -> dict[int, float]:
    """By the id of each group its mean in the leading score, with the sign that puts the best
    first."""
    leading = leading_score(summaries)
    if leading is None:
        return {}
    settings = main_settings(summaries)[leading]
    sign = -1 if catalogue.describe(leading).direction == "higher" else 1
    members = [s for s in summaries if s.score == leading and s.settings == settings]
    return {id(each.group): sign * each.interval.center for each in members}


def compare_groups(summaries: Sequence[Summary]) -> list[Comparison]:
    """Pairs of groups, score by score, corrected after Holm over all pairs and scores together.

    Only scores taken under the same settings are compared. A pair without a test has no part in
    the correction. With equal groups, a report names a difference in at most 5 % of studies.
    """
    families: dict[str, dict[tuple[Scalar, ...], list[Summary]]] = {}
    for summary in summaries:
        by_settings = families.setdefault(summary.score, {})
        by_settings.setdefault(summary.settings, []).append(summary)
    tested = [
        result
        for by_settings in families.values()
        for result in _test([pair for members in by_settings.values() for pair in _pairs(members)])
    ]
    return correct(tested)


def correct(tested: Sequence[tuple[Summary, Summary, Difference]]) -> list[Comparison]:
    """The comparisons of one family, with p-values after Holm and what they could have found."""
    adjusted = iter(holm([result.p for *_, result in tested if result.p is not None]))
    level = SIGNIFICANCE / max(1, sum(result.p is not None for *_, result in tested))
    return [
        Comparison(
            first,
            second,
            result,
            None if result.p is None else next(adjusted),
            detectable(result, level),
        )
        for first, second, result in tested
    ]


def _test(pairs: Sequence[tuple[Summary, Summary]]) -> list[tuple[Summary, Summary, Difference]]:
    """Tests of one score; by ratios where it is of that kind in every group that takes part."""
    logarithmic = all(summary.is_logarithmic for pair in pairs for summary in pair)
    results = compare(
        [(_by_seed(first, logarithmic), _by_seed(second, logarithmic)) for first, second in pairs],
        logarithmic=logarithmic,
    )
    return [
        (first, second, replace(result, difference=first.interval.mean - second.interval.mean))
        for (first, second), result in zip(pairs, results, strict=True)
    ]


def _by_seed(summary: Summary, logarithmic: bool) -> dict[Any, float]:
    """Values by seed; where a seed is unknown or there twice, by run, so that none is paired."""
    values = [math.log(value) for value in summary.values] if logarithmic else summary.values
    seeds: list[Any] = [run.config.get("seed") for run in summary.runs]
    if not all(isinstance(seed, int) for seed in seeds) or len(set(seeds)) < len(seeds):
        seeds = [(id(summary), index) for index in range(len(seeds))]
    return dict(zip(seeds, values, strict=True))


def better(comparison: Comparison) -> tuple[Summary, Summary, str]:
    """The two sides, the better or else the higher first, and which of these it is.

    Only for significant comparisons: nothing else has an order.
    """
    first, second = comparison.first, comparison.second
    direction = catalogue.describe(first.score).direction
    result = comparison.result
    is_above = result.effect > (1 if result.is_ratio else 0)
    if is_above == (direction == "lower"):
        first, second = second, first
    word = "better" if direction in ("higher", "lower") else "higher"
    return first, second, word


def _pairs(members: Sequence[Summary]) -> list[tuple[Summary, Summary]]:
    if len(members) <= MAX_PAIRED_GROUPS:
        return list(combinations(members, 2))
    return [(members[0], other) for other in members[1:]]


@lru_cache(maxsize=256)
def _own_keys(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """The scores among a run's flat keys with their encoders; most runs have the same keys."""
    return [(key, catalogue.split_key(key)[0]) for key in keys if catalogue.is_score(key)]


def _summary(group: Group, key: str, settings: tuple[Scalar, ...], runs: list[Run]) -> Summary:
    values = [value for run in runs if (value := run.scores[key]) is not None]
    described = catalogue.describe(key)
    interval = mean_interval(
        values,
        logarithmic=described.scale == "log" and min(values) > 0,
        least=described.low,
        greatest=described.high,
    )
    return Summary(
        group=group,
        score=key,
        settings=settings,
        runs=runs,
        values=values,
        interval=interval,
        floor=_mean(runs, f"{key}.floor"),
        floor_std=_mean(runs, f"{key}.floor_std"),
        floor_low=_mean(runs, f"{key}.floor_low"),
        floor_high=_mean(runs, f"{key}.floor_high"),
        floor_shared=_mean(runs, f"{key}.floor_shared"),
        real=_mean(runs, f"{key}.real"),
    )


def _mean(runs: Sequence[Run], key: str) -> float | None:
    values = [value for run in runs if (value := run.scores.get(key)) is not None]
    return sum(values) / len(values) if values else None
