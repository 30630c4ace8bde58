from __future__ import annotations

import numpy as np
import pytest
import torch

import lungan.classifiers.vision  # noqa: F401  lets the oracles import a torchvision without operators
from lungan.errors import DataError
from lungan.scores.distances import (
    frechet_distance,
    frechet_distance_infinity,
)


def correlated(count: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) / np.sqrt(dim) + shift


def test_a_shift_alone_gives_its_squared_length() -> None:
    features = correlated(300, 12, 0)
    shift = np.linspace(-1, 2, 12)
    assert frechet_distance(features, features + shift) == pytest.approx(shift @ shift, rel=1e-9)


def test_a_scale_alone_gives_the_closed_form_of_equal_eigenvectors() -> None:
    features = correlated(300, 12, 0)
    features -= features.mean(axis=0)
    variance = (features**2).sum() / 299
    assert frechet_distance(features, 3 * features) == pytest.approx(4 * variance, rel=1e-9)


def test_one_dimension_is_the_distance_of_means_and_deviations() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(50, 1)), rng.normal(size=(70, 1)) * 4 + 2
    expected = (one.mean() - two.mean()) ** 2 + (one.std(ddof=1) - two.std(ddof=1)) ** 2
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("count_one", "count_two", "dim"), [(200, 200, 16), (200, 90, 16), (60, 60, 40), (41, 41, 40)]
)
def test_equals_torch_fidelity(count_one: int, count_two: int, dim: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    one, two = correlated(count_one, dim, 1), correlated(count_two, dim, 2, 0.3)
    statistics = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (one, two)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(one, two) == pytest.approx(theirs, rel=1e-7)


@pytest.mark.parametrize(("count_one", "count_two"), [(30, 30), (30, 100), (100, 30)])
def test_equals_the_square_root_of_a_rank_deficient_product(count_one: int, count_two: int) -> None:
    from torchmetrics.image.fid import _compute_fid

    one, two = correlated(count_one, 64, 1), correlated(count_two, 64, 2, 0.3)
    moments = []
    for rows in (one, two):
        moments += [torch.from_numpy(rows.mean(axis=0)), torch.from_numpy(np.cov(rows.T))]
    assert frechet_distance(one, two) == pytest.approx(float(_compute_fid(*moments)), rel=1e-4)


@pytest.mark.parametrize("count", [30, 200])
def test_is_symmetric_blind_to_order_and_0_at_equality(count: int) -> None:
    one, two = correlated(count, 48, 1), correlated(count + 7, 48, 2)
    forward = frechet_distance(one, two)
    assert frechet_distance(two, one) == pytest.approx(forward, rel=1e-9)
    shuffled = one[np.random.default_rng(0).permutation(count)]
    assert frechet_distance(shuffled, two) == pytest.approx(forward, rel=1e-9)
    assert frechet_distance(one, shuffled) == pytest.approx(0, abs=1e-6 * forward)


def test_constant_features_have_no_variance_and_still_a_distance() -> None:
    one, two = np.zeros((20, 5)), np.full((20, 5), 2.0)
    assert frechet_distance(one, two) == pytest.approx(20.0, rel=1e-12)


def test_the_floor_is_far_above_0_at_small_n_and_its_extrapolation_is_not() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.normal(size=(500, 40)), rng.normal(size=(500, 40))
    raw = frechet_distance(one, two)
    assert 1.2 < raw < 2.4
    assert abs(frechet_distance_infinity(one, two, seed=0)) < 0.15 * raw


def test_extrapolation_recovers_the_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(4)
    scale = np.linspace(0.5, 1.5, 24)
    expected = 24 * 0.3**2 + ((scale - 1) ** 2).sum()
    one, two = rng.normal(size=(1500, 24)), rng.normal(size=(1500, 24)) * scale + 0.3
    assert frechet_distance_infinity(one, two, seed=0) == pytest.approx(expected, rel=0.08)


def test_extrapolation_says_how_many_images_it_needs() -> None:
    with pytest.raises(
        DataError, match="at least 384 images a side at feature dimension 64, got 3"
    ):
        frechet_distance_infinity(np.zeros((383, 64)), np.zeros((400, 64)), seed=0)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(DataError, match="needs at least 2 images a side"):
        frechet_distance(np.zeros((1, 4)), np.zeros((3, 4)))
