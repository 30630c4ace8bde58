"""One training step on one batch: both networks' updates, in one of two forms."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lungan.config import RunConfig
from lungan.training.losses import AdversarialLoss, build_loss
from lungan.training.outcome import StepOutcome
from lungan.training.randomness import DropoutBits, latents
from lungan.training.state import TrainingState

__all__ = ["StepOutcome", "build_step"]

SMALLEST_UPSTREAM = 2.0**-80
"""Smallest logit gradient, relative to a batch mean's 1/N, that is sent back through the
discriminator: its square is zero in float32, so no optimizer can see it, and the image gradient
that it leads to is still far from underflow."""


def build_step(
    config: RunConfig, state: TrainingState, precision: str
) -> Callable[[Tensor], StepOutcome]:
    """A function of one batch of real images (N, C, H, W) uint8 on the training device.

    Each call updates the networks, their optimizers and ``state.step`` and waits for no device.
    precision: ``fp32``, or ``bf16`` for autocast: weights, statistics, losses stay in float32.

    Raises: ConfigError for an unknown loss.
    """
    if config.loss.update == "simultaneous":
        return SimultaneousStep(config, state, precision)
    return AlternatingStep(config, state, precision)


class _Step:
    def __init__(self, config: RunConfig, state: TrainingState, precision: str) -> None:
        self.seed = config.seed
        self.state = state
        self.loss: AdversarialLoss = build_loss(config.loss)
        self.discriminator_updates = config.loss.discriminator_updates
        self.latent_dim = config.generator.latent_dim
        self.device = next(state.generator.parameters()).device
        self.bf16 = precision == "bf16"

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def latents(self, count: int, update: int) -> Tensor:
        return latents(self.seed, self.state.step, count, self.latent_dim, self.device, update)

    def bits(self, update: int) -> DropoutBits:
        return DropoutBits(self.seed, self.state.step, update, self.device)

    def logits(self, images: Tensor, update: int) -> Tensor:
        with self.autocast():
            logits: Tensor = self.state.discriminator(images, self.bits(update))
        return logits.float()


class SimultaneousStep(_Step):
    """One generator forward; both gradients from it and from the same discriminator forward."""

    def __call__(self, images: Tensor) -> StepOutcome:
        state = self.state
        with self.autocast():
            fake = state.generator(self.latents(len(images), 0))
        fake_leaf = fake.detach().requires_grad_()
        logits = self.logits(torch.cat([to_floats(images, fake.dtype), fake_leaf]), 0)

        logits_leaf = logits.detach().requires_grad_()
        real_logits, fake_logits = logits_leaf.chunk(2)
        loss_discriminator = self.loss.discriminator(real_logits, fake_logits)
        loss_generator = self.loss.generator(fake_logits)
        upstream, ratio = split_upstream(loss_discriminator, loss_generator, logits_leaf)
        torch.autograd.backward(logits, upstream)
        assert fake_leaf.grad is not None
        gradient = fake_leaf.grad.float() * ratio[len(images) :, None, None, None]
        torch.autograd.backward(fake, gradient.to(fake.dtype))

        outcome = StepOutcome(
            loss_generator=loss_generator.detach(),
            loss_discriminator=loss_discriminator.detach(),
            logit_real=real_logits.detach().mean(),
            logit_fake=fake_logits.detach().mean(),
            grad_norm_generator=update(state.generator, state.generator_optimizer),
            grad_norm_discriminator=update(state.discriminator, state.discriminator_optimizer),
        )
        state.step += 1
        return outcome


class AlternatingStep(_Step):
    """The discriminator's updates, then the generator's, each with fresh latents and masks."""

    def __call__(self, images: Tensor) -> StepOutcome:
        state = self.state
        for number in range(self.discriminator_updates):
            with torch.no_grad(), self.autocast():
                fake = state.generator(self.latents(len(images), number))
            logits = self.logits(torch.cat([to_floats(images, fake.dtype), fake]), number)
            real_logits, fake_logits = logits.chunk(2)
            loss_discriminator = self.loss.discriminator(real_logits, fake_logits)
            torch.autograd.backward(loss_discriminator)
            norm_discriminator = update(state.discriminator, state.discriminator_optimizer)

        number = self.discriminator_updates
        with self.autocast():
            fake = state.generator(self.latents(len(images), number))
        state.discriminator.requires_grad_(False)
        loss_generator = self.loss.generator(self.logits(fake, number))
        torch.autograd.backward(loss_generator)
        state.discriminator.requires_grad_(True)
        norm_generator = update(state.generator, state.generator_optimizer)
        state.step += 1
        return StepOutcome(
            loss_generator=loss_generator.detach(),
            loss_discriminator=loss_discriminator.detach(),
            logit_real=real_logits.detach().mean(),
            logit_fake=fake_logits.detach().mean(),
            grad_norm_generator=norm_generator,
            grad_norm_discriminator=norm_discriminator,
        )


def split_upstream(
    loss_discriminator: Tensor, loss_generator: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """What to send back through the discriminator, and what turns its image gradients into the
    generator loss's: (upstream, ratio), both like ``logits``.

    The discriminator treats images one by one, so a gradient with respect to an image is linear
    in that image's logit gradient: one backward pass serves both losses.
    """
    (upstream,) = torch.autograd.grad(loss_discriminator, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(loss_generator, logits)
    smallest = SMALLEST_UPSTREAM / len(logits)
    upstream = torch.where(upstream.abs() < smallest, smallest, upstream)
    return upstream, wanted / upstream


def to_floats(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 to [-1, 1]."""
    return (images.float() / 127.5 - 1).to(dtype)


def update(network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """Update by the gradients, clear them, and give their Euclidean norm."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
