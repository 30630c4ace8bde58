"""Floors are the scores' own distribution between real images, of many divisions at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lungan import registry
from lungan.config import ScoreConfig, presets
from lungan.scores import comparison, distances
from lungan.scores.comparison import floors
from lungan.scores.distances import frechet_distance, kernel_distance, kernel_distances
from lungan.scores.encoders import Encoded
from lungan.scores.memorization import compare_nearness, nearness, suggested_cells
from lungan.scores.prdc import Neighborhoods, manifold_scores

SCORES = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")


@pytest.fixture
def config() -> ScoreConfig:
    standard: ScoreConfig = presets.load("score", "standard")
    return dataclasses.replace(standard, kernel_subsets=2, floor_splits=80, inception_splits=2)


def encode(count: int, seed: int, width: int = 6) -> Encoded:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)) * np.linspace(0.3, 2, width)
    return Encoded(features.astype(np.float32), rng.normal(size=(count, 3)).astype(np.float32))


def divisions(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint parts of a third of the rows each."""
    rng = np.random.default_rng(seed)
    place = np.stack([rng.permutation(size) for _ in range(count)])
    return place < size // 3, (place >= size // 3) & (place < 2 * (size // 3))


def test_many_kernel_distances_are_each_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK_SIZE", 17)
    rows = encode(90, 0).features.astype(np.float64)
    one, two = divisions(7, 90)
    found = kernel_distances(rows, one, two)
    expected = [
        kernel_distance(rows[a], rows[b], 1, 30, 0)[0] for a, b in zip(one, two, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("num_neighbors", [1, 40, 500])
def test_many_manifold_scores_are_each_ones_own(num_neighbors: int) -> None:
    rows = encode(120, 0).features.astype(np.float64)
    rows[5:9] = rows[9:13]  # copies on both sides are ties
    one, two = divisions(9, 120)
    found = Neighborhoods(rows, 3, num_neighbors).scores(one, two)
    for scores, a, b in zip(found.T, one, two, strict=True):
        expected = manifold_scores(rows[a], rows[b], 3)
        np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_fewer_dimensions_keep_the_frechet_distance() -> None:
    rows = encode(40, 1, width=300).features.astype(np.float64)
    compact = comparison._compact(rows)
    assert compact.shape == (40, 39)
    assert frechet_distance(compact[:20], compact[20:]) == pytest.approx(
        frechet_distance(rows[:20], rows[20:]), rel=1e-6
    )


def null_values(config: ScoreConfig, count: int, draws: int) -> dict[str, np.ndarray]:
    """What fresh images of the same distribution score, each against a fresh reference."""
    found = [
        comparison.compare(encode(count, 2 * k + 100), encode(count, 2 * k + 101), config)
        for k in range(draws)
    ]
    return {key: np.array([one[key] for one in found], dtype=float) for key in SCORES}


def test_a_floor_is_the_distribution_of_a_perfect_generators_score(config: ScoreConfig) -> None:
    nulls = null_values(config, 150, 150)
    values = floors(encode(300, 7), 150, config)
    for key, null in nulls.items():
        low, high = values[f"{key}.floor_low"], values[f"{key}.floor_high"]
        assert low < values[f"{key}.floor"] < high
        assert ((null >= low) & (null <= high)).mean() > 0.85, key
        assert 0.6 < values[f"{key}.floor_std"] / null.std() < 1.6, key


def test_what_a_shared_reference_carries_of_the_variance(config: ScoreConfig) -> None:
    """Against direct simulation: many generated sets beside each of many references."""
    table: dict[str, list[list[float]]] = {key: [] for key in SCORES}
    for k in range(40):
        reference = encode(100, 1000 + k)
        found = [
            comparison.compare(reference, encode(100, 9000 + 5 * k + j), config) for j in range(5)
        ]
        for key in SCORES:
            table[key].append([float(one[key]) for one in found])
    more = dataclasses.replace(config, floor_splits=400)
    values = floors(encode(200, 7), 100, more)
    for key in SCORES:
        assert values[f"{key}.floor_shared"] == pytest.approx(
            comparison.shared_variance(np.array(table[key])), abs=0.2
        ), key
    # Of a sum of squared differences of means, a quarter of the variance is each side's own.
    assert comparison.shared_variance(np.array(table["kernel_distance"])) == pytest.approx(
        0.25, abs=0.15
    )


def test_the_first_half_is_the_reference_of_the_comparison(config: ScoreConfig) -> None:
    rows = comparison.reference_rows(50, 20, config, None)
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(rows, comparison.reference_rows(50, 20, config, None))
    few = dataclasses.replace(config, floor_splits=1)
    np.testing.assert_array_equal(rows, comparison.reference_rows(50, 20, few, None))


def test_a_plug_ins_score_gets_floats_of_one_size_for_its_value_and_its_floor(
    config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spread(real: np.ndarray, generated: np.ndarray) -> float:
        seen.append((real.dtype, generated.dtype))
        return float(abs(real.std() - generated.std()))

    monkeypatch.setattr(registry, "builder", lambda *_: spread)
    config = dataclasses.replace(config, extra=["spread"])
    comparison.compare(encode(20, 1), encode(20, 2), config)
    assert len(seen) == 1
    assert floors(encode(40, 1), 20, config)["spread.floor"] != 0
    assert set(seen) == {(np.dtype("float32"), np.dtype("float32"))}


def test_few_splits_are_raised_and_more_images_than_two_halves_are_all_used(
    config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    as_floor = comparison.as_floor

    def count(key: str, draws: list[float | str], *given: Any) -> Any:
        seen.append(len(draws))
        return as_floor(key, draws, *given)

    monkeypatch.setattr(comparison, "as_floor", count)
    few = dataclasses.replace(config, floor_splits=1)
    floors(encode(300, 7), 40, few)
    assert set(seen) == {comparison.FEWEST_SPLITS}


def test_patients_stay_on_one_side(config: ScoreConfig) -> None:
    groups = np.arange(240) // 6
    order = comparison._order(240, groups, np.random.default_rng(0))
    assert sorted(order) == list(range(240))
    changes = np.count_nonzero(np.diff(groups[order]))
    assert changes == 39  # 40 patients, one after the other
    rows = comparison.reference_rows(240, 120, config, groups)
    assert len(np.unique(groups[rows])) == 20
    # Six images of a patient that are nearly one image: halves that share patients look too alike.
    patient = encode(40, 3).features
    features = np.repeat(patient, 6, axis=0) + encode(240, 4).features * 0.01
    images = Encoded(features, encode(240, 5).logits)
    apart = floors(images, 120, config, groups)
    mixed = floors(images, 120, config)
    assert apart["coverage.floor"] < 0.7 < 0.9 < mixed["coverage.floor"]


@pytest.mark.parametrize(("held_out", "number"), [(400, 200), (120, 300)])
def test_memorization_floors_hold_under_the_null(
    config: ScoreConfig, held_out: int, number: int
) -> None:
    """A generator that draws from the images' own distribution is called a copyist at most 5 % of
    the time by each score, and the floor's spread is that of the score."""
    rng = np.random.default_rng(0)
    outside = {"memorization_distance_ratio": 0, "memorization_share": 0, "authenticity": 0}
    outside["memorization_c_t"] = 0
    values: dict[str, list[float]] = {key: [] for key in outside}
    spreads: dict[str, list[float]] = {key: [] for key in outside}
    repeats = 40
    for _ in range(repeats):
        training, made, unseen = (rng.normal(size=(n, 8)) for n in (300, number, held_out))
        near = nearness(training, [made, unseen], suggested_cells(held_out), 0)
        found = compare_nearness(near[0], near[1], config)
        for key in outside:
            value, low, high = (found[key + end] for end in ("", ".floor_low", ".floor_high"))
            outside[key] += value > high if key == "memorization_share" else value < low
            # A floor of authenticity is itself measured on the held-out images.
            middle = found[f"{key}.floor"] if key == "authenticity" else 0
            values[key].append(value - middle)
            spreads[key].append(found[f"{key}.floor_std"])
    for key, count in outside.items():
        assert count <= 5, key  # of 40, where 2.5 % is one: more than 5 has a chance below 0.001
        assert 0.6 < np.mean(spreads[key]) / np.std(values[key]) < 1.7, key


def test_too_few_held_out_images_give_no_verdict(config: ScoreConfig) -> None:
    rng = np.random.default_rng(0)
    training, made, unseen = (rng.normal(size=(n, 4)) for n in (100, 50, 40))
    near = nearness(training, [made, unseen], 1, 0)
    found = compare_nearness(near[0], near[1], config)
    assert found["memorization_share"] == (
        "the nearest 1 % of 40 held-out images is less than one image; at least 100 are needed"
    )
    assert isinstance(found["memorization_distance_ratio"], float)
    few = compare_nearness(near[0], near[1].take(np.arange(19)), config)
    assert few["memorization_c_t"] == (
        "too few held-out images for a verdict: 19, at least 20 are needed"
    )
    assert isinstance(few["authenticity"], float)


def test_held_out_images_of_few_patients_widen_the_floor(config: ScoreConfig) -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(rng.normal(size=(12, 4)), 10, axis=0)
    training, made = rng.normal(size=(200, 4)), rng.normal(size=(100, 4))
    near = nearness(training, [made, patients + 0.01 * rng.normal(size=(120, 4))], 1, 0)
    groups = np.arange(120) // 10
    known = compare_nearness(near[0], near[1], config, groups)
    unknown = compare_nearness(near[0], near[1], config)
    key = "memorization_distance_ratio.floor_std"
    assert known[key] > 1.5 * unknown[key]
