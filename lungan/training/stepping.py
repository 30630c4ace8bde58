"""What both forms of a training step share: inputs, forward passes, penalties, recording."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from itertools import chain

import torch
from torch import Tensor, nn

from lungan.config import RunConfig
from lungan.training.augment import adjusted, augmented
from lungan.training.graphs import Graphs
from lungan.training.inputs import HeldInputs, Inputs
from lungan.training.losses import AdversarialLoss, build_loss
from lungan.training.regularizers import (
    gradient_penalties,
    has_gradient_penalty,
    lecam_penalty,
    running_means,
    share_of_batch,
)
from lungan.training.state import TrainingState

Work = Callable[[Tensor, Tensor | None], Tensor]
"""Images and labels to what is told; draws from ``inputs`` and updates no weights."""


class Stepping:
    """What both forms of the step do alike."""

    def __init__(
        self, config: RunConfig, state: TrainingState, precision: str, *, graphs: bool
    ) -> None:
        self.state = state
        self.config = config
        self.loss: AdversarialLoss = build_loss(config.loss)
        self.latent_dim = config.generator.latent_dim
        self.device = next(state.generator.parameters()).device
        self.bf16 = precision == "bf16"
        self.inputs = Inputs(config.seed, self.device)
        self.graphs: Graphs | None = None
        if graphs and self.device.type == "cuda":
            self.inputs = HeldInputs(config.seed, self.device)
            parameters = chain(state.generator.parameters(), state.discriminator.parameters())
            self.graphs = Graphs(parameters, self.device)

    def perform(self, name: Hashable, work: Work, images: Tensor, labels: Tensor | None) -> Tensor:
        """What ``work`` tells of the batch; its gradients are left with the weights."""
        state = self.state
        key = (name, len(images), has_gradient_penalty(self.config.loss, state.step))
        self.inputs.begin(key, state.step)
        held = self.inputs.given("images", images)
        held_labels = None if labels is None else self.inputs.given("labels", labels)
        if self.graphs is None:
            return work(held, held_labels)
        return self.graphs(key, lambda: work(held, held_labels))

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def latents(self, count: int, update: int) -> Tensor:
        return self.inputs.latents(count, self.latent_dim, update)

    def augmented(self, images: Tensor, update: int, part: int = 0) -> Tensor:
        def uniforms(*shape: int) -> Tensor:
            return self.inputs.uniforms("augment", (update, part), shape)

        return augmented(self.config.augment, images, self.state.augment_probability, uniforms)

    def logits(self, images: Tensor, labels: Tensor | None, draw: int) -> Tensor:
        """draw: which of the step's dropout masks."""
        bits = self.inputs.dropout_bits(draw)
        with self.autocast():
            logits: Tensor = self.state.discriminator(images, bits, labels)
        return logits.float()

    def lecam(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """LeCam's penalty, weighted; zero without it."""
        config, state = self.config.loss, self.state
        if not config.lecam:
            return torch.zeros((), device=self.device)
        share = self.inputs.number("lecam", lambda step: share_of_batch(config.lecam_decay, step))
        state.logit_means.copy_(running_means(state.logit_means, real_logits, fake_logits, share))
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
        mixing = self.inputs.uniforms("mixing", (update, part), (len(real),))
        penalty = gradient_penalties(self.config.loss, logits_of, real, fake, mixing)
        torch.autograd.backward(penalty * share)
        return penalty.detach()

    def adjust(self, overfitting: Tensor, num_images: int) -> None:
        """How often images are changed, after what the discriminator told."""
        state = self.state
        state.augment_probability.copy_(
            adjusted(state.augment_probability, self.config.augment, overfitting, num_images)
        )


def twice(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else torch.cat([labels, labels])


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True)


def update(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Update by the gradients, and clear them."""
    optimizer.step()
    network.zero_grad(set_to_none=True)
