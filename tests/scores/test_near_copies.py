"""The pixel audit finds copies behind brightness, blur, noise and movement, and no others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from lungan.config import presets
from lungan.data.images import ImageSet
from lungan.scores.evaluate import score_images
from lungan.scores.memorization import limit_of, share_near
from lungan.scores.near_copies import VIEWS, PixelAudit, View


def draw(count: int, seed: int, size: int = 28, channels: int = 1) -> np.ndarray:
    """Films that are alike as films are: one anatomy, with soft differences and fine ones."""
    rng = np.random.default_rng(seed)
    shape = (count, channels, size, size)
    soft = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0, size / 8, size / 8))
    middle = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0, size / 16, size / 16))
    fine = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0, size / 28, size / 28))
    rows, columns = np.mgrid[:size, :size] / size
    anatomy = 60 * np.exp(-((columns - 0.3) ** 2 + (rows - 0.5) ** 2) / 0.05)
    parts = [40 * one / one.std() for one in (soft, middle, fine * 0.5)]
    return (100 + anatomy + sum(parts)).clip(0, 255).astype(np.uint8)


def disguise(images: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    floats = images.astype(float)
    unit = images.shape[-1] / 28
    turned = ndimage.rotate(floats, 5, axes=(3, 2), reshape=False, order=1, mode="nearest")
    crop = round(unit)
    zoom = images.shape[-1] / (images.shape[-1] - 2 * crop)
    cropped = ndimage.zoom(floats[..., crop:-crop, crop:-crop], (1, 1, zoom, zoom), order=1)
    changed = {
        "copied": floats,
        "brighter": floats + 15,
        "more contrast": (floats - 128) * 1.15 + 128,
        "blurred": ndimage.gaussian_filter(floats, (0, 0, unit, unit)),
        "mirrored": floats[..., ::-1],
        "shifted": np.roll(floats, round(unit), 3),
        "turned": turned,
        "cropped": cropped,
        "noisy": floats + rng.normal(0, 10, floats.shape),
        "mirrored, brighter and noisy": floats[..., ::-1] + 10 + rng.normal(0, 5, floats.shape),
    }
    return {name: np.rint(one).clip(0, 255).astype(np.uint8) for name, one in changed.items()}


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 1), (28, 3)])
def test_disguised_copies_are_found_and_unseen_images_are_not(size: int, channels: int) -> None:
    training = draw(300, 0, size, channels)
    audit = PixelAudit(training)
    held_out, _ = audit.nearest(draw(300, 1, size, channels))
    unseen, _ = audit.nearest(draw(300, 2, size, channels))
    assert share_near(unseen, held_out) < 0.04
    for name, images in disguise(training[:40]).items():
        distance, index = audit.nearest(images)
        found = distance < limit_of(held_out)
        assert found.mean() >= 0.9, name
        assert (index[found] == np.arange(40)[found]).mean() > 0.9, name


def test_five_of_a_hundred_near_copies_stand_out() -> None:
    """Through the whole scoring: 5 % of disguised copies among unseen images leave the floor."""
    config = presets.load("score", "standard")
    config = dataclasses.replace(config, encoders=[], floor_splits=100)
    training, held_out, unseen = draw(800, 0), draw(400, 1), draw(400, 2)
    images = ImageSet(
        images=np.concatenate([training, held_out]),
        labels=np.zeros(1200, np.int64),
        splits=np.repeat([0, 1], [800, 400]),
        class_names=("film",),
        split_names=("train", "test"),
        source="noise",
    )

    def share(generated: np.ndarray) -> tuple[float, float]:
        result = score_images(
            generated, images, splits=["train"], classes=[], config=config, encoders=[]
        )["values"]
        return result["pixels.near_copies"], result["pixels.near_copies.floor_high"]

    value, high = share(unseen)
    assert value <= high
    for name, copies in disguise(training[:20]).items():
        value, high = share(np.concatenate([unseen[:380], copies]))
        assert value > high, name


def test_views_are_counted_and_undone() -> None:
    assert len(set(VIEWS)) == len(VIEWS) == 66
    assert View() in VIEWS
    training = draw(50, 0)
    distance, index = PixelAudit(training).nearest(training)
    np.testing.assert_allclose(distance, 0, atol=1e-5)
    np.testing.assert_array_equal(index, np.arange(50))


def test_images_without_contrast_resemble_nothing() -> None:
    training = draw(50, 0)
    flat = np.full((3, 1, 28, 28), 77, dtype=np.uint8)
    distance, _ = PixelAudit(training).nearest(flat)
    np.testing.assert_array_equal(distance, 1)
    of_flat, _ = PixelAudit(np.concatenate([flat, flat + 1])).nearest(training)
    np.testing.assert_array_equal(of_flat, 1)


def test_the_order_and_number_of_images_change_nothing() -> None:
    training, images = draw(40, 0), draw(300, 1)
    audit = PixelAudit(training)
    whole, index = audit.nearest(images)
    part, part_index = audit.nearest(images[::-1][:30])
    np.testing.assert_allclose(part, whole[::-1][:30], atol=1e-5)
    np.testing.assert_array_equal(part_index, index[::-1][:30])
