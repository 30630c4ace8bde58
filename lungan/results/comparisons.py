"""Scores of groups: summarized over seeds, held against real images, and compared in pairs.

Were a generator perfect, its scores would scatter as the floor does, which is what real images
score against real images. Part of that scatter is shared: all seeds of a study are compared with
one half of the real images, which may itself be an unusual one, so that more seeds do not average
it away.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from statistics import fmean
from typing import Literal

from lungan.results.groups import Group
from lungan.results.read import Run
from lungan.results.statistics import (
    SIGNIFICANCE,
    Difference,
    Interval,
    compare,
    critical,
    detectable,
    holm,
    mean_interval,
    variance,
)
from lungan.runs.folder import Scalar
from lungan.scores import catalogue

MAX_PAIRED_GROUPS = 20
"""With more groups than this, pairs grow past what anyone reads: all are compared to the first."""

NO_DIFFERENCE = "no significant difference"

BESIDE = ("floor", "floor_std", "floor_low", "floor_high", "floor_shared", "real")
"""What may stand beside a score, with a point between them in a run's keys."""

Side = Literal["short", "at", "past", "copies", "open"]
"""``short``: worse than real images. ``at``: not told from them, and near. ``past``: nearer to them
than they are to each other. ``copies``: nearer to training images than unseen real images are.
``open``: cannot tell."""

RATIO_THAT_MATTERS = 2.0
SHARE_THAT_MATTERS = 0.1
"""A group is said to be at the floor where its interval ends within twice the floor's distance, or
within a tenth of a share such as precision; of other scores, within twice the floor's range."""

_NORMAL_95 = 1.959964
_OLD_SPLITS = 5
"""lungan 0.1 took floors from 5 random splits (10 where more were asked for), and kept mean and std
alone: a mean and a spread from so few are uncertain themselves."""


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """One score of one group over its finished runs.

    settings: what scores must share to be compared; is_main: they are those of most runs scored so,
    which tables and figures show. floor: of the score between real sets of the same N, and
    floor_low, floor_high, floor_std, floor_shared as the catalogue has them, which runs of lungan
    0.1 lack but for the std; real: of the real set's own. All are means over runs. side: of the
    floor, None where that cannot be tested; p_floor: of a difference from it, two-sided, corrected
    for all groups and scores of the report.
    """

    group: Group
    score: str
    settings: tuple[Scalar, ...]
    runs: list[Run]
    values: list[float]
    interval: Interval
    is_main: bool
    floor: float | None
    floor_std: float | None
    floor_low: float | None
    floor_high: float | None
    floor_shared: float | None
    real: float | None
    side: Side | None = None
    p_floor: float | None = None

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
        first, second, word = self.order
        return f"{first.group.label} is {word} than {second.group.label}"

    @property
    def order(self) -> tuple[Summary, Summary, str]:
        """The two sides, the better or else the higher first, and which of these it is.

        Only of significant comparisons: nothing else has an order.
        """
        first, second = self.first, self.second
        direction = catalogue.describe(first.score).direction
        if (self.result.effect > (1 if self.result.is_ratio else 0)) == (direction == "lower"):
            first, second = second, first
        return first, second, "better" if direction in ("higher", "lower") else "higher"


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
    # Of settings that equally many runs have, the first.
    ordered = Counter(zip(table["score"], table["settings"], strict=True)).most_common()
    main = {score: settings for (score, settings), _ in reversed(ordered)}
    summaries = []
    for number, key, settings, runs, values, *means in found.itertuples(index=False):
        score = catalogue.describe(key)
        interval = mean_interval(
            values,
            logarithmic=score.scale == "log" and min(values) > 0,
            least=score.low,
            greatest=score.high,
        )
        cell = (groups[number], key, settings, runs, values, interval, settings == main[key])
        floors = (None if math.isnan(mean) else mean for mean in means)
        summaries.append(Summary(*cell, *floors))
    return _stand(sorted(summaries, key=lambda each: catalogue.order(each.score)))


def _stand(summaries: Sequence[Summary]) -> list[Summary]:
    """With the side of the floor, of scores that have a floor to reach and of those of
    memorization, taken under the settings that most runs have.

    A group of one run, or without a floor's spread, stands nowhere. The p-values of all are one
    family after Holm: with perfect generators a report calls one of them short, past or copying
    in at most 5 % of studies.
    """
    tests = {each: _test(each) for each in summaries if each.is_main and _has_floor(each)}
    corrected = dict(zip(tests, holm([p for p, *_ in tests.values()]), strict=True))
    return [
        replace(each, p_floor=corrected[each], side=_side(each, corrected[each], *tests[each][1:]))
        if each in tests
        else each
        for each in summaries
    ]


