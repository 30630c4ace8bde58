"""Measures and intervals over patients and seeds drawn again together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from lungan.utility.patients import delong, draw_patients, measure_draws, resample_difference


def make(num_patients: int = 30, ties: bool = False) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(num_patients), 2)
    labels = patients % 2
    scores = labels + rng.normal(size=len(labels))
    return patients, labels, np.round(scores, 0 if ties else 9)


@pytest.mark.parametrize("ties", [False, True])
def test_every_draw_is_measured_as_if_its_images_were_repeated(ties: bool) -> None:
    patients, labels, scores = make(ties=ties)
    draws = draw_patients(patients, labels, 20)
    found = measure_draws(scores, labels == 1, 0.4, draws)
    assert (draws[0] == 1).all()
    for index, weights in enumerate(draws):
        rows = np.repeat(np.arange(len(labels)), weights.astype(int))
        sensitivity = (scores[rows][labels[rows] == 1] > 0.4).mean()
        assert found["auc"][index] == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
        expected = average_precision_score(labels[rows], scores[rows])
        assert found["average_precision"][index] == pytest.approx(expected)
        assert found["sensitivity"][index] == pytest.approx(sensitivity)


def test_patients_are_drawn_whole_and_no_draw_lacks_a_class() -> None:
    patients = np.array([4, 4, 4, 7, 7, 9])
    draws = draw_patients(patients, np.array([0, 0, 0, 0, 0, 1]), 200)
    weights = draws
    assert 1 < len(weights) < 201
    assert (weights[:, :3] == weights[:, :1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, 5] > 0).all()


def test_the_interval_holds_both_seeds_and_patients() -> None:
    patients, labels, scores = make(200)
    draws = draw_patients(patients, labels, 400)
    rng = np.random.default_rng(0)
    apart = np.array([scores + 0.3 * rng.normal(size=len(scores)) for _ in range(6)])
    first = np.array([measure_draws(one, labels == 1, 0, draws)["auc"] for one in apart])
    none = resample_difference(first, first)
    assert (none.difference, none.low, none.high, none.detectable(), none.p) == (0, 0, 0, 0, 1)
    # Of seeds alone: every draw of patients has the same difference within a seed.
    gains = np.linspace(-0.01, 0.05, 6)
    seeds = resample_difference(first + gains[:, None], first)
    assert seeds.difference == pytest.approx(gains.mean())
    assert seeds.standard_error == pytest.approx(gains.std() / np.sqrt(6), rel=0.15)
    # Of patients alone: every seed has the same difference within a draw.
    better = measure_draws(scores + 0.5 * labels, labels == 1, 0, draws)["auc"]
    base = measure_draws(scores, labels == 1, 0, draws)["auc"]
    patients_only = resample_difference(np.tile(better, (6, 1)), np.tile(base, (6, 1)))
    expected = (better - base)[1:].std(ddof=1)
    assert patients_only.standard_error == pytest.approx(expected)
    assert seeds.low < seeds.difference < seeds.high


def test_the_detectable_gain_is_found_in_four_of_five_studies() -> None:
    patients, labels, scores = make()
    draws = draw_patients(patients, labels, 200)
    first = np.array([measure_draws(scores, labels == 1, 0, draws)["auc"]] * 2)
    result = resample_difference(first, first * 0)
    assert result.detectable() == pytest.approx(2.8016 * result.standard_error, rel=1e-4)
    assert result.detectable(4) > result.detectable()


def test_p_is_below_5_percent_where_the_interval_leaves_out_0() -> None:
    patients, labels, scores = make(60)
    draws = draw_patients(patients, labels, 999)
    rng = np.random.default_rng(1)
    for gain in np.linspace(0, 0.6, 13):
        first, second = (
            np.array(
                [
                    measure_draws(
                        scores + more * labels + 0.5 * rng.normal(size=len(scores)),
                        labels == 1,
                        0,
                        draws,
                    )["auc"]
                    for _ in range(4)
                ]
            )
            for more in (gain, 0.0)
        )
        found = resample_difference(first, second)
        assert abs(found.p - 0.05) < 0.004 or (found.p < 0.05) != found.includes_zero


@pytest.mark.parametrize("ties", [False, True])
def test_delong_by_its_definition_and_by_the_bootstrap(ties: bool) -> None:
    _, labels, scores = make(150, ties=ties)
    positive = labels == 1
    wins = (scores[positive, None] > scores[~positive]) + 0.5 * (
        scores[positive, None] == scores[~positive]
    )
    variance = wins.mean(axis=1).var(ddof=1) / positive.sum()
    variance += wins.mean(axis=0).var(ddof=1) / (~positive).sum()
    auc, error = delong(scores, positive)
    assert auc == pytest.approx(wins.mean(), abs=1e-12)
    assert error == pytest.approx(np.sqrt(variance), abs=1e-12)
    draws = draw_patients(np.arange(len(labels)), labels, 1500)
    drawn = measure_draws(scores, positive, 0, draws)["auc"][1:]
    assert error == pytest.approx(drawn.std(ddof=1), rel=0.1)
