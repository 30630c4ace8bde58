"""Intervals and tests for small samples, in plain floats.

Student's t throughout: with the five or so seeds that people can pay for, an exact permutation of
signs could not go below p = 2/32, whatever the difference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval; std, low and high are None for a single value.

    std: with n - 1 in the denominator.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        return None if self.low is None else self.mean - self.low


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second. test: ``paired t``, ``Welch t``, or empty with ``obstacle`` saying why
    there is none; then what could not be computed is None."""

    difference: float
    low: float | None = None
    high: float | None = None
    test: str = ""
    t: float | None = None
    dof: float | None = None
    p: float | None = None
    obstacle: str = ""


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean, standard deviation and two-sided 95 % confidence interval by Student's t.

    Raises: ValueError for no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(1, mean, None, None, None)
    variance = _variance(values, mean)
    half = _critical(n - 1) * math.sqrt(variance / n)
    return Interval(n, mean, math.sqrt(variance), mean - half, mean + half)


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Test the means of two groups, each given as values by seed.

    Where both have the same seeds the test is paired: runs of one seed share initial weights,
    latents and the order of images, and a run that continues another shares all of that one.
    Otherwise Welch's test, which asks for no equal variances. What is fixed before any score is
    seen decides which, never the result.
    """
    if first.keys() == second.keys():
        seeds = sorted(first)
        return paired([first[seed] for seed in seeds], [second[seed] for seed in seeds])
    return welch(list(first.values()), list(second.values()))


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Student's t-test of the differences, which stand in the same order in both."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = math.fsum(differences) / len(differences)
    obstacle = _too_few(first, second)
    if obstacle:
        return Difference(mean, obstacle=obstacle)
    squared_error = _variance(differences, mean) / len(differences)
    scale = max(map(abs, (*first, *second)))
    return _by_t(mean, squared_error, len(differences) - 1, "paired t", scale)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Welch's t-test with the degrees of freedom of Satterthwaite.

    Source: Welch, Biometrika 34 (1947).
    """
    means = [math.fsum(values) / len(values) for values in (first, second)]
    difference = means[0] - means[1]
    obstacle = _too_few(first, second)
    if obstacle:
        return Difference(difference, obstacle=obstacle)
    parts = [
        _variance(values, mean) / len(values)
        for values, mean in zip((first, second), means, strict=True)
    ]
    squared_error = sum(parts)
    # Each part as a share of the sum, so that tiny variances do not underflow when squared.
    shares = [part / squared_error if squared_error else 0.5 for part in parts]
    dof = 1 / sum(
        share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True)
    )
    scale = max(map(abs, (*first, *second)))
    return _by_t(difference, squared_error, dof, "Welch t", scale)


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


def _by_t(
    difference: float, squared_error: float, dof: float, test: str, scale: float
) -> Difference:
    from scipy.special import stdtr

    error = math.sqrt(squared_error)
    # A spread at the level of rounding is none: t would be a ratio of rounding errors.
    if error <= 1e-12 * scale:
        return Difference(difference, obstacle="the values do not vary between seeds")
    t = difference / error
    half = _critical(dof) * error
    p = 2 * float(stdtr(dof, -abs(t)))
    return Difference(difference, difference - half, difference + half, test, t, dof, p)


def _too_few(first: Sequence[float], second: Sequence[float]) -> str:
    if min(len(first), len(second)) >= 2:
        return ""
    return f"needs at least 2 runs in each group, has {len(first)} and {len(second)}"


def _variance(values: Sequence[float], mean: float) -> float:
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


@functools.lru_cache(maxsize=1024)
def _critical(dof: float) -> float:
    """Student's t that leaves 2.5 % on either side."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, (1 + CONFIDENCE) / 2))
