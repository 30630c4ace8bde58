"""Changes of images: exactly what was asked for, by draws that follow from position alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lungan.config import AugmentConfig, presets
from lungan.config.training import AdaptiveConfig, DiffAugmentConfig
from lungan.training.augment import (
    adjusted,
    augmented,
    cut_out,
    initial_probability,
    translated,
)
from lungan.training.randomness import uniforms

CPU = torch.device("cpu")
ALWAYS = torch.ones(())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def config(name: str = "diffaugment", **values: float) -> DiffAugmentConfig:
    """Only these changes."""
    chosen: DiffAugmentConfig = presets.load("augment", name)
    for key in ("brightness", "contrast", "saturation", "translation", "cutout"):
        setattr(chosen, key, values.get(key, 0.0))
    return chosen


def changes_of(config: AugmentConfig, seed: int) -> Callable[..., Tensor]:
    """As a step makes them: (images, probability, step, update, part) to changed images."""

    def changes(images: Tensor, probability: Tensor, *index: int) -> Tensor:
        return augmented(
            config,
            images,
            probability,
            lambda *shape: uniforms(seed, "augment", index, shape, CPU),
        )

    return changes


def test_translation_moves_pixels_and_fills_with_zero() -> None:
    image = torch.arange(1.0, 10).view(1, 1, 3, 3)
    moved = translated(image.repeat(3, 1, 1, 1), torch.tensor([1, 0, -2]), torch.tensor([0, -1, 1]))
    assert moved[0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert moved[1, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    assert moved[2, 0].tolist() == [[0, 7, 8], [0, 0, 0], [0, 0, 0]]


def test_gradient_of_a_translation_is_the_translation_back(images: Tensor) -> None:
    images.requires_grad_()
    rows, columns = torch.tensor([3, -3, 0, 1, 2, -1]), torch.tensor([-2, 0, 4, 1, -4, 2])
    upstream = torch.randn_like(images)
    (gradient,) = torch.autograd.grad(translated(images, rows, columns), images, upstream)
    torch.testing.assert_close(gradient, translated(upstream, -rows, -columns), rtol=0, atol=0)


def test_cutout_is_a_square_and_may_stick_out() -> None:
    cut = cut_out(
        torch.ones(3, 1, 4, 4), torch.tensor([1, -1, 0]), torch.tensor([2, -1, 0]),
        torch.tensor([2, 2, 0]),
    )  # fmt: skip
    assert cut[0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert cut[1, 0].sum() == 15
    assert cut[1, 0, 0, 0] == 0
    assert cut[2].sum() == 16


def test_colours_change_what_they_should(images: Tensor) -> None:
    factors = torch.linspace(0, 2, 6)
    above_all = torch.tensor(2.0)  # a draw of 1 too

    def changed(**values: float) -> Tensor:
        """By draws that rise from 0 for the first image to 1 for the last."""
        return augmented(
            config(**values), images, above_all, lambda rows, _: (factors / 2).expand(rows, -1)
        )

    torch.testing.assert_close(changed(brightness=2.0)[5], images[5] + 2)
    contrast = changed(contrast=1.0)
    torch.testing.assert_close(contrast.mean((1, 2, 3)), images.mean((1, 2, 3)))
    torch.testing.assert_close(contrast.std((1, 2, 3)), images.std((1, 2, 3)) * factors)
    saturation = changed(saturation=1.0)
    torch.testing.assert_close(saturation.mean(1), images.mean(1))
    assert float(saturation[0].std(0).max()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [28, 64])
def test_published_ranges_are_reached_and_kept(size: int) -> None:
    changes = changes_of(config(translation=0.125), 0)
    image = torch.zeros(400, 1, size, size)
    image[:, :, size // 2, size // 2] = 1
    places = changes(image, ALWAYS, 0, 0, 0).flatten(1).argmax(1)
    longest = round(size / 8)
    for shifts in (places // size - size // 2, places % size - size // 2):
        assert shifts.unique().tolist() == list(range(-longest, longest + 1))

    changes = changes_of(config(cutout=0.5), 0)
    cut = (changes(torch.ones(400, 1, size, size), ALWAYS, 0, 0, 0) == 0).sum((1, 2, 3))
    assert cut.max() == (size // 2) ** 2
    assert cut.min() >= (size // 4) ** 2

    changes = changes_of(config(brightness=0.5), 0)
    added = changes(torch.zeros(400, 1, size, size), ALWAYS, 0, 0, 0)[:, 0, 0, 0]
    assert -0.5 <= added.min() < -0.48
    assert 0.48 < added.max() <= 0.5


def test_draws_follow_from_position_alone(images: Tensor) -> None:
    changes = changes_of(presets.load("augment", "diffaugment"), 3)
    first = changes(images, ALWAYS, 5, 1, 0)
    changes(images, ALWAYS, 4, 0, 0)
    assert torch.equal(first, changes(images, ALWAYS, 5, 1, 0))
    others = [(6, 1, 0), (5, 2, 0), (5, 1, 1)]
    assert all(not torch.equal(first, changes(images, ALWAYS, *other)) for other in others)
    other_seed = changes_of(presets.load("augment", "diffaugment"), 4)
    assert not torch.equal(first, other_seed(images, ALWAYS, 5, 1, 0))


def test_probability_is_of_each_change_of_each_image() -> None:
    images = torch.ones(2000, 1, 8, 8)
    changes = changes_of(config(brightness=0.5), 0)
    changed = (changes(images, torch.tensor(0.3), 0, 0, 0) != 1).all((1, 2, 3))
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(changes(images, torch.zeros(()), 0, 0, 0), images)


def test_no_augmentation_gives_the_same_tensor(images: Tensor) -> None:
    images = images.bfloat16()
    assert changes_of(presets.load("augment", "none"), 0)(images, ALWAYS, 0, 0, 0) is images


def test_grey_images_have_no_saturation() -> None:
    images = torch.rand(4, 1, 8, 8)
    changes = changes_of(config(saturation=1.0), 0)
    torch.testing.assert_close(changes(images, ALWAYS, 0, 0, 0), images)


def test_probability_follows_overfitting() -> None:
    adaptive = config("adaptive", cutout=0.5)
    assert isinstance(adaptive, AdaptiveConfig)
    adaptive.target, adaptive.adjust_images = 0.6, 1000
    start = initial_probability(adaptive, CPU)
    assert float(start) == 0
    risen = adjusted(start, adaptive, torch.tensor(0.9), 64)
    assert float(risen) == pytest.approx(0.064)
    fallen = adjusted(risen, adaptive, torch.tensor(0.1), 40)
    assert float(fallen) == pytest.approx(0.024)
    assert float(adjusted(fallen, adaptive, torch.tensor(-1.0), 64)) == 0
    assert float(adjusted(torch.tensor(0.99), adaptive, torch.tensor(1.0), 64)) == 1
    fixed = config(cutout=0.5)
    assert float(initial_probability(fixed, CPU)) == 1
    assert float(adjusted(torch.ones(()), fixed, torch.tensor(-1.0), 64)) == 1
