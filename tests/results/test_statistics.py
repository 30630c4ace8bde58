from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from lungan.results.statistics import (
    Difference,
    compare,
    detectable,
    holm,
    mean_interval,
    paired,
)


def unseeded(values: list[float]) -> dict[object, float]:
    """By seeds that no other group has."""
    return {object(): value for value in values}


def welch(first: list[float], second: list[float]) -> Difference:
    return compare(unseeded(first), unseeded(second))


def test_interval_by_hand() -> None:
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.std == pytest.approx(1.0)
    # t(0.975, 2) = 4.302653 from any table
    assert interval.high == pytest.approx(2 + 4.302653 / math.sqrt(3), rel=1e-6)
    assert interval.center == interval.mean


def test_interval_of_ratios_is_that_of_the_logarithms() -> None:
    values = [1.0, 2.0, 8.0]
    interval = mean_interval(values, logarithmic=True)
    logs = mean_interval([math.log(value) for value in values])
    assert interval.center == pytest.approx(16 ** (1 / 3))
    assert interval.mean == pytest.approx(11 / 3)
    assert (interval.low, interval.high) == pytest.approx((math.exp(logs.low), math.exp(logs.high)))


def test_an_interval_stays_among_the_possible_values() -> None:
    wide = mean_interval([0.9, 0.99, 0.2], least=0.0, greatest=1.0)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_ratios_are_tested_by_logarithms() -> None:
    first, second = [1.0, 2.0, 4.0], [10.0, 22.0, 39.0]
    got = compare(unseeded(first), unseeded(second), logarithmic=True)
    expected = stats.ttest_ind(np.log(first), np.log(second), equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (got.low, got.high) == pytest.approx(np.exp([interval.low, interval.high]), rel=1e-9)
    assert got.effect == pytest.approx(2 / (10 * 22 * 39) ** (1 / 3))


@pytest.mark.parametrize("n", [3, 5])
def test_what_a_test_can_find_it_finds_in_four_of_five_studies(n: int) -> None:
    rng = np.random.default_rng(3)
    known = welch([0.0, 1.0, 2.0], [0.1, 1.0, 2.0])
    # The noncentral t distribution holds for a spread that is known only by its estimate.
    exact = dataclasses.replace(known, error=math.sqrt(2 / n), dof=2 * n - 2.0)
    shift = detectable(exact, 0.05)
    assert shift is not None
    draws = rng.normal(size=(4000, 2, n))
    p = stats.ttest_ind(draws[:, 0] + shift, draws[:, 1], axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("significance", [6e-3, 1e-6])  # 104 and 630,000 standard errors
def test_far_out_the_limit_is_the_noncentral_t(significance: float) -> None:
    known = welch([0.0, 1.0, 2.0], [0.1, 1.0, 2.0])
    shift = detectable(dataclasses.replace(known, error=1.0, dof=1.0), significance)
    assert shift is not None
    rng = np.random.default_rng(0)
    draws = (rng.normal(size=400_000) + shift) / np.abs(rng.normal(size=400_000))
    found = np.mean(np.abs(draws) > stats.t.isf(significance / 2, 1.0))
    assert found == pytest.approx(0.8, abs=0.003)


def test_interval_against_scipy() -> None:
    rng = random.Random(0)
    values = [rng.gauss(5, 2) for _ in range(9)]
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 8, loc=interval.mean, scale=stats.sem(values))
    assert interval.low == pytest.approx(low, rel=1e-10)
    assert interval.high == pytest.approx(high, rel=1e-10)


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([4.0])
    assert interval.mean == interval.center == 4.0
    assert np.isnan([interval.std, interval.low, interval.high]).all()
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize("seed", range(5))
def test_welch_against_scipy(seed: int) -> None:
    rng = random.Random(seed)
    first = [rng.gauss(0, 1) for _ in range(5)]
    second = [rng.gauss(1, 4) for _ in range(8)]
    expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.95)
    got = welch(first, second)
    assert got.test == "Welch t"
    assert got.t == pytest.approx(expected.statistic, rel=1e-10)
    assert got.dof == pytest.approx(expected.df, rel=1e-10)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_welch_by_hand() -> None:
    # variances 1 and 4, n 3 and 3: error sqrt(5/3), dof (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17
    got = welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert got.difference == pytest.approx(-2.0)
    assert got.dof == pytest.approx(50 / 17)
    assert got.t == pytest.approx(-2 / math.sqrt(5 / 3))


@pytest.mark.parametrize("seed", range(5))
def test_paired_against_scipy(seed: int) -> None:
    rng = random.Random(seed)
    first = [rng.gauss(0, 1) for _ in range(5)]
    second = [value + rng.gauss(0.3, 0.2) for value in first]
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    got = paired(first, second)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_equal_seeds_are_paired_whatever_their_order() -> None:
    first, second = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 4.2, 0: 1.1, 1: 2.3}
    assert compare(first, second) == paired([1.0, 2.0, 4.0], [1.1, 2.3, 4.2])
    assert compare(first, {3: 1.1, 1: 2.3, 2: 4.2}).test == "Welch t"


def test_swapping_groups_changes_signs_only() -> None:
    one, other = welch([1.0, 2.0, 4.0], [3.0, 3.5]), welch([3.0, 3.5], [1.0, 2.0, 4.0])
    assert one.difference == -other.difference
    assert one.p == pytest.approx(other.p)
    assert one.low == pytest.approx(-(other.high or 0))


def test_too_few_and_no_variation_cannot_be_tested() -> None:
    alone = welch([1.0], [2.0, 3.0])
    assert alone.p is None
    assert alone.low is None
    assert alone.obstacle == "needs at least 2 runs in each group, has 1 and 2"
    for flat in (
        welch([0.3] * 3, [0.4] * 4),
        paired([0.3] * 3, [0.4] * 3),
        welch([0.0] * 2, [0.0] * 2),
    ):
        assert flat.p is None
        assert flat.obstacle == "the values do not vary between seeds"


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_depend_on_order() -> None:
    p_values = [0.001, 0.2, 0.02, 0.04]
    expected = dict(zip(p_values, holm(p_values), strict=True))
    for order in itertools.permutations(p_values):
        assert dict(zip(order, holm(order), strict=True)) == expected
    assert all(adjusted >= raw for raw, adjusted in expected.items())


def test_holm_bounds_false_findings_of_a_family() -> None:
    rng = random.Random(1)
    wrong, trials = 0, 300
    for _ in range(trials):
        groups = [[rng.gauss(0, 1) for _ in range(5)] for _ in range(4)]
        pairs = [welch(a, b).p or 1.0 for a, b in itertools.combinations(groups, 2)]
        wrong += min(holm(pairs)) < 0.05
    # 5 % of 300 is 15; 5 standard deviations above is 34
    assert wrong <= 34


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = random.Random(2)
    covered = 0
    for _ in range(1000):
        interval = mean_interval([rng.gauss(3, 1) for _ in range(5)])
        covered += interval.low <= 3 <= interval.high
    assert 910 <= covered <= 985
