"""One training step on one batch: both networks' updates, in one of two forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from lungan.config import RunConfig
from lungan.models.sampling import to_floats
from lungan.training.augment import adjusted, augmented
from lungan.training.graphs import Graphs
from lungan.training.losses import (
    build_loss,
    gradient_penalties,
    has_gradient_penalty,
    lecam_penalty,
    running_means,
    share_of_batch,
)
from lungan.training.memory import keep_freed_memory
from lungan.training.randomness import StepInputs
from lungan.training.state import StepOutcome, TrainingState

SMALLEST_UPSTREAM = 2.0**-80
"""Smallest logit gradient, relative to a batch mean's 1/N, that is sent back through the
discriminator: its square is zero in float32, so no optimizer can see it, and the image gradient
that it leads to is still far from underflow."""

Work = Callable[[Tensor, Tensor | None], Tensor]
"""Images and labels to numbers for the log, in one tensor; leaves gradients with weights, updates
none, and takes all that changes from step to step from its arguments and StepInputs."""


def build_step(config: RunConfig, state: TrainingState, precision: str) -> Step:
    """A function of one batch of real images (N, C, H, W) uint8 on the training device, and of
    their labels (N,) int64 where the generator is conditional: fake images get the same classes.

    Each call updates the networks, their optimizers and ``state.step`` and waits for no device.
    precision: ``fp32``, or ``bf16`` for autocast: weights, statistics, losses stay in float32.

    On a CPU the process keeps from now on what memory it frees. On a CUDA device the work up to the
    optimizers is recorded as CUDA graphs, and the state's tensors have to stay where they are.

    Raises: ConfigError for an unknown loss.
    """
    form = SimultaneousStep if config.loss.update == "simultaneous" else AlternatingStep
    return form(config, state, precision)


class Step(ABC):
    """One training step: both networks' updates from one batch."""

    def __init__(self, config: RunConfig, state: TrainingState, precision: str) -> None:
        self.state = state
        self.config = config
        self.loss = build_loss(config.loss)
        self.device = state.epoch_totals.device
        self.bf16 = precision == "bf16"
        if self.device.type == "cpu":
            keep_freed_memory()
        is_cuda = self.device.type == "cuda"
        self.inputs = StepInputs(config.seed, self.device, hold=is_cuda)
        self.graphs: Graphs | None = None
        if is_cuda:
            parameters = chain(state.generator.parameters(), state.discriminator.parameters())
            self.graphs = Graphs(parameters, self.device)

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> StepOutcome:
        state = self.state
        outcome = self.updates(images, labels)
        state.augment_probability.copy_(
            adjusted(
                state.augment_probability, self.config.augment, outcome.overfitting, len(images)
            )
        )
        state.step += 1
        return outcome

    @abstractmethod
    def updates(self, images: Tensor, labels: Tensor | None) -> StepOutcome:
        """Updates both networks."""

    def perform(self, name: Hashable, work: Work, images: Tensor, labels: Tensor | None) -> Tensor:
        """What ``work`` gives for the batch; its gradients are left with the weights."""
        penalized = has_gradient_penalty(self.config.loss, self.state.step)
        key = (name, len(images), penalized)
        self.inputs.begin(key, self.state.step)
        held = self.inputs.given("images", images)
        held_labels = None if labels is None else self.inputs.given("labels", labels)
        if self.graphs is None:
            return work(held, held_labels)
        return self.graphs(key, lambda: work(held, held_labels))

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def latents(self, count: int, update: int) -> Tensor:
        return self.inputs.latents(count, self.config.generator.latent_dim, update)

    def augmented(self, images: Tensor, update: int, part: int = 0) -> Tensor:
        def uniforms(*shape: int) -> Tensor:
            return self.inputs.uniforms("augment", (update, part), shape)

        return augmented(self.config.augment, images, self.state.augment_probability, uniforms)

    def logits(self, images: Tensor, labels: Tensor | None, draw: int | None) -> Tensor:
        """Float32 (N,) of images (N, C, H, W), with labels for all of them or for each half.

        draw: which of the step's dropout masks; None is without dropout.
        """
        bits = None if draw is None else self.inputs.dropout_bits(draw)
        if labels is not None and len(labels) < len(images):
            labels = torch.cat([labels, labels])
        with self.autocast():
            logits: Tensor = self.state.discriminator(images, bits, labels)
        return logits.float()

    def lecam(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """LeCam's penalty, weighted; zero without it."""
        config, means = self.config.loss, self.state.logit_means
        if not config.lecam:
            return torch.zeros((), device=self.device)
        share = self.inputs.number("lecam", lambda step: share_of_batch(config.lecam_decay, step))
        means.copy_(running_means(means, real_logits, fake_logits, share))
        return config.lecam * lecam_penalty(real_logits, fake_logits, means)

    def penalize(
        self, images: Tensor, labels: Tensor | None, update: int, part: int, share: float
    ) -> Tensor:
        """Add the gradient penalties at images (2N, C, H, W), real and fake, to the gradients."""
        if not has_gradient_penalty(self.config.loss, self.state.step):
            return torch.zeros((), device=self.device)
        real, fake = images.detach().float().chunk(2)
        mixing = self.inputs.uniforms("mixing", (update, part), (len(real),))
        penalty = gradient_penalties(
            self.config.loss, lambda images: self.logits(images, labels, None), real, fake, mixing
        )
        torch.autograd.backward(penalty * share)
        return penalty.detach()

    def scalars(
        self, loss: Tensor, real_logits: Tensor, fake_logits: Tensor, penalty: Tensor
    ) -> Tensor:
        """StepOutcome's from ``loss_discriminator`` to ``penalty`` (5,), of one forward pass."""
        real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
        overfitting = self.loss.overfitting(real_logits, fake_logits)
        logits = (real_logits.mean(), fake_logits.mean())
        return torch.stack([loss.detach(), *logits, overfitting, penalty])


class SimultaneousStep(Step):
    """One generator forward; both gradients from it and from the same discriminator forward."""

    def updates(self, images: Tensor, labels: Tensor | None) -> StepOutcome:
        state = self.state
        outcome = StepOutcome(*self.perform("both", self.gradients, images, labels).unbind())
        update(state.generator, state.generator_optimizer)
        update(state.discriminator, state.discriminator_optimizer)
        return outcome

    def gradients(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Of both networks, left with their weights. Gives a StepOutcome as a tensor (8,)."""
        state = self.state
        with self.autocast():
            fake = state.generator(self.latents(len(images), 0), labels)
        fake_leaf = fake.detach().requires_grad_()
        seen = self.augmented(torch.cat([to_floats(images, fake.dtype), fake_leaf]), 0)
        logits = self.logits(seen, labels, 0)

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

        scalars = self.scalars(loss_discriminator, real_logits, fake_logits, penalty)
        norms = [gradient_norm(network) for network in (state.generator, state.discriminator)]
        return torch.cat([loss_generator.detach()[None], scalars, torch.stack(norms)])


class AlternatingStep(Step):
    """The discriminator's updates, then the generator's, each with fresh latents and masks.

    Each update sums the gradients of a batch's parts (``loss.micro_batches``).
    """

    def updates(self, images: Tensor, labels: Tensor | None) -> StepOutcome:
        state = self.state
        updates = self.config.loss.discriminator_updates
        for number in range(updates):
            judge = partial(self.judge, number)
            judged = self.perform(("discriminator", number), judge, images, labels)
            update(state.discriminator, state.discriminator_optimizer)
        generated = self.perform("generator", partial(self.generate, updates), images, labels)
        update(state.generator, state.generator_optimizer)
        loss, norm_generator = generated
        *scalars, norm_discriminator = judged
        return StepOutcome._make([loss, *scalars, norm_generator, norm_discriminator])

    def judge(self, number: int, images: Tensor, labels: Tensor | None) -> Tensor:
        """The discriminator's gradients for update ``number`` of the step, left with its weights;
        its ``scalars`` and the gradients' norm (6,)."""
        scalars = torch.zeros(5, device=self.device)  # not added to in place, which vmap refuses
        for part in self.parts(number, images, labels):
            with torch.no_grad(), self.autocast():
                fake = self.state.generator(part.latents, part.labels)
            seen = torch.cat([to_floats(part.images, fake.dtype), fake])
            seen = self.augmented(seen, number, part.index)
            real_logits, fake_logits = self.logits(seen, part.labels, part.draw).chunk(2)
            loss = self.loss.discriminator(real_logits, fake_logits)
            lecam = self.lecam(real_logits, fake_logits)
            torch.autograd.backward((loss + lecam) * part.share)
            penalty = self.penalize(seen, part.labels, number, part.index, part.share)
            penalty = lecam.detach() + penalty
            found = self.scalars(loss, real_logits, fake_logits, penalty)
            scalars = scalars + part.share * found
        return torch.cat([scalars, gradient_norm(self.state.discriminator)[None]])

    def generate(self, number: int, images: Tensor, labels: Tensor | None) -> Tensor:
        """The generator's gradients for update ``number`` of the step, left with its weights; its
        loss and their norm (2,)."""
        total = torch.zeros((), device=self.device)
        self.state.discriminator.requires_grad_(False)
        try:
            for part in self.parts(number, images, labels):
                with self.autocast():
                    fake = self.state.generator(part.latents, part.labels)
                if self.loss.relativistic:
                    both = torch.cat([to_floats(part.images, fake.dtype), fake])
                    real, fake = self.augmented(both, number, part.index).chunk(2)
                    with torch.no_grad():
                        real_logits = self.logits(real, part.labels, part.draw)
                else:
                    fake = self.augmented(fake, number, part.index)
                    real_logits = torch.zeros((), device=self.device)
                fake_logits = self.logits(fake, part.labels, part.draw)
                loss = self.loss.of_generator(real_logits, fake_logits)
                torch.autograd.backward(loss * part.share)
                total = total + part.share * loss.detach()
        finally:
            self.state.discriminator.requires_grad_(True)
        return torch.stack([total, gradient_norm(self.state.generator)])

    def parts(self, number: int, images: Tensor, labels: Tensor | None) -> Iterator[_Part]:
        """What update ``number`` of the step works on, one after the other."""
        count = self.config.loss.micro_batches
        latents = self.latents(len(images), number).chunk(count)
        part_labels = [None] * len(latents) if labels is None else labels.chunk(count)
        for index, chunk in enumerate(images.chunk(count)):
            draw, share = number * count + index, len(chunk) / len(images)
            yield _Part(index, draw, share, chunk, part_labels[index], latents[index])


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a batch: its ``share`` of the images, and where its random numbers come from:
    ``index`` in the batch, ``draw`` of the step's dropout masks."""

    index: int
    draw: int
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


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True)


def update(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Update by the gradients, and clear them."""
    optimizer.step()
    network.zero_grad(set_to_none=True)
