"""The state of a training run: all that changes from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lungan.config import GeneratorConfig, RunConfig
from lungan.models.build import build_discriminator, build_generator
from lungan.models.conditioning import Classes
from lungan.training.augment import initial_probability
from lungan.training.ema import ExponentialMovingAverage, decay
from lungan.training.optimizers import build_optimizer
from lungan.training.outcome import StepOutcome
from lungan.training.randomness import weights_rng


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Networks, optimizers and progress. Random generators are no part of it: they are pure
    functions of the seed and ``step`` or ``epoch``.

    epoch: epochs done. step: batches done. images_seen: real images shown, repeats counted.
    epoch_totals: float64, sums over the epoch's images so far of what StepOutcome names.
    epoch_seconds: time spent on the epoch before this process took it up.
    average: of the generator's weights, where the config has one.
    augment_probability: 0-d, of each change of an image.
    logit_means: (2,), running means of real and fake logits, kept for LeCam's penalty.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    epoch: int = 0
    step: int = 0
    images_seen: int = 0
    epoch_totals: Tensor
    epoch_seconds: float = 0.0
    average: ExponentialMovingAverage | None
    augment_probability: Tensor
    logit_means: Tensor

    @property
    def inference_generator(self) -> nn.Module:
        """The generator that is sampled, scored and saved: the average where there is one."""
        return self.generator if self.average is None else self.average.network

    def count_images(self, num_images: int, config: GeneratorConfig) -> None:
        """Take note of a batch that was trained on, and let the average follow."""
        self.images_seen += num_images
        if self.average is not None:
            self.average.update(
                self.generator,
                decay(
                    num_images, self.images_seen, config.ema_half_life_images, config.ema_ramp_up
                ),
            )

    def begin_epoch(self) -> None:
        self.epoch_totals = torch.zeros_like(self.epoch_totals)
        self.epoch_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers that share memory with the state: save before the next step."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "images_seen": self.images_seen,
            "epoch_totals": self.epoch_totals,
            "epoch_seconds": self.epoch_seconds,
            "average": None if self.average is None else self.average.network.state_dict(),
            "augment_probability": self.augment_probability,
            "logit_means": self.logit_means,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Raises: KeyError or RuntimeError where ``saved`` is of another config."""
        self.generator.load_state_dict(saved["generator"])
        self.discriminator.load_state_dict(saved["discriminator"])
        self.generator_optimizer.load_state_dict(saved["generator_optimizer"])
        self.discriminator_optimizer.load_state_dict(saved["discriminator_optimizer"])
        self.epoch = saved["epoch"]
        self.step = saved["step"]
        self.images_seen = saved["images_seen"]
        self.epoch_totals = saved["epoch_totals"].to(self.epoch_totals)
        self.epoch_seconds = saved["epoch_seconds"]
        if self.average is not None:
            self.average.network.load_state_dict(saved["average"])
        self.augment_probability.copy_(saved["augment_probability"])
        self.logit_means.copy_(saved["logit_means"])


def build_state(
    config: RunConfig,
    image_size: int,
    channels: int,
    device: torch.device,
    classes: Classes | None = None,
) -> TrainingState:
    """The state before the first step, a function of ``config.seed``: the same on every device.

    classes: of the images, where ``generator.conditional``.

    Raises: ConfigError for an unknown name or a size that the networks cannot make, or where
    classes are missing.
    """
    generator = build_generator(
        config.generator, image_size, channels, weights_rng(config.seed, "generator"), classes
    ).to(device)
    discriminator = build_discriminator(
        config.discriminator,
        image_size,
        channels,
        weights_rng(config.seed, "discriminator"),
        classes if config.generator.conditional else None,
    ).to(device)
    averaged = config.generator.ema_half_life_images > 0
    state = TrainingState(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=build_optimizer(
            config.optimizer, generator.parameters(), config.optimizer.generator_lr
        ),
        discriminator_optimizer=build_optimizer(
            config.optimizer, discriminator.parameters(), config.optimizer.discriminator_lr
        ),
        epoch_totals=torch.zeros(len(StepOutcome.names()), dtype=torch.float64, device=device),
        average=ExponentialMovingAverage(generator) if averaged else None,
        augment_probability=initial_probability(config.augment, device),
        logit_means=torch.zeros(2, device=device),
    )
    state.begin_epoch()
    return state
