from __future__ import annotations

import numpy as np
import pytest

from lungan.errors import DataError
from lungan.scores import prdc
from lungan.scores.comparison import MANIFOLD
from lungan.scores.prdc import (
    densities,
    manifold_scores,
    nearest,
    squared_radii,
)


def cloud(count: int, dim: int = 12, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)) * scale


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_equals_prdc(k: int, scale: float) -> None:
    from prdc import compute_prdc

    real, generated = cloud(150), cloud(120, seed=1, scale=scale)
    theirs = compute_prdc(real, generated, nearest_k=k)
    ours = dict(zip(MANIFOLD, manifold_scores(real, generated, k), strict=True))
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_closed_form_on_a_line() -> None:
    # Balls of radius 1 round 0, 1, 2, 3; the generated images' radii are 0.5, 0.5 and 6.5.
    real = np.array([[0.0], [1.0], [2.0], [3.0]])
    generated = np.array([[0.25], [0.75], [7.25]])
    scores = manifold_scores(real, generated, k=1)
    # 7.25 lies in no ball; 0 and 1 within 0.5 of one, 2 and 3 within 6.5 of 7.25; 0.25 and 0.75
    # lie in two balls each.
    assert scores == (2 / 3, 1.0, 4 / 3, 0.5)
    assert densities(real, generated, k=1).tolist() == [2, 2, 0]


def test_equal_sets_are_perfect() -> None:
    real = cloud(80)
    precision, recall, _, coverage = manifold_scores(real, real[::-1], k=3)
    assert (precision, recall, coverage) == (1, 1, 1)


def test_far_apart_sets_share_nothing() -> None:
    assert manifold_scores(cloud(50), cloud(50, seed=1) + 100, k=5) == (0, 0, 0, 0)


def with_copies() -> tuple[np.ndarray, np.ndarray]:
    """Exact copies within and between the sides: every distance they make is a tie."""
    real = cloud(61).astype(np.float32)
    real[10:20] = real[30:40]
    generated = np.concatenate([real[5:45], cloud(30, seed=1).astype(np.float32)])
    return real, generated


@pytest.mark.parametrize("chunk_size", [1, 7, 32, 61, 1000])
def test_chunk_size_does_not_matter_even_at_ties(
    chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, generated = with_copies()
    expected = manifold_scores(real, generated, 3)
    monkeypatch.setattr(prdc, "CHUNK_SIZE", chunk_size)
    assert manifold_scores(real, generated, 3) == expected


def test_order_does_not_matter_even_at_ties() -> None:
    real, generated = with_copies()
    expected = manifold_scores(real, generated, 3)
    rng = np.random.default_rng(2)
    for _ in range(5):
        shuffled = manifold_scores(rng.permutation(real), rng.permutation(generated), 3)
        assert shuffled == pytest.approx(expected, rel=1e-12)


def test_constant_images_lie_in_no_open_ball_of_radius_0() -> None:
    same = np.ones((10, 4))
    assert manifold_scores(same, same, k=3) == (0, 0, 0, 0)


def test_as_many_neighbors_as_images_is_an_error() -> None:
    with pytest.raises(DataError, match=r"number of images - 1 \(4\), got 5"):
        manifold_scores(cloud(5), cloud(50), k=5)


def test_copies_are_at_distance_exactly_0_far_from_the_origin() -> None:
    references = cloud(40) + 1e6
    distance, index = nearest(references[[7, 3]], references)
    assert distance.tolist() == [0, 0]
    assert index.tolist() == [7, 3]


@pytest.mark.parametrize("chunk_size", [1, 9, 100])
def test_neighbors_equal_brute_force(chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prdc, "CHUNK_SIZE", chunk_size)
    rows = cloud(40)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    ordered = np.sort(distances, axis=1)
    distance, index = nearest(rows)
    assert distance == pytest.approx(ordered[:, 1], rel=1e-12)
    assert index.tolist() == distances.argsort(axis=1)[:, 1].tolist()
    assert squared_radii(rows, 4) == pytest.approx(ordered[:, 4] ** 2, rel=1e-9)
