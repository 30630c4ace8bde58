"""Penalties against closed forms, and their gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lungan.config import LossConfig, presets
from lungan.models.build import build_discriminator
from lungan.training.losses import (
    gradient_penalties,
    has_gradient_penalty,
    lecam_penalty,
    one_centered_penalty,
    running_means,
    share_of_batch,
    zero_centered_penalty,
)


def loss_config(**values: float) -> LossConfig:
    config: LossConfig = presets.load("loss", "bce")
    for name, value in values.items():
        setattr(config, name, value)
    return config


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()


def test_r1_of_a_linear_discriminator_is_half_its_squared_weight(images: Tensor) -> None:
    weight = torch.linspace(-1, 1, 16, dtype=torch.float64, requires_grad=True)
    penalty = zero_centered_penalty(lambda x: x.flatten(1) @ weight, images)
    torch.testing.assert_close(penalty, weight.square().sum() / 2)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, weight.detach())


def test_r1_of_a_quadratic_discriminator(images: Tensor) -> None:
    """D(x) = a |x|^2 / 2 has gradient a x: the penalty is a^2 / 2 times the mean of |x|^2."""
    factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    penalty = zero_centered_penalty(lambda x: factor / 2 * x.square().sum((1, 2, 3)), images)
    mean_square = images.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(penalty, factor**2 / 2 * mean_square)
    (gradient,) = torch.autograd.grad(penalty, factor)
    torch.testing.assert_close(gradient, (factor * mean_square).detach())


def test_one_centered_penalty_is_taken_between_the_images(images: Tensor) -> None:
    """|x|^2 / 2 has gradient x, so the penalty says where it was taken."""
    real, fake = torch.full_like(images, 2.0), torch.zeros_like(images)
    mixing = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    penalty = one_centered_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, real, fake, mixing)
    # The length of a 4x4 image of 2m is 8m.
    wanted = (8 * mixing - 1).square()
    torch.testing.assert_close(penalty, wanted.mean(), rtol=0, atol=1e-5)


def test_one_centered_penalty_of_a_unit_slope_is_zero(images: Tensor) -> None:
    weight = torch.full((16,), 0.25, dtype=torch.float64)
    penalty = one_centered_penalty(
        lambda x: x.flatten(1) @ weight, images, -images, torch.rand(5).double()
    )
    assert float(penalty) == pytest.approx(0, abs=1e-12)


def test_a_flat_discriminator_has_finite_gradients(images: Tensor) -> None:
    weight = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    penalty = one_centered_penalty(
        lambda x: x.flatten(1) @ weight, images, -images, torch.rand(5).double()
    )
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["dcgan", "fastgan", "resnet"])
def test_gradient_of_r1_through_the_networks_is_the_finite_difference(name: str) -> None:
    config = presets.load("discriminator", name)
    config.width = 8
    config.spectral_norm = True
    network = build_discriminator(config, 28, 1).double().eval()
    rng = torch.Generator().manual_seed(1)
    images = torch.randn(3, 1, 28, 28, generator=rng).double()
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(
        zero_centered_penalty(network, images), parameters, materialize_grads=True
    )
    directions = [torch.randn(p.shape, generator=rng).double() for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def penalty_at(distance: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += distance * direction
        value = zero_centered_penalty(network, images).item()
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= distance * direction
        return value

    step = 1e-7
    difference = (penalty_at(step) - penalty_at(-step)) / (2 * step)
    assert difference == pytest.approx(slope, rel=1e-3)


def test_penalties_add_up_with_their_weights(images: Tensor) -> None:
    weight = torch.full((16,), 0.5, dtype=torch.float64)  # of length 2
    config = loss_config(r1=0.3, r2=0.2, gradient_penalty=10.0, penalty_every_steps=4)
    total = gradient_penalties(
        config, lambda x: x.flatten(1) @ weight, images, -images, torch.rand(5).double()
    )
    assert float(total) == pytest.approx(4 * (0.3 * 2 + 0.2 * 2 + 10 * 1))


def test_when_penalties_are_due() -> None:
    assert not has_gradient_penalty(loss_config(), 0)
    config = loss_config(r1=1.0, penalty_every_steps=3)
    assert [has_gradient_penalty(config, step) for step in range(5)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_lecam_by_hand() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0])
    means = torch.tensor([2.0, -0.5])
    # ((1.5)^2 + (3.5)^2) / 2 + ((-3)^2 + (-2)^2) / 2
    assert float(lecam_penalty(real, fake, means)) == pytest.approx(7.25 + 6.5)


def test_running_means_begin_as_plain_means_and_then_forget() -> None:
    means = torch.zeros(2)
    for step, level in enumerate((1.0, 2.0, 6.0)):
        share = share_of_batch(0.99, step)
        means = running_means(means, torch.full((3,), level), torch.tensor([-level]), share)
    torch.testing.assert_close(means, torch.tensor([3.0, -3.0]))
    means = running_means(
        means, torch.tensor([13.0]), torch.tensor([7.0]), share_of_batch(0.9, 1000)
    )
    torch.testing.assert_close(means, torch.tensor([4.0, -2.0]))
