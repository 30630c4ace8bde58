"""Where groups of runs stand to the floor: to what real images score against real images.

Were the generator perfect, its scores would scatter as the floor does. Part of that scatter is
shared: all seeds of a study are compared with one half of the real images, which may itself be an
unusual one, so that more seeds do not average it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from lungan.results.comparisons import Summary, main_settings
from lungan.results.statistics import CONFIDENCE, SIGNIFICANCE, holm, variance
from lungan.scores import catalogue

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


@dataclass(frozen=True, slots=True)
class Standing:
    """distance: from the floor to the center. p_holm: two-sided, corrected for all groups and
    scores of the report. low, high: 95 % interval of the group about its center, with the floor's
    own scatter. side: as the corrected p allows."""

    summary: Summary
    distance: float
    p_holm: float
    low: float
    high: float
    side: Side = "open"


def stand(summaries: Sequence[Summary]) -> list[Standing]:
    """The side of the floor on which every group stands, of scores that have a floor to reach and
    of those of memorization, taken under the settings that most runs have.

    A group of one run, or without a floor's spread, stands nowhere. The p-values of all are one
    family after Holm: with perfect generators a report calls one of them short, past or copying
    in at most 5 % of studies.
    """
    main = main_settings(summaries)
    tested = [
        _test(each) for each in summaries if each.settings == main[each.score] and _has_floor(each)
    ]
    corrected = holm([each.p_holm for each in tested])
    standings = [replace(each, p_holm=p) for each, p in zip(tested, corrected, strict=True)]
    return [replace(each, side=_side(each)) for each in standings]


def _has_floor(summary: Summary) -> bool:
    known = summary.floor is not None and bool(_spread(summary, above=True))
    limit = catalogue.describe(summary.score).limit or _is_of_copying(summary.score)
    return known and summary.interval.n > 1 and limit


def _is_of_copying(score: str) -> bool:
    name = catalogue.name_of(score)
    return name.startswith("memorization") or name in ("authenticity", "near_copies")


def _is_by_ratio(summary: Summary) -> bool:
    return summary.is_logarithmic and min(summary.floor or 0.0, summary.floor_low or 1.0) > 0


def _spread(summary: Summary, above: bool) -> float:
    """The floor's standard deviation above or below its median, on the scale of the comparison; 0
    where the summary has none."""
    forward: Callable[[float], float] = math.log if _is_by_ratio(summary) else float
    floor, low, high = summary.floor or 0.0, summary.floor_low, summary.floor_high
    if low is not None and high is not None:
        ends = (floor, high) if above else (low, floor)
        return (forward(ends[1]) - forward(ends[0])) / _NORMAL_95
    return (summary.floor_std or 0.0) / (floor if _is_by_ratio(summary) else 1.0)


def _test(summary: Summary) -> Standing:
    """Mean against floor by Student's t, on the scale of the comparison; p is not yet corrected.

    Source of the degrees of freedom: Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    from scipy.special import stdtr, stdtrit

    is_by_ratio, n = _is_by_ratio(summary), summary.interval.n
    forward: Callable[[float], float] = math.log if is_by_ratio else float
    values = [forward(value) for value in summary.values]
    mean = fmean(values)
    distance = mean - forward(summary.floor or 0.0)
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
    half = float(stdtrit(dof, (1 + CONFIDENCE) / 2)) * error
    low, high = (math.exp(end) if is_by_ratio else end for end in (mean - half, mean + half))
    return Standing(summary, distance, 2 * float(stdtr(dof, -abs(distance / error))), low, high)


def _side(standing: Standing) -> Side:
    summary, score = standing.summary, catalogue.describe(standing.summary.score)
    is_better = (standing.distance < 0) == (score.direction == "lower")
    is_significant = standing.p_holm < SIGNIFICANCE
    if _is_of_copying(summary.score):
        is_copying = (standing.distance > 0) == (score.direction == "lower")
        return "copies" if is_significant and is_copying else "open"
    if is_significant:
        return "past" if is_better else "short"
    # Whether the worse end of the interval is no farther from the floor than would matter.
    floor = summary.floor or 0.0
    worse = standing.high if score.direction == "lower" else standing.low
    if _is_by_ratio(summary):
        is_near = max(worse / floor, floor / worse) <= RATIO_THAT_MATTERS
    elif score.high == 1.0:
        is_near = abs(worse - floor) <= SHARE_THAT_MATTERS
    else:
        reach = _spread(summary, above=score.direction == "lower")
        is_near = abs(worse - floor) <= 2 * _NORMAL_95 * reach
    return "at" if is_near else "open"
