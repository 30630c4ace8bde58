"""One training step on one batch: both networks' updates, in one of two forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lungan.config import RunConfig
from lungan.models.pixels import to_floats
from lungan.training.memory import keep_freed_memory
from lungan.training.outcome import Step, StepOutcome
from lungan.training.state import TrainingState
from lungan.training.stepping import Stepping, gradient_norm, twice, update

__all__ = ["StepOutcome", "build_step"]

SMALLEST_UPSTREAM = 2.0**-80
"""Smallest logit gradient, relative to a batch mean's 1/N, that is sent back through the
discriminator: its square is zero in float32, so no optimizer can see it, and the image gradient
that it leads to is still far from underflow."""


def build_step(
    config: RunConfig, state: TrainingState, precision: str, *, graphs: bool = True
) -> Step:
    """A function of one batch of real images (N, C, H, W) uint8 on the training device, and of
    their labels (N,) int64 where the generator is conditional: fake images get the same classes.

    Each call updates the networks, their optimizers and ``state.step`` and waits for no device.
    precision: ``fp32``, or ``bf16`` for autocast: weights, statistics, losses stay in float32.

    On a CPU the process keeps from now on what memory it frees.

    graphs: on a CUDA device, record the work up to the optimizers as CUDA graphs. The state's
    tensors then have to stay where they are.

    Raises: ConfigError for an unknown loss.
    """
    if state.epoch_totals.device.type == "cpu":
        keep_freed_memory()
    form = SimultaneousStep if config.loss.update == "simultaneous" else AlternatingStep
    return form(config, state, precision, graphs=graphs)


class SimultaneousStep(Stepping):
    """One generator forward; both gradients from it and from the same discriminator forward."""

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> StepOutcome:
        state = self.state
        told = self.perform("both", self.gradients, images, labels)
        update(state.generator, state.generator_optimizer)
        update(state.discriminator, state.discriminator_optimizer)
        outcome = StepOutcome.of(told)
        self.adjust(outcome.overfitting, len(images))
        state.step += 1
        return outcome

    def gradients(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Of both networks, left with their weights. Gives a StepOutcome's (8,)."""
        state = self.state
        with self.autocast():
            fake = state.generator(self.latents(len(images), 0), labels)
        fake_leaf = fake.detach().requires_grad_()
        seen = self.augmented(torch.cat([to_floats(images, fake.dtype), fake_leaf]), 0)
        logits = self.logits(seen, twice(labels), 0)

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

        return StepOutcome(
            loss_generator=loss_generator.detach(),
            loss_discriminator=loss_discriminator.detach(),
            logit_real=real_logits.detach().mean(),
            logit_fake=fake_logits.detach().mean(),
            overfitting=self.loss.overfitting(real_logits, fake_logits),
            penalty=penalty,
            grad_norm_generator=gradient_norm(state.generator),
            grad_norm_discriminator=gradient_norm(state.discriminator),
        ).stacked()


class AlternatingStep(Stepping):
    """The discriminator's updates, then the generator's, each with fresh latents and masks.

    Each update sums the gradients of a batch's parts (``loss.micro_batches``).
    """

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> StepOutcome:
        state = self.state
        updates = self.config.loss.discriminator_updates
        for number in range(updates):
            judging = partial(self.judging, number)
            judged = self.perform(("discriminator", number), judging, images, labels)
            update(state.discriminator, state.discriminator_optimizer)
        generating = partial(self.generating, updates)
        loss_generator, norm_generator = self.perform("generator", generating, images, labels)
        update(state.generator, state.generator_optimizer)

        loss_discriminator, logit_real, logit_fake, overfitting, penalty, norm = judged
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
            grad_norm_discriminator=norm,
        )

    def judging(self, number: int, images: Tensor, labels: Tensor | None) -> Tensor:
        """The discriminator's gradients for update ``number`` of the step, left with its weights;
        scalars for the log."""
        told = torch.zeros(5, device=self.device)
        for part in self.parts(images, labels, number):
            told += part.share * torch.stack(self.judge(part))
        return torch.cat([told, gradient_norm(self.state.discriminator)[None]])

    def generating(self, number: int, images: Tensor, labels: Tensor | None) -> Tensor:
        """The generator's gradients, left with its weights, its loss and their norm."""
        loss = torch.zeros((), device=self.device)
        self.state.discriminator.requires_grad_(False)
        try:
            for part in self.parts(images, labels, number):
                loss += part.share * self.generate(part)
        finally:
            self.state.discriminator.requires_grad_(True)
        return torch.stack([loss, gradient_norm(self.state.generator)])

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
        logits = self.logits(seen, twice(part.labels), self.draw(part))
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
