"""Intervals and tests for small samples, in plain floats.

Student's t throughout: with the five or so seeds that people can pay for, an exact permutation of
signs could not go below p = 2/32, whatever the difference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

_FAR = 100.0
"""Beyond so many standard errors the mean's own scatter is nothing beside that of its standard
error, and the noncentral t is a scaled chi. Its series takes up to 40 ms there and loses digits."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval; variance, low and high are None for a single value.

    variance: with n - 1 in the denominator. center: what the interval is about, the mean or, of
    positive and skewed values, the geometric mean.
    """

    n: int
    mean: float
    variance: float | None
    low: float | None
    high: float | None
    center: float

    @property
    def std(self) -> float | None:
        return None if self.variance is None else math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second, or first divided by second where ``is_ratio``.

    difference: of the means. low, high: 95 % interval of the difference, or of the ratio.
    test: ``paired t``, ``Welch t``, or empty with ``obstacle`` saying why there is none; then what
    could not be computed is None. error: standard error, of the logarithm where ``is_ratio``.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    test: str = ""
    t: float | None = None
    dof: float | None = None
    p: float | None = None
    obstacle: str = ""
    error: float | None = None
    is_ratio: bool = False

    @property
    def effect(self) -> float:
        """The difference, or the ratio of the geometric means: what the interval is about."""
        if not self.is_ratio or self.t is None or self.error is None:
            return self.difference
        return math.exp(self.t * self.error)

    @property
    def ratio(self) -> float | None:
        return self.effect if self.is_ratio else None


def mean_interval(
    values: Sequence[float],
    *,
    logarithmic: bool = False,
    least: float | None = None,
    greatest: float | None = None,
) -> Interval:
    """Mean, standard deviation and two-sided 95 % confidence interval by Student's t.

    logarithmic: the interval is the geometric mean's, of positive values. least, greatest: the
    possible values, which the interval does not leave.

    Raises: ValueError for no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = math.fsum(values) / n
    if logarithmic:
        logs = mean_interval([math.log(value) for value in values])
        center = math.exp(logs.center)
        if logs.low is None or logs.high is None:
            return Interval(1, mean, None, None, None, center)
        low, high = _exp(logs.low), _exp(logs.high)
    elif n == 1:
        return Interval(1, mean, None, None, None, mean)
    else:
        center = mean
        half = _critical(n - 1) * math.sqrt(_variance(values, mean) / n)
        low, high = mean - half, mean + half
    if least is not None:
        low = max(low, least)
    if greatest is not None:
        high = min(high, greatest)
    return Interval(n, mean, _variance(values, mean), low, high, center)


def compare(
    pairs: Iterable[tuple[Mapping[Any, float], Mapping[Any, float]]], *, logarithmic: bool = False
) -> list[Difference]:
    """Test the means of two groups of runs, for each pair of groups: values by seed.

    Where both have the same seeds the test is Student's, paired: runs of one seed share initial
    weights, latents and the order of images, and a run that continues another shares all of that
    one. Otherwise it is Welch's, which asks for no equal variances. What is fixed before any score
    is seen decides which, never the result.

    logarithmic: the values are logarithms of positive scores, so that the test is about ratios.
    """
    import numpy as np
    from scipy.special import stdtr, stdtrit

    # All at once: a call of SciPy costs more than a value.
    found = [_measure(first, second) for first, second in pairs]
    table = [(each.difference, each.error or np.nan, each.dof or np.nan) for each in found]
    difference, error, dof = np.array(table).reshape(-1, 3).T
    t = difference / error
    half = stdtrit(dof, (1 + CONFIDENCE) / 2) * error
    p = 2 * stdtr(dof, -abs(t))
    low, high = difference - half, difference + half
    if logarithmic:
        with np.errstate(over="ignore"):
            low, high = np.exp(low), np.exp(high)
    results = []
    for row, each in enumerate(found):
        if not each.obstacle:
            each = replace(
                each,
                low=float(low[row]),
                high=float(high[row]),
                t=float(t[row]),
                p=float(p[row]),
                is_ratio=logarithmic,
            )
        results.append(each)
    return results


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Student's t-test of the differences, which stand in the same order in both."""
    return compare([(dict(enumerate(first)), dict(enumerate(second)))])[0]


def detectable(difference: Difference, significance: float, power: float = 0.8) -> float | None:
    """The smallest difference, or ratio above 1, that a test with this spread finds.

    significance: of the test, after correction for the others of its family. power: how often it
    finds it. None where there was no test.

    Source: the noncentral t distribution, whose far tail is left out.
    """
    from scipy.special import chdtri, nctdtrinc, stdtrit

    error, dof = difference.error, difference.dof
    if error is None or dof is None:
        return None
    critical = float(stdtrit(dof, 1 - significance / 2))
    if critical > _FAR:
        shift = critical * math.sqrt(float(chdtri(dof, 1 - power)) / dof) * error
    else:
        shift = float(nctdtrinc(dof, 1 - power, critical)) * error
    return _exp(shift) if difference.is_ratio else shift


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for all of them being tested, in the order given.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _measure(first: Mapping[Any, float], second: Mapping[Any, float]) -> Difference:
    """The difference with its standard error and degrees of freedom, or what is in their way.

    Source of Welch's degrees of freedom: Welch, Biometrika 34 (1947).
    """
    is_paired = first.keys() == second.keys()
    if is_paired:
        differences = mean_interval([value - second[seed] for seed, value in first.items()])
        difference, parts = differences.mean, [differences]
    else:
        parts = [mean_interval(list(values.values())) for values in (first, second)]
        difference = parts[0].mean - parts[1].mean
    if min(part.n for part in parts) < 2:
        has = f"{len(first)} and {len(second)}"
        return Difference(difference, obstacle=f"needs at least 2 runs in each group, has {has}")
    squares = [(part.variance or 0.0) / part.n for part in parts]
    error = math.sqrt(sum(squares))
    # A spread at the level of rounding is none: t would be a ratio of rounding errors.
    if error <= 1e-12 * max(map(abs, (*first.values(), *second.values()))):
        return Difference(difference, obstacle="the values do not vary between seeds")
    if is_paired:
        return Difference(difference, test="paired t", error=error, dof=parts[0].n - 1)
    # Each part as a share of the sum, so that tiny variances do not underflow when squared.
    shares = [square / sum(squares) for square in squares]
    inverse = sum(share**2 / (part.n - 1) for share, part in zip(shares, parts, strict=True))
    return Difference(difference, test="Welch t", error=error, dof=1 / inverse)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _variance(values: Sequence[float], mean: float) -> float:
    return math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1)


@functools.lru_cache(maxsize=1024)
def _critical(dof: float) -> float:
    """Student's t that leaves 2.5 % on either side."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, (1 + CONFIDENCE) / 2))
