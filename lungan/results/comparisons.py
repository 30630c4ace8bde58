"""Scores of groups: summarized over seeds, compared in pairs, and what may be said of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

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

BESIDE = ("floor", "floor_std", "floor_low", "floor_high", "floor_shared", "real")
"""What may stand beside a score, with a point between them in a run's keys."""


@dataclass(frozen=True, slots=True, eq=False)
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
    def least(self) -> float:
        return min(self.values)

    @property
    def greatest(self) -> float:
        return max(self.values)

    @property
    def num_images(self) -> Scalar:
        return self.settings[0] if self.settings else None

    @property
    def by_seed(self) -> dict[Hashable, float]:
        """Where a seed is unknown or there twice, by run, so that none is paired."""
        seeds: list[Hashable] = [run.config.get("seed") for run in self.runs]
        if not all(isinstance(seed, int) for seed in seeds) or len(set(seeds)) < len(seeds):
            seeds = [(self, index) for index in range(len(seeds))]
        return dict(zip(seeds, self.values, strict=True))


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
    import pandas as pd

    rows = []
    for number, group in enumerate(groups):
        for run in group.done:
            for key, value in run.scores.items():
                if value is not None and catalogue.is_score(key):
                    encoder = catalogue.encoder_of(key)
                    settings = run.settings.get(encoder) or run.settings.get("", ())
                    beside = (run.scores.get(f"{key}.{name}") for name in BESIDE)
                    rows.append((number, key, settings, run, value, *beside))
    columns = ["group", "score", "settings", "runs", "values", *BESIDE]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(BESIDE, float))
    cells = table.groupby(["group", "score", "settings"], sort=False)
    found = cells[["runs", "values"]].agg(list).join(cells[list(BESIDE)].mean()).reset_index()
    summaries = []
    for number, key, settings, runs, values, *means in found.itertuples(index=False):
        score = catalogue.describe(key)
        interval = mean_interval(
            values,
            logarithmic=score.scale == "log" and min(values) > 0,
            least=score.low,
            greatest=score.high,
        )
        floors = (None if math.isnan(mean) else mean for mean in means)
        cell = (groups[number], key, settings, runs, values, interval, *floors)
        summaries.append(Summary(*cell))
    return sorted(summaries, key=lambda summary: catalogue.order(summary.score))


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


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
    return next((s for s in scores if catalogue.name_of(s) == catalogue.LEADING), first)


def leaders(summaries: Sequence[Summary]) -> list[Summary]:
    """Those of the leading score under its main settings, the best first."""
    leading = leading_score(summaries)
    if leading is None:
        return []
    settings = main_settings(summaries)[leading]
    members = [each for each in summaries if (each.score, each.settings) == (leading, settings)]
    highest_first = catalogue.describe(leading).direction == "higher"
    return sorted(members, key=lambda each: each.interval.center, reverse=highest_first)


def ranks(best: Sequence[Summary]) -> defaultdict[Group, float]:
    """The place of each group among ``leaders``; groups without the leading score come after."""
    return defaultdict(lambda: math.inf, {each.group: place for place, each in enumerate(best)})


def compare_groups(summaries: Sequence[Summary]) -> list[Comparison]:
    """Pairs of groups, score by score, corrected after Holm over all pairs and scores together.

    Only scores taken under the same settings are compared, by ratios where they are of that kind in
    every group. A pair without a test has no part in the correction. With equal groups, a report
    names a difference in at most 5 % of studies.
    """
    families: defaultdict[Hashable, list[Summary]] = defaultdict(list)
    for summary in summaries:
        families[summary.score, summary.settings].append(summary)
    tested = []
    for members in families.values():
        logarithmic = all(member.is_logarithmic for member in members)
        # Those of the first with each other come first.
        num_pairs = len(members) - 1 if len(members) > MAX_PAIRED_GROUPS else None
        for first, second in islice(combinations(members, 2), num_pairs):
            result = compare(first.by_seed, second.by_seed, logarithmic=logarithmic)
            tested.append((first, second, result))
    return correct(tested)


def correct(tested: Sequence[tuple[Summary, Summary, Difference]]) -> list[Comparison]:
    """The comparisons of one family, with p-values after Holm and what they could have found."""
    p_values = [result.p for *_, result in tested if result.p is not None]
    adjusted = iter(holm(p_values))
    level = SIGNIFICANCE / max(1, len(p_values))
    return [
        Comparison(*each, None if each[2].p is None else next(adjusted), detectable(each[2], level))
        for each in tested
    ]


def better(comparison: Comparison) -> tuple[Summary, Summary, str]:
    """The two sides, the better or else the higher first, and which of these it is.

    Only for significant comparisons: nothing else has an order.
    """
    first, second, result = comparison.first, comparison.second, comparison.result
    direction = catalogue.describe(first.score).direction
    if (result.effect > (1 if result.is_ratio else 0)) == (direction == "lower"):
        first, second = second, first
    return first, second, "better" if direction in ("higher", "lower") else "higher"
