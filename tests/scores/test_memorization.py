from __future__ import annotations

import numpy as np
import pytest

from lungan.errors import DataError
from lungan.scores import prdc
from lungan.scores.memorization import (
    RELATIVE,
    authenticity,
    copying_statistic,
    distance_ratio,
    distinct,
    nearness,
    share_near,
    suggested_cells,
    unseen,
)


def cloud(count: int, seed: int, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim))


def test_nearness_equals_brute_force() -> None:
    training, images = cloud(60, 0), cloud(40, 1)
    (found,) = nearness(training, [images], num_cells=1, seed=0)
    distances = np.linalg.norm(images[:, None] - training[None], axis=2)
    own = np.linalg.norm(training[:, None] - training[None], axis=2)
    np.fill_diagonal(own, np.inf)
    assert found.index.tolist() == distances.argmin(axis=1).tolist()
    assert found.distance == pytest.approx(distances.min(axis=1), rel=1e-12)
    authentic = distances.min(axis=1) > own.min(axis=1)[distances.argmin(axis=1)]
    assert found.authentic.tolist() == authentic.tolist()
    assert found.cell_distance == pytest.approx(found.distance, rel=1e-12)


def test_closed_forms_on_a_line() -> None:
    training = np.array([[0.0], [10.0], [30.0]])  # nearest others at 10, 10 and 20
    held_out = np.array([[2.0], [14.0], [36.0]])  # distances 2, 4, 6
    generated = np.array([[0.0], [1.0], [-11.0], [30.5], [51.0]])  # 0, 1, 11, 0.5, 21
    made, real = nearness(training, [generated, held_out], num_cells=1, seed=0)
    assert distance_ratio(made, real) == pytest.approx(1 / 4)
    # The 1st percentile of 2, 4, 6 is 2.04: 0, 1 and 0.5 lie below it.
    assert share_near(made.distance, real.distance) == pytest.approx(3 / 5)
    assert authenticity(made) == pytest.approx(2 / 5)


def test_copies_score_as_copies_and_fresh_images_as_unseen() -> None:
    training, held_out = cloud(400, 0), cloud(300, 1)
    copied, fresh, real = nearness(
        training, [training[:200] + 1e-6, cloud(300, 2), held_out], num_cells=3, seed=0
    )
    assert distance_ratio(copied, real) < 1e-5
    assert share_near(copied.distance, real.distance) == 1
    assert authenticity(copied) == 0
    assert copying_statistic(copied, real) < -8
    assert distance_ratio(fresh, real) == pytest.approx(1, abs=0.1)
    assert share_near(fresh.distance, real.distance) == pytest.approx(0.01, abs=0.03)
    assert authenticity(fresh) == pytest.approx(authenticity(real), abs=0.1)
    assert abs(copying_statistic(fresh, real)) < 3


def test_the_copying_statistic_equals_its_published_form() -> None:
    from scipy.stats import mannwhitneyu

    training, generated, held_out = cloud(200, 0), cloud(150, 1) * 0.8, cloud(120, 2)
    made, real = nearness(training, [generated, held_out], num_cells=1, seed=0)
    statistic = mannwhitneyu(made.distance, real.distance).statistic
    num_pairs = 150 * 120
    z = (statistic - num_pairs / 2) / np.sqrt(num_pairs * (150 + 120 + 1) / 12)
    assert copying_statistic(made, real) == pytest.approx(z, rel=1e-9)
    assert copying_statistic(real, made) == pytest.approx(-z, rel=1e-9)


def test_cells_weigh_by_their_held_out_share() -> None:
    offset = np.array([100.0, 0, 0, 0, 0, 0])
    training = np.concatenate([cloud(100, 0), cloud(100, 1) + offset])
    held_out = np.concatenate([cloud(90, 2), cloud(30, 3) + offset])
    generated = np.concatenate([cloud(60, 4), training[100:160]])  # copies in one cell only
    made, real = nearness(training, [generated, held_out], num_cells=2, seed=0)
    assert len(np.unique(made.cell)) == 2
    separate = []
    for start, number in ((0, made.cell[0]), (60, made.cell[-1])):
        inside = made.take(np.arange(start, start + 60))
        separate.append(copying_statistic(inside, real.take(np.flatnonzero(real.cell == number))))
    assert separate[1] < -5 < separate[0]
    expected = 0.75 * separate[0] + 0.25 * separate[1]
    assert copying_statistic(made, real) == pytest.approx(expected, rel=1e-9)


def test_the_null_distribution_of_the_copying_statistic() -> None:
    training = cloud(150, 0)
    scores = []
    for seed in range(1, 81):
        made, real = nearness(training, [cloud(60, seed), cloud(60, 1000 + seed)], 1, seed=0)
        scores.append(copying_statistic(made, real))
    assert abs(np.mean(scores)) < 0.45
    assert 0.75 < np.std(scores) < 1.25


def test_order_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    training, generated, held_out = cloud(90, 0), cloud(70, 1), cloud(50, 2)
    order = np.random.default_rng(0).permutation(70)
    plain, real = nearness(training, [generated, held_out], 1, seed=0)
    monkeypatch.setattr(prdc, "CHUNK_SIZE", 7)
    shuffled, chunked = nearness(training, [generated[order], held_out], 1, seed=0)
    assert shuffled.distance == pytest.approx(plain.distance[order], rel=1e-12)
    for score in RELATIVE.values():
        assert score(shuffled, chunked) == pytest.approx(score(plain, real), rel=1e-9)


def test_no_cell_with_enough_images_is_an_error() -> None:
    made, real = nearness(cloud(50, 0), [cloud(19, 1), cloud(60, 2)], num_cells=1, seed=0)
    with pytest.raises(DataError, match="no cell holds both held-out and 20 generated images"):
        copying_statistic(made, real)


def test_held_out_copies_of_training_images_give_no_ratio() -> None:
    training = cloud(50, 0)
    made, real = nearness(training, [cloud(30, 1), training[:20]], num_cells=1, seed=0)
    with pytest.raises(DataError, match="so no image can be nearer than they are; read"):
        distance_ratio(made, real)


def test_identical_training_images_make_one_cell() -> None:
    (found,) = nearness(np.ones((9, 2)), [np.zeros((3, 2))], num_cells=4, seed=0)
    assert found.cell.tolist() == [0, 0, 0]


def test_suggested_cells() -> None:
    assert [suggested_cells(count) for count in (0, 49, 120, 390, 5000)] == [1, 1, 2, 7, 10]


def test_duplicates_are_found_by_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 1, 4, 4), dtype=np.uint8)
    images[3] = images[1]
    images[5] = images[1]
    assert distinct(images).tolist() == [0, 1, 2, 4]
    assert unseen(images, images[[2]]).tolist() == [0, 1, 4]