def _has_floor(summary: Summary) -> bool:
    known = summary.floor is not None and bool(_spread(summary, above=True))
    limit = catalogue.describe(summary.score).limit or _is_of_copying(summary.score)
    return known and summary.interval.n > 1 and limit


def _is_of_copying(score: str) -> bool:
    name = catalogue.name_of(score)
    return name.startswith("memorization") or name in ("authenticity", "near_copies")


def _scale(summary: Summary) -> Callable[[float], float]:
    """What a score is compared with its floor by: logarithms where that is by ratios."""
    by_ratio = summary.is_logarithmic and min(summary.floor or 0.0, summary.floor_low or 1.0) > 0
    return math.log if by_ratio else float


def _spread(summary: Summary, above: bool) -> float:
    """The floor's standard deviation above or below its median, on the scale of the comparison; 0
    where the summary has none."""
    scale, floor = _scale(summary), summary.floor or 0.0
    if summary.floor_low is not None and summary.floor_high is not None:
        low, high = (floor, summary.floor_high) if above else (summary.floor_low, floor)
        return (scale(high) - scale(low)) / _NORMAL_95
    return (summary.floor_std or 0.0) / (floor if scale is math.log else 1.0)


def _test(summary: Summary) -> tuple[float, float, float]:
    """Mean against floor by Student's t, on the scale of the comparison: p, not yet corrected, the
    distance from the floor to the mean, and half of its 95 % interval, with the floor's own
    scatter.

    Source of the degrees of freedom: Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    from scipy.special import stdtr

    scale, n = _scale(summary), summary.interval.n
    values = [scale(value) for value in summary.values]
    distance = fmean(values) - scale(summary.floor or 0.0)
    spread = _spread(summary, above=distance > 0) or _spread(summary, above=distance <= 0)
    is_old = summary.floor_low is None
    shared = 1.0 if summary.floor_shared is None else summary.floor_shared
    common = spread**2 * shared * (1 + 1 / _OLD_SPLITS if is_old else 1.0)
    # Seeds that vary less than real halves do are luck, as long as there are few of them.
    own = max(variance(values), spread**2 * (1 - shared)) / n
    squared = common + own
    error = math.sqrt(squared)
    parts = own**2 / (n - 1) + (common**2 / (_OLD_SPLITS - 1) if is_old else 0.0)
    dof = min(squared**2 / parts, 1e6) if parts > 0 else 1e6
    return 2 * float(stdtr(dof, -abs(distance / error))), distance, critical(dof) * error


def _side(summary: Summary, p: float, distance: float, half: float) -> Side:
    """As the corrected p allows; the rest is as ``_test`` gives it."""
    score = catalogue.describe(summary.score)
    lower_is_better = score.direction == "lower"
    is_better = (distance < 0) == lower_is_better
    if _is_of_copying(summary.score):
        return "copies" if p < SIGNIFICANCE and not is_better else "open"
    if p < SIGNIFICANCE:
        return "past" if is_better else "short"
    if _scale(summary) is math.log:
        reach = math.log(RATIO_THAT_MATTERS)
    elif score.high == 1.0:
        reach = SHARE_THAT_MATTERS
    else:
        reach = 2 * _NORMAL_95 * _spread(summary, above=lower_is_better)
    # Whether the worse end of the interval is no farther from the floor than would matter.
    worst = distance + half if lower_is_better else distance - half
    return "at" if abs(worst) <= reach else "open"


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def leaders(summaries: Sequence[Summary]) -> list[Summary]:
    """Those of the one score of the answer, by which figures choose groups too, the best first: of
    the Fréchet distance of the first encoder, else of the first score that is no Inception Score.
    """
    shown = [s for s in summaries if s.is_main and not catalogue.is_inception_score(s.score)]
    distances = [each for each in shown if catalogue.name_of(each.score) == catalogue.LEADING]
    members = [each for each in shown if each.score == (distances or shown)[0].score]
    highest_first = bool(members) and catalogue.describe(members[0].score).direction == "higher"
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
