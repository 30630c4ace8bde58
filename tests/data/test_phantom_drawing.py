"""Drawing from factors: independence of chunk and company, sizes, known factors, time, memory."""

from __future__ import annotations

import hashlib
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from lungan.data.phantom import FACTORS, NORMAL, PNEUMONIA, draw_factors
from lungan.data.phantom_drawing import (
    DRAWING_VERSION,
    Factors,
    draw_images,
    ellipse,
    noise,
    ramp,
    wave,
)


def some_factors(num_images: int = 12, seed: int = 0) -> Factors:
    labels = (np.arange(num_images) % 2).astype(np.int64)
    return draw_factors(np.random.default_rng(seed), labels)


def with_factor(factors: Factors, name: str, value: float) -> Factors:
    changed = factors.copy()
    changed[name] = value
    return changed


@pytest.mark.parametrize("size", [28, 33, 64, 65, 256])
def test_shape_type_and_range(size: int) -> None:
    images = draw_images(some_factors(4), size)
    assert images.shape == (4, 1, size, size)
    assert images.dtype == np.uint8
    assert np.all(images.std(axis=(1, 2, 3)) > 5)


def test_no_images() -> None:
    assert draw_images(some_factors(0), 28).shape == (0, 1, 28, 28)


@pytest.mark.parametrize("size", [28, 100])
def test_chunk_and_company_change_no_byte(size: int) -> None:
    factors = some_factors(13)
    images = draw_images(factors, size)
    for pixels_per_chunk in (1, 3 * size * size, 2**22):
        np.testing.assert_array_equal(draw_images(factors, size, pixels_per_chunk), images)
    np.testing.assert_array_equal(draw_images(factors[5:6], size), images[5:6])
    np.testing.assert_array_equal(draw_images(factors[::-1], size), images[::-1])


def test_same_bytes_as_when_the_version_was_set() -> None:
    # Whoever changes the drawing raises DRAWING_VERSION and pins the new digest.
    digest = hashlib.sha256()
    for size in (28, 96):
        digest.update(draw_images(some_factors(24), size).tobytes())
    assert (DRAWING_VERSION, digest.hexdigest()[:16]) == (1, "b76cb36deb788e8c")


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_same_anatomy_at_any_size(size: int) -> None:
    factors = some_factors(6)
    small = draw_images(factors, 28)[:, 0].astype(np.float32)
    large = [
        cv2.resize(image, (28, 28), interpolation=cv2.INTER_AREA)
        for image in draw_images(factors, size)[:, 0].astype(np.float32)
    ]
    for one, other in zip(small, large, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97
        assert abs(one.mean() - other.mean()) < 2


def test_factors_stay_within_their_bounds() -> None:
    factors = some_factors(2000)
    for factor in FACTORS:
        values = factors[factor.name]
        assert np.all((values >= np.float32(factor.low)) & (values <= np.float32(factor.high)))
        assert values.std() > 0.3 * factor.spread


def test_only_pneumonia_has_opacities() -> None:
    factors = some_factors(200)
    normal, sick = (factors[factors["label"] == label] for label in (NORMAL, PNEUMONIA))
    assert np.all(normal["diffuse_opacity"] == 0)
    assert np.all(normal["opacity_density"] == 0)
    assert np.all(sick["opacity_density"].max(axis=1) > 0)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [(factor.name, factor.mean, factor.mean + 2 * factor.spread) for factor in FACTORS],
)
def test_every_factor_shows(name: str, low: float, high: float) -> None:
    # A lead must be there for its place to show. Arms and chin are outside many films.
    factors = with_factor(some_factors(6), "lead_density", 0.3)
    before = draw_images(with_factor(factors, name, low), 64).astype(int)
    after = draw_images(with_factor(factors, name, high), 64).astype(int)
    num_changed = np.sum(np.abs(after - before).max(axis=(1, 2, 3)) >= 2)
    assert num_changed >= (1 if name in ("arm_gap", "chin_y") else 6)


