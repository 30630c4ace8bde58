"""Where groups of runs stand to the floor: to what real images score against real images.

Were the generator perfect, its scores would scatter as the floor does. Part of that scatter is
shared: all seeds of a study are compared with one half of the real images, which may itself be an
unusual one, so that more seeds do not average it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lungan.results.comparisons import Summary, main_settings
from lungan.results.statistics import CONFIDENCE, SIGNIFICANCE, holm
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
    """p_holm: two-sided, corrected for all groups and scores of the report. low, high: 95 %
    interval of the group about its center, with the floor's own scatter."""

    summary: Summary
    side: Side
    p_holm: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Test:
    distance: float
    p: float
    low: float
    high: float


def stand(summaries: Sequence[Summary]) -> list[Standing]:
    """The side of the floor on which every group stands, of scores that have a floor to reach and
    of those of memorization, taken under the settings that most runs have.

    A group of one run, or without a floor's spread, stands nowhere. The p-values of all are one
    family after Holm: with perfect generators a report calls one of them short, past or copying
    in at most 5 % of studies.
    """
    from scipy.special import stdtr, stdtrit

    main = main_settings(summaries)
    tested: list[tuple[Summary, _Test]] = []
    for summary in summaries:
        if summary.settings != main[summary.score] or not _has_floor(summary):
            continue
        distance, error, dof, back = _distance(summary)
        half = float(stdtrit(dof, (1 + CONFIDENCE) / 2)) * error
        middle = distance + _forward(summary)(summary.floor or 0.0)
        p = 2 * float(stdtr(dof, -abs(distance / error)))
        tested.append((summary, _Test(distance, p, back(middle - half), back(middle + half))))
    adjusted = holm([test.p for _, test in tested])
    return [
        Standing(summary, _side(summary, test, p), p, test.low, test.high)
        for (summary, test), p in zip(tested, adjusted, strict=True)
    ]


def _has_floor(summary: Summary) -> bool:
    described = catalogue.describe(summary.score)
    known = summary.floor is not None and bool(_spread(summary, above=True))
    return known and summary.interval.n > 1 and (described.limit or _is_of_copying(summary.score))


def _is_of_copying(score: str) -> bool:
    name = catalogue.split_key(score)[1]
    return name.startswith("memorization") or name in ("authenticity", "near_copies")


def _forward(summary: Summary) -> Callable[[float], float]:
    return math.log if _is_by_ratio(summary) else float


def _is_by_ratio(summary: Summary) -> bool:
    return summary.is_logarithmic and min(summary.floor or 0.0, summary.floor_low or 1.0) > 0


def _spread(summary: Summary, above: bool) -> float | None:
    """Standard deviation of the floor on one side of it, on the scale of the comparison."""
    forward = _forward(summary)
    floor, low, high = summary.floor or 0.0, summary.floor_low, summary.floor_high
    if low is not None and high is not None:
        return (forward(high) - forward(floor) if above else forward(floor) - forward(low)) / (
            _NORMAL_95
        )
    if summary.floor_std is None:
        return None
    return summary.floor_std / floor if _is_by_ratio(summary) else summary.floor_std


def _distance(summary: Summary) -> tuple[float, float, float, Callable[[float], float]]:
    """Mean less floor, its standard error and degrees of freedom, and the way back to the scale of
    the score. Source of the degrees of freedom: Satterthwaite, Biometrics Bulletin 2 (1946)."""
    forward, n = _forward(summary), summary.interval.n
    values = [forward(value) for value in summary.values]
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    distance = mean - forward(summary.floor or 0.0)
    spread = _spread(summary, above=distance > 0) or _spread(summary, above=distance <= 0) or 0.0
    is_old = summary.floor_low is None
    shared = 1.0 if summary.floor_shared is None else summary.floor_shared
    common = spread**2 * shared * (1 + 1 / _OLD_SPLITS if is_old else 1.0)
    # Seeds that vary less than real halves do are luck, as long as there are few of them.
    own = max(variance, spread**2 * (1 - shared)) / n
    squared = common + own
    parts = own**2 / (n - 1) + (common**2 / (_OLD_SPLITS - 1) if is_old else 0.0)
    dof = squared**2 / parts if parts > 0 else math.inf
    return distance, math.sqrt(squared), min(dof, 1e6), math.exp if forward is math.log else float


def _side(summary: Summary, test: _Test, p_holm: float) -> Side:
    described = catalogue.describe(summary.score)
    is_better = (test.distance < 0) == (described.direction == "lower")
    if _is_of_copying(summary.score):
        is_copying = (test.distance > 0) == (described.direction == "lower")
        return "copies" if p_holm < SIGNIFICANCE and is_copying else "open"
    if p_holm < SIGNIFICANCE:
        return "past" if is_better else "short"
    return "at" if _is_near(summary, test, described.direction == "lower") else "open"


def _is_near(summary: Summary, test: _Test, low_is_good: bool) -> bool:
    """Whether the worse end of the interval is no farther from the floor than would matter."""
    floor = summary.floor or 0.0
    worse = test.high if low_is_good else test.low
    if _is_by_ratio(summary):
        return max(worse / floor, floor / worse) <= RATIO_THAT_MATTERS
    described = catalogue.describe(summary.score)
    if described.high == 1.0:
        return abs(worse - floor) <= SHARE_THAT_MATTERS
    reach = _spread(summary, above=low_is_good) or 0.0
    return abs(worse - floor) <= 2 * _NORMAL_95 * reach
