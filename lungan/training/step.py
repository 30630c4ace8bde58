"""One training step on one batch: both networks' updates, in one of two forms."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lungan.config import RunConfig
from lungan.training.augment import Augmentation, adjusted
from lungan.training.losses import AdversarialLoss, build_loss
from lungan.training.memory import keep_freed_memory
from lungan.training.outcome import Step, StepOutcome
from lungan.training.randomness import DropoutBits, latents, uniforms
from lungan.training.regularizers import (
    gradient_penalties,
    has_gradient_penalty,
    lecam_penalty,
    running_means,
)
from lungan.training.state import TrainingState

__all__ = ["StepOutcome", "build_step"]

SMALLEST_UPSTREAM = 2.0**-80
"""Smallest logit gradient, relative to a batch mean's 1/N, that is sent back through the
discriminator: its square is zero in float32, so no optimizer can see it, and the image gradient
that it leads to is still far from underflow."""


def build_step(config: RunConfig, state: TrainingState, precision: str) -> Step:
    """A function of one batch of real images (N, C, H, W) uint8 on the training device, and of
    their labels (N,) int64 where the generator is conditional: fake images get the same classes.

    Each call updates the networks, their optimizers and ``state.step`` and waits for no device.
    precision: ``fp32``, or ``bf16`` for autocast: weights, statistics, losses stay in float32.

    On a CPU the process keeps from now on what memory it frees.

    Raises: ConfigError for an unknown loss.
    """
    if state.epoch_totals.device.type == "cpu":
        keep_freed_memory()
    if config.loss.update == "simultaneous":
        return SimultaneousStep(config, state, precision)
    return AlternatingStep(config, state, precision)


class _Step:
    def __init__(self, config: RunConfig, state: TrainingState, precision: str) -> None:
        self.seed = config.seed
        self.state = state
        self.config = config
        self.loss: AdversarialLoss = build_loss(config.loss)
        self.augmentation = Augmentation(config.augment, config.seed)
        self.latent_dim = config.generator.latent_dim
        self.device = next(state.generator.parameters()).device
        self.bf16 = precision == "bf16"

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def latents(self, count: int, update: int) -> Tensor:
        return latents(self.seed, self.state.step, count, self.latent_dim, self.device, update)

    def augmented(self, images: Tensor, update: int, part: int = 0) -> Tensor:
        probability = self.state.augment_probability
        return self.augmentation(images, probability, self.state.step, update, part)

    def logits(self, images: Tensor, labels: Tensor | None, draw: int) -> Tensor:
        """draw: which of the step's dropout masks."""
        bits = DropoutBits(self.seed, self.state.step, draw, self.device)
        with self.autocast():
            logits: Tensor = self.state.discriminator(images, bits, labels)
        return logits.float()

    def lecam(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """LeCam's penalty, weighted; zero without it."""
        config, state = self.config.loss, self.state
        if not config.lecam:
            return torch.zeros((), device=self.device)
        state.logit_means = running_means(
            state.logit_means, real_logits, fake_logits, config.lecam_decay, state.step
        )
        return config.lecam * lecam_penalty(real_logits, fake_logits, state.logit_means)

    def penalize(
        self, images: Tensor, labels: Tensor | None, update: int, part: int, share: float
    ) -> Tensor:
        """Add the gradient penalties at images (2N, C, H, W), real and fake, to the gradients."""
        if not has_gradient_penalty(self.config.loss, self.state.step):
            return torch.zeros((), device=self.device)

        def logits_of(images: Tensor) -> Tensor:
            times = 0 if labels is None else len(images) // len(labels)
            with self.autocast():
                logits: Tensor = self.state.discriminator(  # without dropout
                    images, None, None if labels is None else labels.repeat(times)
                )
            return logits.float()

        real, fake = images.detach().float().chunk(2)
        mixing = uniforms(
            self.seed, "mixing", (self.state.step, update, part), (len(real),), self.device
        )
        penalty = gradient_penalties(self.config.loss, logits_of, real, fake, mixing)
        torch.autograd.backward(penalty * share)
        return penalty.detach()

    def adjust(self, overfitting: Tensor, num_images: int) -> None:
        """How often images are changed, after what the discriminator told."""
        state = self.state
        state.augment_probability = adjusted(
            state.augment_probability, self.config.augment, overfitting, num_images
        )


class SimultaneousStep(_Step):
    """One generator forward; both gradients from it and from the same discriminator forward."""

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> StepOutcome:
        state = self.state
        with self.autocast():
            fake = state.generator(self.latents(len(images), 0), labels)
        fake_leaf = fake.detach().requires_grad_()
        seen = self.augmented(torch.cat([to_floats(images, fake.dtype), fake_leaf]), 0)
        logits = self.logits(seen, _twice(labels), 0)

        logits_leaf = logits.detach().requires_grad_()
        real_logits, fake_logits = logits_leaf.chunk(2)
        loss_discriminator = self.loss.discriminator(real_logits, fake_logits)
        loss_generator = self.loss.of_generator(real_logits, fake_logits)
        penalty = self.lecam(real_logits, fake_logits)
        upstream, ratio = split_upstream(loss_discriminator + penalty, loss_generator, logits_leaf)
        torch.autograd.backward(logits, upstream)
        assert fake_leaf.grad is not None
        gradient = fake_leaf.grad.float() * ratio[len(images) :, None, None, None]
        torch.autograd.backward(fake, gradient.to(fake.dtype))
        penalty = penalty.detach() + self.penalize(seen, labels, 0, 0, 1.0)

        overfitting = self.loss.overfitting(real_logits, fake_logits)
        outcome = StepOutcome(
            loss_generator=loss_generator.detach(),
            loss_discriminator=loss_discriminator.detach(),
            logit_real=real_logits.detach().mean(),
            logit_fake=fake_logits.detach().mean(),
            overfitting=overfitting,
            penalty=penalty,
            grad_norm_generator=update(state.generator, state.generator_optimizer),
            grad_norm_discriminator=update(state.discriminator, state.discriminator_optimizer),
        )
        self.adjust(overfitting, len(images))
        state.step += 1
        return outcome


class AlternatingStep(_Step):
    """The discriminator's updates, then the generator's, each with fresh latents and masks.

    Each update sums the gradients of a batch's parts (``loss.micro_batches``).
    """

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> StepOutcome:
        state = self.state
        updates = self.config.loss.discriminator_updates
        for number in range(updates):
            told = torch.zeros(5, device=self.device)
            for part in self.parts(images, labels, number):
                told += part.share * torch.stack(self.judge(part))
            norm_discriminator = update(state.discriminator, state.discriminator_optimizer)

        loss_generator = torch.zeros((), device=self.device)
        state.discriminator.requires_grad_(False)
        for part in self.parts(images, labels, updates):
            loss_generator += part.share * self.generate(part)
        state.discriminator.requires_grad_(True)
        norm_generator = update(state.generator, state.generator_optimizer)

        loss_discriminator, logit_real, logit_fake, overfitting, penalty = told
        self.adjust(overfitting, len(images))
        state.step += 1
        return StepOutcome(
            loss_generator=loss_generator,
            loss_discriminator=loss_discriminator,
            logit_real=logit_real,
            logit_fake=logit_fake,
            overfitting=overfitting,
            penalty=penalty,
            grad_norm_generator=norm_generator,
            grad_norm_discriminator=norm_discriminator,
        )

    def parts(self, images: Tensor, labels: Tensor | None, number: int) -> list[_Part]:
        """What update ``number`` of the step works on, one after the other."""
        count = self.config.loss.micro_batches
        chunks = images.chunk(count)
        all_labels: Sequence[Tensor | None] = [None] * len(chunks)
        if labels is not None:
            all_labels = labels.chunk(count)
        all_latents = self.latents(len(images), number).chunk(count)
        return [
            _Part(number, index, len(chunk) / len(images), chunk, chunk_labels, chunk_latents)
            for index, (chunk, chunk_labels, chunk_latents) in enumerate(
                zip(chunks, all_labels, all_latents, strict=True)
            )
        ]

    def judge(self, part: _Part) -> list[Tensor]:
        """The discriminator's gradients on one part, added to what it has; scalars for the log."""
        with torch.no_grad(), self.autocast():
            fake = self.state.generator(part.latents, part.labels)
        seen = torch.cat([to_floats(part.images, fake.dtype), fake])
        seen = self.augmented(seen, part.update, part.index)
        logits = self.logits(seen, _twice(part.labels), self.draw(part))
        real_logits, fake_logits = logits.chunk(2)
        loss = self.loss.discriminator(real_logits, fake_logits)
        lecam = self.lecam(real_logits, fake_logits)
        torch.autograd.backward((loss + lecam) * part.share)
        penalty = self.penalize(seen, part.labels, part.update, part.index, part.share)
        return [
            loss.detach(),
            real_logits.detach().mean(),
            fake_logits.detach().mean(),
            self.loss.overfitting(real_logits, fake_logits),
            lecam.detach() + penalty,
        ]

    def generate(self, part: _Part) -> Tensor:
        """The generator's gradients on one part, added to what it has, and its loss."""
        with self.autocast():
            fake = self.state.generator(part.latents, part.labels)
        if self.loss.relativistic:
            both = torch.cat([to_floats(part.images, fake.dtype), fake])
            real, fake = self.augmented(both, part.update, part.index).chunk(2)
            with torch.no_grad():
                real_logits = self.logits(real, part.labels, self.draw(part))
        else:
            fake = self.augmented(fake, part.update, part.index)
            real_logits = torch.zeros((), device=self.device)
        fake_logits = self.logits(fake, part.labels, self.draw(part))
        loss = self.loss.of_generator(real_logits, fake_logits)
        torch.autograd.backward(loss * part.share)
        return loss.detach()

    def draw(self, part: _Part) -> int:
        return part.update * self.config.loss.micro_batches + part.index


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a batch: its ``share`` of the images, and where its random numbers come from."""

    update: int
    index: int
    share: float
    images: Tensor
    labels: Tensor | None
    latents: Tensor


def _twice(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else torch.cat([labels, labels])


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


def to_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 to [-1, 1]."""
    return (images.float() / 127.5 - 1).to(dtype)


def update(network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """Update by the gradients, clear them, and give their Euclidean norm."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