def mean_change(name: str, low: float, high: float) -> np.ndarray:
    """Mean over patients of what a factor's change does to the film, (64, 64)."""
    factors = some_factors(40)[::2]
    pair = [
        draw_images(with_factor(factors, name, value), 64)[:, 0].astype(float)
        for value in (low, high)
    ]
    return np.asarray((pair[1] - pair[0]).mean(axis=0))


def test_more_air_darkens_the_lungs_and_nothing_below() -> None:
    change = mean_change("lung_air", 0.2, 0.4)
    assert change[25:35, 10:18].mean() < -20
    assert abs(change[56:].mean()) < 1


def test_a_larger_heart_brightens_the_left_more() -> None:
    change = mean_change("heart_size", 0.8, 1.3)
    left, right = change[20:44, 34:].mean(), change[20:44, :30].mean()
    assert left > right > 0


def test_an_opacity_brightens_its_place() -> None:
    factors = some_factors(40)[::2]
    for name in ("shift_x", "shift_y", "tilt", "scoliosis", "diffuse_opacity"):
        factors[name] = 0
    factors["opacity_x"][:, 0] = -0.5
    factors["opacity_y"][:, 0] = 0.0
    factors["opacity_width"][:, 0] = factors["opacity_height"][:, 0] = 0.25
    factors["opacity_softness"][:, 0] = 0.5
    clear = draw_images(factors, 64)[:, 0].astype(float)
    factors["opacity_density"][:, 0] = 0.9
    change = draw_images(factors, 64)[:, 0] - clear
    assert change[:, 28:36, 13:19].mean() > 20
    assert np.all(change[:, :, 34:] == 0)


def test_tilt_turns_the_film() -> None:
    change = mean_change("tilt", -0.1, 0.1)
    # A clockwise turn carries the dark lungs' tops to the right, into what was bright.
    assert np.abs(change).mean() > 2


def test_whole_set_is_quick() -> None:
    # 2.3 s of one core where it was written; the bound leaves room for slow and busy machines.
    factors = some_factors(586)
    start = time.process_time()
    draw_images(factors, 28)
    assert time.process_time() - start < 1.5


def test_memory_is_bounded_at_256() -> None:
    factors = some_factors(6)
    tracemalloc.start()
    try:
        draw_images(factors, 256)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 24 * 2**20


def test_ramp_and_wave_in_closed_form() -> None:
    steps = np.array([-2, -1, 0, 1, 2], dtype=np.float32)
    np.testing.assert_array_equal(ramp(steps), np.float32([0, 0, 0.5, 1, 1]))
    phases = np.array([-1, -0.5, 0, 0.25, 0.5, 2.75], dtype=np.float32)
    np.testing.assert_array_equal(wave(phases), np.float32([0, 1, 0, 0.5, 1, 0.5]))
    x = np.array([3.0], dtype=np.float32)
    np.testing.assert_allclose(ellipse(x, x, 3.0, 1.5), 5.0)


def test_noise_depends_on_seed_and_lattice_only() -> None:
    seeds = np.array([1, 2, 3], dtype=np.uint32)
    fields = noise(seeds, 5, 60, 30)
    assert fields.shape == (3, 60, 30)
    assert fields.dtype == np.float32
    assert np.abs(fields).max() <= 1
    np.testing.assert_array_equal(noise(seeds[1:2], 5, 60, 30), fields[1:2])
    averaged = 0.5 * (fields[:, ::2] + fields[:, 1::2])
    np.testing.assert_allclose(noise(seeds, 5, 30, 30), averaged, atol=0.02)
    assert np.abs(np.corrcoef(fields.reshape(3, -1)) - np.eye(3)).max() < 0.6


def test_noise_has_the_variance_of_its_spline() -> None:
    # Even lattice values have variance 1/3; a cubic B-spline keeps 151/315 of it a dimension.
    fields = noise(np.arange(3000, dtype=np.uint32), 8, 32, 32)
    np.testing.assert_allclose(fields.var(axis=0).mean(), (151 / 315) ** 2 / 3, rtol=0.03)
    np.testing.assert_allclose(fields.mean(), 0, atol=0.01)
