from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lungan import registry
from lungan.config import LossConfig
from lungan.errors import ConfigError
from lungan.training.losses import build_loss

LOSSES = {name: build_loss(LossConfig(name=name)) for name in registry.known("loss")}
BCE = LOSSES["bce"]


def test_bce_at_zero_logits() -> None:
    zeros = torch.zeros(5)
    assert float(BCE.discriminator(zeros, zeros)) == pytest.approx(2 * math.log(2))
    assert float(BCE.generator(zeros)) == pytest.approx(math.log(2))


def test_bce_is_pytorchs_cross_entropy() -> None:
    real, fake = torch.randn(7), torch.randn(7)
    entropy = F.binary_cross_entropy_with_logits
    wanted = entropy(real, torch.ones(7)) + entropy(fake, torch.zeros(7))
    torch.testing.assert_close(BCE.discriminator(real, fake), wanted)
    torch.testing.assert_close(BCE.generator(fake), entropy(fake, torch.ones(7)))


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_bce_is_linear_far_out(logit: float) -> None:
    logits = torch.full((3,), logit)
    assert float(BCE.discriminator(logits, logits)) == 200
    assert float(BCE.generator(logits)) == max(-logit, 0)


def test_unknown_loss_is_refused() -> None:
    config = LossConfig(name="hinges", update="alternating", discriminator_updates=1)
    with pytest.raises(ConfigError, match=r"loss\.name must be one of .*bce.*, got hinges"):
        build_loss(config)


REAL = torch.tensor([3.0, 0.5, -1.0])
FAKE = torch.tensor([-2.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # hinge: (0 + .5 + 2) / 3 + (0 + 1 + 2) / 3; minus the mean fake logit
        ("hinge", 5.5 / 3, 1 / 3),
        # lsgan: half of (4 + .25 + 4) / 3 + (1 + 1 + 4) / 3; half the mean square
        ("lsgan", 14.25 / 6, 5 / 6),
        ("wgan_gp", -1 / 3 - 2.5 / 3, 1 / 3),
        # leads are 5, 0.5 and -2
        ("relativistic", sum(math.log1p(math.exp(-lead)) for lead in (5, 0.5, -2)) / 3, None),
    ],
)
def test_losses_by_hand(name: str, discriminator: float, generator: float | None) -> None:
    loss = LOSSES[name]
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx(discriminator, rel=1e-6)
    if generator is None:  # the generator of pairs wants the opposite order
        generator = sum(math.log1p(math.exp(lead)) for lead in (5, 0.5, -2)) / 3
    assert float(loss.of_generator(REAL, FAKE)) == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize("name", list(LOSSES))
def test_each_side_pulls_its_own_way(name: str) -> None:
    """Raising a real logit or lowering a fake one helps the discriminator, raising a fake one the
    generator: at undecided logits."""
    real, fake = torch.zeros(4, requires_grad=True), torch.full((4,), -0.1, requires_grad=True)
    of_real, of_fake = torch.autograd.grad(LOSSES[name].discriminator(real, fake), (real, fake))
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    (of_fake,) = torch.autograd.grad(LOSSES[name].of_generator(real, fake), fake)
    assert (of_fake < 0).all() or name == "lsgan"
    assert (of_fake != 0).all()


def test_relativistic_loss_knows_differences_only() -> None:
    loss = LOSSES["relativistic"]
    for shift in (-50.0, 7.0):
        moved = loss.discriminator(REAL + shift, FAKE + shift)
        torch.testing.assert_close(moved, loss.discriminator(REAL, FAKE))
        moved = loss.of_generator(REAL + shift, FAKE + shift)
        torch.testing.assert_close(moved, loss.of_generator(REAL, FAKE))


def test_overfitting_counts_verdicts() -> None:
    assert float(LOSSES["hinge"].overfitting(REAL, FAKE)) == pytest.approx(1 / 3)
    assert float(LOSSES["bce"].overfitting(REAL, FAKE)) == pytest.approx(1 / 3)
    # Without a border at zero, pairs are compared: 3 > -2, 0.5 > 0, -1 < 1.
    assert float(LOSSES["relativistic"].overfitting(REAL - 9, FAKE - 9)) == pytest.approx(1 / 3)
