"""One training step of R runs at once: the same as R single steps, in one of two forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, vmap

from lungan.config import DcganDiscriminatorConfig, DcganGeneratorConfig, DiffAugmentConfig
from lungan.models.pixels import to_floats
from lungan.training.augment import adjusted, changed
from lungan.training.losses import build_loss
from lungan.training.memory import keep_freed_memory
from lungan.training.outcome import StepOutcome
from lungan.training.regularizers import lecam_penalty, running_means, share_of_batch
from lungan.training.stacked.draws import Draws
from lungan.training.stacked.networks import StackedDiscriminator, StackedGenerator, StackedWeights
from lungan.training.stacked.optimizers import StackedOptimizer
from lungan.training.stacked.state import StackedState
from lungan.training.state import TrainingState
from lungan.training.step import split_upstream

LearningRates = Sequence[tuple[float, float]]
"""Of each run: the generator's and the discriminator's."""

StackedStep = Callable[[Tensor, LearningRates], StepOutcome]
"""One step of batches (R, N, C, H, W) uint8, a run's each; every field of the outcome is (R,)."""


def build_stacked_step(
    stack: StackedState, template: TrainingState, draws: Draws, precision: str
) -> StackedStep:
    """A function that updates all runs and waits for no device.

    template: one of the runs' own states, for the networks' structure.

    On a CPU the process keeps from now on what memory it frees.
    """
    if stack.epoch_totals.device.type == "cpu":
        keep_freed_memory()
    if stack.configs[0].loss.update == "simultaneous":
        return _Simultaneous(stack, template, draws, precision)
    return _Alternating(stack, template, draws, precision)


