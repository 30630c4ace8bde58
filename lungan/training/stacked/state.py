"""The state of R runs at the same step, as tensors with a dimension of runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lungan.config import GeneratorConfig, RunConfig
from lungan.training.ema import decay
from lungan.training.stacked.networks import StackedWeights
from lungan.training.stacked.optimizers import StackedOptimizer
from lungan.training.state import TrainingState


class StackedState:
    """What is in each run's own TrainingState, side by side. It is a copy: ``write`` gives it back.

    configs: of runs of one shape, those with one kind of optimizer next to each other.
    states: at the same step, on the training device.
    """

    def __init__(self, configs: Sequence[RunConfig], states: Sequence[TrainingState]) -> None:
        first = states[0]
        assert all((s.epoch, s.step) == (first.epoch, first.step) for s in states)
        self.configs = list(configs)
        self.epoch, self.step, self.images_seen = first.epoch, first.step, first.images_seen
        self.epoch_totals = torch.stack([state.epoch_totals for state in states])
        self.epoch_seconds = [state.epoch_seconds for state in states]
        self.augment_probability = torch.stack([state.augment_probability for state in states])
        self.logit_means = torch.stack([state.logit_means for state in states])
        generators = [state.generator for state in states]
        discriminators = [state.discriminator for state in states]
        self.generator = StackedWeights(generators)
        self.discriminator = StackedWeights(discriminators)
        optimizers = [config.optimizer for config in configs]
        self.generator_optimizer = StackedOptimizer(
            optimizers,
            [state.generator_optimizer for state in states],
            generators,
            self.generator.flat,
            self.step,
        )
        self.discriminator_optimizer = StackedOptimizer(
            optimizers,
            [state.discriminator_optimizer for state in states],
            discriminators,
            self.discriminator.flat,
            self.step * configs[0].loss.discriminator_updates,
        )
        self.average: Tensor | None = None
        if any(state.average is not None for state in states):
            networks = [state.inference_generator for state in states]
            self.average = StackedWeights(networks).flat

    def __len__(self) -> int:
        return len(self.configs)

    @property
    def inference_flat(self) -> Tensor:
        """The weights (R, P) of the generators that are sampled: averages where there are some."""
        return self.generator.flat if self.average is None else self.average

    @torch.no_grad()
    def count_images(self, num_images: int) -> None:
        """As ``TrainingState.count_images``, for every run."""
        self.images_seen += num_images
        if self.average is not None:
            shares = [1 - self._decay(config.generator, num_images) for config in self.configs]
            column = torch.tensor(shares, dtype=torch.float32)[:, None]
            if self.average.device.type == "cuda":
                column = column.pin_memory().to(self.average.device, non_blocking=True)
            self.average.lerp_(self.generator.flat, column)

    def begin_epoch(self) -> None:
        self.epoch_totals = torch.zeros_like(self.epoch_totals)
        self.epoch_seconds = [0.0] * len(self)

    def drift(self) -> Tensor:
        """(R,), as ``ExponentialMovingAverage.drift``."""
        length = torch.linalg.vector_norm(self.inference_flat, dim=1)
        distance = torch.linalg.vector_norm(self.inference_flat - self.generator.flat, dim=1)
        drift: Tensor = distance / length
        return drift

    def write(self, row: int, state: TrainingState, learning_rates: tuple[float, float]) -> None:
        """Bring a run's own state to where its row is.

        learning_rates: the last ones, of generator and discriminator.
        """
        config = self.configs[row].optimizer
        state.epoch, state.step, state.images_seen = self.epoch, self.step, self.images_seen
        state.epoch_totals = self.epoch_totals[row].clone()
        state.epoch_seconds = self.epoch_seconds[row]
        state.augment_probability = self.augment_probability[row].clone()
        state.logit_means = self.logit_means[row].clone()
        self.generator.copy_to(state.generator, row)
        self.discriminator.copy_to(state.discriminator, row)
        if state.average is not None:
            self.generator.copy_to(state.average.network, row, self.average)
        self.generator_optimizer.write(
            row, config, state.generator_optimizer, state.generator, learning_rates[0]
        )
        self.discriminator_optimizer.write(
            row, config, state.discriminator_optimizer, state.discriminator, learning_rates[1]
        )

    def _decay(self, config: GeneratorConfig, num_images: int) -> float:
        if config.ema_half_life_images == 0:
            return 0.0
        half_life, ramp_up = config.ema_half_life_images, config.ema_ramp_up
        return decay(num_images, self.images_seen, half_life, ramp_up)
