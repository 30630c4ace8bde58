from __future__ import annotations

import numpy as np
import pytest

import lungan.classifiers.vision  # noqa: F401  lets the oracles import a torchvision without operators
from lungan.errors import DataError
from lungan.scores import distances
from lungan.scores.distances import kernel_distance


def features(count: int, dim: int = 10, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)) + shift


def plain_mmd(one: np.ndarray, two: np.ndarray) -> float:
    """The unbiased estimate from its definition, pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j])
        for rows in (one, two)
    ]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in one for b in two]))


def test_equals_the_definition() -> None:
    one, two = features(9), features(9, seed=1, shift=0.4)
    ours = kernel_distance(one, two, subsets=1, subset_size=9, seed=0)
    assert ours == (pytest.approx(plain_mmd(one, two), rel=1e-10), 0)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_equals_torch_fidelity_and_torchmetrics(shift: float) -> None:
    import torch
    from torch_fidelity.metric_kid import kernel_mmd
    from torchmetrics.image.kid import poly_mmd

    one, two = features(60), features(60, seed=1, shift=shift)
    ours = kernel_distance(one, two, subsets=1, subset_size=60, seed=0)[0]
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_coef0": 1.0}
    theirs = kernel_mmd(one, two, kid_kernel_poly_gamma=None, **options)
    assert ours == pytest.approx(theirs, rel=1e-8)
    metric = float(poly_mmd(torch.from_numpy(one), torch.from_numpy(two)))
    assert ours == pytest.approx(metric, rel=1e-6)


def test_many_overlapping_subsets_are_those_that_one_by_one_would_give() -> None:
    one, two = features(50), features(70, seed=1, shift=0.3)
    rng = np.random.default_rng(5)
    rows_one = [rng.choice(50, 30, replace=False) for _ in range(40)]
    rows_two = [rng.choice(70, 30, replace=False) for _ in range(40)]
    singles = [
        kernel_distance(one[a], two[b], subsets=1, subset_size=30, seed=0)[0]
        for a, b in zip(rows_one, rows_two, strict=True)
    ]
    ours = kernel_distance(one, two, subsets=40, subset_size=30, seed=5)
    assert ours == pytest.approx((np.mean(singles), np.std(singles)), rel=1e-9)


@pytest.mark.parametrize(("subsets", "size"), [(3, 20), (60, 40)])
def test_chunk_size_does_not_matter(
    subsets: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = features(90), features(80, seed=1, shift=0.2)
    whole = kernel_distance(one, two, subsets, size, seed=0)
    for chunk_size in (1, 7, 64):
        monkeypatch.setattr(distances, "CHUNK_SIZE", chunk_size)
        part = kernel_distance(one, two, subsets, size, seed=0)
        assert part == pytest.approx(whole, rel=1e-9)


def test_is_symmetric_and_blind_to_order_over_all_images() -> None:
    one, two = features(40), features(40, seed=1, shift=0.3)
    forward = kernel_distance(one, two, 1, 40, seed=0)[0]
    assert kernel_distance(two, one, 1, 40, seed=0)[0] == pytest.approx(forward, rel=1e-10)
    assert kernel_distance(one[::-1], two, 1, 40, seed=0)[0] == pytest.approx(forward, rel=1e-10)


def test_is_unbiased_so_equal_distributions_fall_on_both_sides_of_0() -> None:
    rng = np.random.default_rng(0)
    estimates = np.array(
        [
            kernel_distance(rng.normal(size=(40, 8)), rng.normal(size=(40, 8)), 1, 40, 0)[0]
            for _ in range(200)
        ]
    )
    assert (estimates < 0).mean() > 0.3
    assert abs(estimates.mean()) < 3 * estimates.std() / np.sqrt(200)


def test_a_subset_larger_than_a_side_is_an_error() -> None:
    with pytest.raises(DataError, match=r"from 2 to the number of images \(8\), got 9"):
        kernel_distance(features(8), features(20), 1, 9, seed=0)
