"""Intervals and tests for small samples, in plain floats.

Student's t throughout: with the five or so seeds that people can pay for, an exact permutation of
signs could not go below p = 2/32, whatever the difference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True, slots=True)
class Sample:
    """One group's side of its comparisons. interval: of the values. largest: of the absolute
    values. by_seed: values by seed, None where a seed is unknown or there twice."""

    interval: Interval
    largest: float
    by_seed: dict[int, float] | None

    @classmethod
    def of(cls, values: Sequence[float], seeds: Sequence[object]) -> Sample:
        """seeds: one for each value."""
        by_seed = {s: v for s, v in zip(seeds, values, strict=True) if isinstance(s, int)}
        complete = by_seed if len(by_seed) == len(values) else None
        return cls(mean_interval(values), max(map(abs, values)), complete)


class _Statistic(NamedTuple):
    """A difference on the way to its test."""

    difference: float
    error: float = 0.0
    dof: float = 0.0
    test: str = ""
    obstacle: str = ""


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
    pairs: Iterable[tuple[Sample, Sample]], *, logarithmic: bool = False
) -> list[Difference]:
    """Test the means of two groups, for each pair of them.

    Where both have the same seeds the test is paired: runs of one seed share initial weights,
    latents and the order of images, and a run that continues another shares all of that one.
    Otherwise Welch's test, which asks for no equal variances. What is fixed before any score is
    seen decides which, never the result.

    logarithmic: the samples hold logarithms of positive scores, so that the test is about ratios.
    """
    return _by_t([_statistic(first, second) for first, second in pairs], logarithmic)


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Student's t-test of the differences, which stand in the same order in both."""
    return _by_t([_paired(first, second)])[0]


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


def _statistic(first: Sample, second: Sample) -> _Statistic:
    one, other = first.by_seed, second.by_seed
    if one is None or other is None or one.keys() != other.keys():
        return _welch(first, second)
    seeds = sorted(one)
    return _paired([one[seed] for seed in seeds], [other[seed] for seed in seeds])


def _paired(first: Sequence[float], second: Sequence[float]) -> _Statistic:
    differences = [a - b for a, b in zip(first, second, strict=True)]
    interval = mean_interval(differences)
    if interval.variance is None:
        return _Statistic(interval.mean, obstacle=_too_few(1, 1))
    squared_error = interval.variance / interval.n
    scale = max(map(abs, (*first, *second)))
    return _scaled(interval.mean, squared_error, interval.n - 1, "paired t", scale)


def _welch(first: Sample, second: Sample) -> _Statistic:
    """Welch's t-test with the degrees of freedom of Satterthwaite.

    Source: Welch, Biometrika 34 (1947).
    """
    one, other = first.interval, second.interval
    difference = one.mean - other.mean
    if one.variance is None or other.variance is None:
        return _Statistic(difference, obstacle=_too_few(one.n, other.n))
    part, rest = one.variance / one.n, other.variance / other.n
    squared_error = part + rest
    # Each part as a share of the sum, so that tiny variances do not underflow when squared.
    share, remainder = (part / squared_error, rest / squared_error) if squared_error else (0.5, 0.5)
    dof = 1 / (share**2 / (one.n - 1) + remainder**2 / (other.n - 1))
    scale = max(first.largest, second.largest)
    return _scaled(difference, squared_error, dof, "Welch t", scale)


def _scaled(
    difference: float, squared_error: float, dof: float, test: str, scale: float
) -> _Statistic:
    error = math.sqrt(squared_error)
    # A spread at the level of rounding is none: t would be a ratio of rounding errors.
    if error <= 1e-12 * scale:
        return _Statistic(difference, obstacle="the values do not vary between seeds")
    return _Statistic(difference, error, dof, test)


def _by_t(statistics: Sequence[_Statistic], logarithmic: bool = False) -> list[Difference]:
    """Intervals and p-values for all at once: a call of SciPy costs more than a value."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    able = np.array([each[:3] for each in statistics if not each.obstacle]).reshape(-1, 3)
    difference, error, dof = able.T
    t = difference / error
    half = stdtrit(dof, (1 + CONFIDENCE) / 2) * error
    p = 2 * stdtr(dof, -abs(t))
    low, high = difference - half, difference + half
    if logarithmic:
        with np.errstate(over="ignore"):
            low, high = np.exp(low), np.exp(high)
    solved = zip(*(column.tolist() for column in (low, high, t, p)), strict=True)
    results = []
    for each in statistics:
        if each.obstacle:
            results.append(Difference(each.difference, obstacle=each.obstacle))
        else:
            low_end, high_end, t_value, p_value = next(solved)
            results.append(
                Difference(
                    each.difference,
                    low_end,
                    high_end,
                    each.test,
                    t_value,
                    each.dof,
                    p_value,
                    error=each.error,
                    is_ratio=logarithmic,
                )
            )
    return results


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _too_few(first: int, second: int) -> str:
    return f"needs at least 2 runs in each group, has {first} and {second}"


def _variance(values: Sequence[float], mean: float) -> float:
    return math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1)


@functools.lru_cache(maxsize=1024)
def _critical(dof: float) -> float:
    """Student's t that leaves 2.5 % on either side."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, (1 + CONFIDENCE) / 2))