class _Step:
    def __init__(
        self, stack: StackedState, template: TrainingState, draws: Draws, precision: str
    ) -> None:
        shared = stack.configs[0]
        assert isinstance(shared.generator, DcganGeneratorConfig)
        assert isinstance(shared.discriminator, DcganDiscriminatorConfig)
        self.stack = stack
        self.draws = draws
        self.config = shared.loss
        self.augment = shared.augment
        self.loss = build_loss(shared.loss)
        self.generator = StackedGenerator(shared.generator, template.generator)
        self.discriminator = StackedDiscriminator(shared.discriminator, template.discriminator)
        self.device = stack.generator.flat.device
        self.bf16 = precision == "bf16"

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def fake(self, count: int, update: int) -> Tensor:
        """(count, R * C, H, W)"""
        latents = self.draws.latents(self.stack.step, count, update)
        weights = self.stack.generator
        with self.autocast():
            return self.generator(weights.parameters, weights.buffers, latents, training=True)

    def logits(self, images: Tensor, draw: int) -> Tensor:
        """Images (N, R * C, H, W) to (R, N) float32."""
        bits = self.draws.dropout_bits(self.stack.step, draw)
        with self.autocast():
            logits = self.discriminator(self.stack.discriminator.parameters, images, bits)
        return logits.float()

    def augmented(self, images: Tensor, update: int) -> Tensor:
        if not isinstance(self.augment, DiffAugmentConfig):
            return images
        num, num_runs = len(images), len(self.stack)
        draws = self.draws.augmentation(self.stack.step, update, num)
        probability = self.stack.augment_probability.repeat_interleave(num)
        each = to_batches(images, num_runs)
        flat = changed(self.augment, each.flatten(0, 1), draws, probability)
        return to_maps(flat.view(num_runs, num, *flat.shape[1:]))

    def lecam(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """LeCam's penalty (R,), weighted; zero without it."""
        config, stack = self.config, self.stack
        if not config.lecam:
            return torch.zeros(len(stack), device=self.device)
        means_of_runs = vmap(running_means, in_dims=(0, 0, 0, None))
        share = share_of_batch(config.lecam_decay, stack.step)
        stack.logit_means = means_of_runs(stack.logit_means, real_logits, fake_logits, share)
        penalties: Tensor = vmap(lecam_penalty)(real_logits, fake_logits, stack.logit_means)
        return config.lecam * penalties

    def finish(self, overfitting: Tensor, num_images: int) -> None:
        stack = self.stack
        stack.augment_probability = adjusted(
            stack.augment_probability, self.augment, overfitting, num_images
        )
        stack.step += 1


class _Simultaneous(_Step):
    """As ``training.step.SimultaneousStep``."""

    def __call__(self, images: Tensor, learning_rates: LearningRates) -> StepOutcome:
        stack, num = self.stack, images.shape[1]
        fake = self.fake(num, 0)
        fake_leaf = fake.detach().requires_grad_()
        real = to_maps(to_floats(images, fake.dtype))
        seen = self.augmented(torch.cat([real, fake_leaf]), 0)
        logits = self.logits(seen, 0)

        logits_leaf = logits.detach().requires_grad_()
        real_logits, fake_logits = logits_leaf.chunk(2, dim=1)
        loss_discriminator = vmap(self.loss.discriminator)(real_logits, fake_logits)
        loss_generator = vmap(self.loss.of_generator)(real_logits, fake_logits)
        penalty = self.lecam(real_logits, fake_logits)
        # Every run's losses depend on its own logits only, so that the gradient of the sum is
        # each run's own.
        upstream, ratio = split_upstream(
            (loss_discriminator + penalty).sum(), loss_generator.sum(), logits_leaf
        )
        *of_discriminator, of_fake = torch.autograd.grad(
            logits, [*stack.discriminator.parameters.values(), fake_leaf], upstream
        )
        per_map = ratio[:, num:].T.repeat_interleave(images.shape[2], dim=1)
        of_fake = (of_fake.float() * per_map[:, :, None, None]).to(fake.dtype)
        of_generator = torch.autograd.grad(fake, list(stack.generator.parameters.values()), of_fake)
        overfitting = vmap(self.loss.overfitting)(real_logits, fake_logits)
        outcome = StepOutcome(
            loss_generator=loss_generator.detach(),
            loss_discriminator=loss_discriminator.detach(),
            logit_real=real_logits.detach().mean(1),
            logit_fake=fake_logits.detach().mean(1),
            overfitting=overfitting,
            penalty=penalty.detach(),
            grad_norm_generator=update(
                stack.generator, stack.generator_optimizer, of_generator, _of(learning_rates, 0)
            ),
            grad_norm_discriminator=update(
                stack.discriminator,
                stack.discriminator_optimizer,
                of_discriminator,
                _of(learning_rates, 1),
            ),
        )
        self.finish(overfitting, num)
        return outcome


class _Alternating(_Step):
    """As ``training.step.AlternatingStep`` with a batch in one part."""

    def __call__(self, images: Tensor, learning_rates: LearningRates) -> StepOutcome:
        stack, num = self.stack, images.shape[1]
        updates = self.config.discriminator_updates
        for number in range(updates):
            with torch.no_grad():
                fake = self.fake(num, number)
            seen = torch.cat([to_maps(to_floats(images, fake.dtype)), fake])
            logits = self.logits(self.augmented(seen, number), number)
            real_logits, fake_logits = logits.chunk(2, dim=1)
            loss_discriminator = vmap(self.loss.discriminator)(real_logits, fake_logits)
            penalty = self.lecam(real_logits, fake_logits)
            of_discriminator = torch.autograd.grad(
                (loss_discriminator + penalty).sum(),
                list(stack.discriminator.parameters.values()),
            )
            norm_discriminator = update(
                stack.discriminator,
                stack.discriminator_optimizer,
                of_discriminator,
                _of(learning_rates, 1),
            )
        overfitting = vmap(self.loss.overfitting)(real_logits, fake_logits)
        loss_generator, of_generator = self.generate(images, updates)
        outcome = StepOutcome(
            loss_generator=loss_generator,
            loss_discriminator=loss_discriminator.detach(),
            logit_real=real_logits.detach().mean(1),
            logit_fake=fake_logits.detach().mean(1),
            overfitting=overfitting,
            penalty=penalty.detach(),
            grad_norm_generator=update(
                stack.generator, stack.generator_optimizer, of_generator, _of(learning_rates, 0)
            ),
            grad_norm_discriminator=norm_discriminator,
        )
        self.finish(overfitting, num)
        return outcome

    def generate(self, images: Tensor, number: int) -> tuple[Tensor, Sequence[Tensor]]:
        """The generators' losses (R,) and gradients."""
        fake = self.fake(images.shape[1], number)
        if self.loss.relativistic:
            both = torch.cat([to_maps(to_floats(images, fake.dtype)), fake])
            real, fake = self.augmented(both, number).chunk(2)
            with torch.no_grad():
                real_logits = self.logits(real, number)
        else:
            fake = self.augmented(fake, number)
            real_logits = torch.zeros(len(self.stack), len(fake), device=self.device)
        fake_logits = self.logits(fake, number)
        losses = vmap(self.loss.of_generator)(real_logits, fake_logits)
        weights = list(self.stack.generator.parameters.values())
        return losses.detach(), torch.autograd.grad(losses.sum(), weights)


def to_maps(batches: Tensor) -> Tensor:
    """(R, N, C, H, W) to (N, R * C, H, W), channels-last."""
    return batches.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)


def to_batches(maps: Tensor, num_runs: int) -> Tensor:
    """The inverse of ``to_maps``."""
    num, channels, height, width = maps.shape
    parts = maps.reshape(num, num_runs, channels // num_runs, height, width)
    return parts.transpose(0, 1)


def update(
    weights: StackedWeights,
    optimizer: StackedOptimizer,
    gradients: Sequence[Tensor],
    learning_rates: Sequence[float],
) -> Tensor:
    """Update by the gradients, and give each run's Euclidean norm (R,) of them."""
    flat = weights.flatten(gradients)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    optimizer.step(flat, learning_rates)
    return norms


def _of(learning_rates: LearningRates, network: int) -> list[float]:
    return [pair[network] for pair in learning_rates]
