"""The state of a training run: all that changes from step to step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lungan.config import GeneratorConfig, RunConfig
from lungan.models.build import Classes, build_discriminator, build_generator
from lungan.training.augment import initial_probability
from lungan.training.optimizers import build_optimizer
from lungan.training.randomness import weights_rng

LOADABLE = ("generator", "discriminator", "generator_optimizer", "discriminator_optimizer")
TENSORS = ("epoch_totals", "augment_probability", "logit_means")
NUMBERS = ("epoch", "step", "images_seen", "epoch_seconds")


class StepOutcome(NamedTuple):
    """Float32 scalars on the training device, of before a step's update (the last one, where the
    discriminator has several). Logits are means over the batch, gradient norms Euclidean.

    overfitting: from -1 to 1, see ``losses.AdversarialLoss``. penalty: the gradient penalties and
    LeCam's, weighted, in the discriminator's gradient but not in its loss; zero without any."""

    loss_generator: Tensor
    loss_discriminator: Tensor
    logit_real: Tensor
    logit_fake: Tensor
    overfitting: Tensor
    penalty: Tensor
    grad_norm_generator: Tensor
    grad_norm_discriminator: Tensor


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Keep ``decay`` of the average's weights and take the rest from ``network``; buffers are
    copied as they are."""
    torch._foreach_lerp_(_weights(average), _weights(network), 1 - decay)
    for averaged, buffer in zip(average.buffers(), network.buffers(), strict=True):
        averaged.copy_(buffer)


@torch.no_grad()
def drift(average: nn.Module, network: nn.Module) -> Tensor:
    """Distance of the average from the weights, relative to their length."""
    weights = _weights(network)
    differences = torch._foreach_sub(_weights(average), weights)
    length = torch.nn.utils.get_total_norm(weights)
    return torch.nn.utils.get_total_norm(differences) / length


def _weights(network: nn.Module) -> list[Tensor]:
    return list(network.parameters())


def decay(num_images: int, images_seen: int, half_life_images: float, ramp_up: float) -> float:
    """The weight that averaged weights keep when a batch of ``num_images`` is added to them.

    images_seen: with this batch. The half-life is at most ``ramp_up`` times these, so that the
    average is never mostly the weights of the beginning.

    Source: Karras et al. 2022, arXiv:2206.00364 (edm), training loop; half-lives in images from
    Karras et al. 2019, arXiv:1912.04958.
    """
    half_life = min(half_life_images, images_seen * ramp_up)
    return float(0.5 ** (num_images / half_life))


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Networks, optimizers and progress. Random generators are no part of it: they are pure
    functions of the seed and ``step`` or ``epoch``.

    epoch: epochs done. step: batches done. images_seen: real images shown, repeats counted.
    epoch_totals: float64, sums over the epoch's images so far of what StepOutcome names.
    epoch_seconds: time spent on the epoch before this process took it up.
    average: a generator whose weights follow the generator's slowly, where the config has one.
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
    average: nn.Module | None
    augment_probability: Tensor
    logit_means: Tensor

    @property
    def inference_generator(self) -> nn.Module:
        """The generator that is sampled, scored and saved: the average where there is one."""
        return self.generator if self.average is None else self.average

    def count_images(self, num_images: int, config: GeneratorConfig) -> None:
        """Take note of a batch that was trained on, and let the average follow."""
        self.images_seen += num_images
        if self.average is not None:
            kept = decay(
                num_images, self.images_seen, config.ema_half_life_images, config.ema_ramp_up
            )
            update_average(self.average, self.generator, kept)

    def begin_epoch(self) -> None:
        self.epoch_totals = torch.zeros_like(self.epoch_totals)
        self.epoch_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers that share memory with the state: save before the next step."""
        average = None if self.average is None else self.average.state_dict()
        return (
            {name: getattr(self, name).state_dict() for name in LOADABLE}
            | {name: getattr(self, name) for name in (*TENSORS, *NUMBERS)}
            | {"average": average}
        )

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Raises: KeyError or RuntimeError where ``saved`` is of another config."""
        for name in LOADABLE:
            getattr(self, name).load_state_dict(saved[name])
        for name in TENSORS:
            getattr(self, name).copy_(saved[name])
        for name in NUMBERS:
            setattr(self, name, saved[name])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])


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
    classes = classes if config.generator.conditional else None
    shape, optimizer = (image_size, channels), config.optimizer
    rng = weights_rng(config.seed, "generator")
    generator = build_generator(config.generator, *shape, rng, classes).to(device)
    rng = weights_rng(config.seed, "discriminator")
    discriminator = build_discriminator(config.discriminator, *shape, rng, classes).to(device)
    average = None
    if config.generator.ema_half_life_images > 0:
        average = copy.deepcopy(generator).eval().requires_grad_(False)
    return TrainingState(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=build_optimizer(
            optimizer, generator.parameters(), optimizer.generator_lr
        ),
        discriminator_optimizer=build_optimizer(
            optimizer, discriminator.parameters(), optimizer.discriminator_lr
        ),
        epoch_totals=torch.zeros(len(StepOutcome._fields), dtype=torch.float64, device=device),
        average=average,
        augment_probability=initial_probability(config.augment, device),
        logit_means=torch.zeros(2, device=device),
    )
