"""Intervals and tests for small samples, in plain floats.

Student's t throughout: with the five or so seeds that people can pay for, an exact permutation of
signs could not go below p = 2/32, whatever the difference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

_FAR = 100.0
"""Beyond so many standard errors the mean's own scatter is nothing beside that of its standard
error, and the noncentral t is a scaled chi. Its series takes up to 40 ms there and loses digits."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval; std (n - 1), low and high are NaN for a single value.

    center: what the interval is about, the mean or, of positive and skewed values, the geometric
    mean.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    center: float

    @property
    def reach(self) -> tuple[float, float]:
        """How far it goes below and above its center."""
        # No less than nothing, where a plug-in's values are not those that it says are possible.
        return max(self.center - self.low, 0.0), max(self.high - self.center, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """First minus second, or first divided by second where ``is_ratio``.

    difference: of the means. effect: what the interval ``low`` to ``high`` is about, the difference
    or the ratio of the geometric means. test: ``paired t``, ``Welch t``, or empty with ``obstacle``
    saying why there is none; then what could not be computed is None. error: standard error, of the
    logarithm where ``is_ratio``.
    """

    difference: float
    effect: float
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
    def size(self) -> float:
        """How large the effect is in either direction; of a ratio, its logarithm's."""
        return abs(math.log(self.effect) if self.is_ratio else self.effect)

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
    n, mean = len(values), fmean(values)
    if n == 1:
        return Interval(1, mean, math.nan, math.nan, math.nan, mean)
    std = math.sqrt(variance(values))
    center, half = mean, critical(n - 1) * std / math.sqrt(n)
    low, high = center - half, center + half
    if logarithmic:
        logs = [math.log(value) for value in values]
        half = critical(n - 1) * math.sqrt(variance(logs) / n)
        low, center, high = (_exp(fmean(logs) + shift) for shift in (-half, 0.0, half))
    low = low if least is None else max(low, least)
    high = high if greatest is None else min(high, greatest)
    return Interval(n, mean, std, low, high, center)


def compare(
    first: Mapping[Hashable, float], second: Mapping[Hashable, float], *, logarithmic: bool = False
) -> Difference:
    """Test the means of two groups of runs, given as values by seed.

    Where both have the same seeds the test is Student's, paired: runs of one seed share initial
    weights, latents and the order of images, and a run that continues another shares all of that
    one. Otherwise it is Welch's, which asks for no equal variances. What is fixed before any score
    is seen decides which, never the result.

    logarithmic: the test is about ratios of the values, which are positive.
    Source of Welch's degrees of freedom: Welch, Biometrika 34 (1947).
    """
    from scipy.special import stdtr

    difference = fmean(first.values()) - fmean(second.values())
    if min(len(first), len(second)) < 2:
        obstacle = f"needs at least 2 runs in each group, has {len(first)} and {len(second)}"
        return Difference(difference=difference, effect=difference, obstacle=obstacle)
    if logarithmic:
        first, second = (
            {seed: math.log(x) for seed, x in each.items()} for each in (first, second)
        )
    is_paired = first.keys() == second.keys()
    if is_paired:
        samples = [[value - second[seed] for seed, value in first.items()]]
        shift = fmean(samples[0])
    else:
        samples = [list(first.values()), list(second.values())]
        shift = fmean(samples[0]) - fmean(samples[1])
    squares = [variance(sample) / len(sample) for sample in samples]
    error = math.sqrt(sum(squares))
    # A spread at the level of rounding is none: t would be a ratio of rounding errors.
    if error <= 1e-12 * max(map(abs, (*first.values(), *second.values()))):
        obstacle = "the values do not vary between seeds"
        return Difference(difference=difference, effect=difference, obstacle=obstacle)
    dof: float = len(samples[0]) - 1
    if not is_paired:
        # Each part as a share of the sum, so that tiny variances do not underflow when squared.
        shares = [square / sum(squares) for square in squares]
        dof = 1 / sum(share**2 / (len(own) - 1) for share, own in zip(shares, samples, strict=True))
    half = critical(dof) * error
    ends = [shift - half, shift, shift + half]
    low, effect, high = map(_exp, ends) if logarithmic else ends
    return Difference(
        difference=difference,
        effect=effect if logarithmic else difference,
        low=low,
        high=high,
        test="paired t" if is_paired else "Welch t",
        t=shift / error,
        dof=dof,
        p=2 * float(stdtr(dof, -abs(shift / error))),
        error=error,
        is_ratio=logarithmic,
    )


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Student's t-test of the differences, which stand in the same order in both."""
    return compare(dict(enumerate(first)), dict(enumerate(second)))


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
    import numpy as np

    p = np.array(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    rising = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    return [float(each) for each in rising[np.argsort(order, kind="stable")]]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def variance(values: Sequence[float]) -> float:
    """With n - 1 in the denominator. The standard library's is exact, and thirty times as slow."""
    mean = fmean(values)
    return math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1)


@functools.lru_cache(maxsize=1024)
def critical(dof: float) -> float:
    """Student's t that leaves 2.5 % on either side."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, (1 + CONFIDENCE) / 2))
