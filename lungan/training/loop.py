"""The training loop: epochs over images that lie on the device, and what tells early, once an
epoch, that a run goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lungan.config import RunConfig
from lungan.config.training import AdaptiveConfig
from lungan.errors import DivergedError
from lungan.models.sampling import evaluating, to_floats, to_uint8
from lungan.training.events import (
    Checkpoint,
    EpochEnd,
    EpochStart,
    Samples,
    Sink,
    Snapshot,
    StepEnd,
)
from lungan.training.randomness import fixed_labels, fixed_latents, permutation
from lungan.training.schedules import learning_rate_factor
from lungan.training.state import StepOutcome, TrainingState, drift
from lungan.training.step import Step
from lungan.training.training_data import TrainingData

NUM_SAMPLES = 32


class Interrupted(KeyboardInterrupt):
    """Training stopped because ``stop`` said so; the state was emitted as a checkpoint before."""

    def __init__(self) -> None:
        super().__init__("interrupted, checkpoint written; the same command goes on")


def train(
    config: RunConfig,
    state: TrainingState,
    step: Step,
    data: TrainingData,
    *,
    emit: Sink,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train ``state`` in place from where it is to ``config.epochs``.

    data: on the device of the networks.
    emit: called with every event, in order; what it raises ends the training.
    stop: asked after every step; True ends with a checkpoint in the middle of the epoch.

    Everything random is a function of seed and position, so a state that was saved and loaded
    goes on with the same bits as one that never stopped.

    Raises: DivergedError at the end of an epoch with a non-finite mean, Interrupted.
    """
    latents = fixed_latents(config.seed, NUM_SAMPLES, config.generator.latent_dim)
    images, labels = data.images, data.labels
    latents = latents.to(images.device)
    sample_labels = None
    if data.classes is not None:
        sample_labels = fixed_labels(config.seed, NUM_SAMPLES, data.classes.shares)
        sample_labels = sample_labels.to(images.device)
    steps_per_epoch = -(-len(images) // config.batch_size)
    while state.epoch < config.epochs:
        first = state.step - state.epoch * steps_per_epoch
        emit(EpochStart(state.epoch + 1, steps_per_epoch))
        order = permutation(config.seed, state.epoch, len(images), images.device)
        began = time.perf_counter() - state.epoch_seconds
        for index in range(first, steps_per_epoch):
            factor = learning_rate_factor(
                config.schedule, state.epoch + index / steps_per_epoch, config.epochs
            )
            lrs = _set_learning_rates(config, state, factor)
            chosen = order[index * config.batch_size : (index + 1) * config.batch_size]
            outcome = step(images[chosen], None if labels is None else labels[chosen])
            state.epoch_totals += torch.stack(outcome).double() * len(chosen)
            state.count_images(len(chosen), config.generator)
            emit(StepEnd(state.epoch + 1, index + 1, len(chosen)))
            if index + 1 < steps_per_epoch and stop():
                state.epoch_seconds = time.perf_counter() - began
                emit(Checkpoint(state.epoch, state.state_dict()))
                raise Interrupted

        means = (state.epoch_totals / len(images)).tolist()  # waits for the device
        seconds = time.perf_counter() - began
        metrics = dict(zip(StepOutcome._fields, means, strict=True))
        state.epoch += 1
        state.begin_epoch()
        check_finite(metrics, state.epoch)
        samples = _sample(state, latents, sample_labels)
        emit(
            EpochEnd(
                state.epoch,
                {"epoch": state.epoch, "images_seen": state.images_seen}
                | metrics
                | diagnose(config, state, samples, data)
                | lrs
                | {"seconds": seconds, "images_per_second": len(images) / seconds},
            )
        )
        last = state.epoch == config.epochs
        every = config.samples_every_epochs
        if last or (every and state.epoch % every == 0):
            emit(Samples(state.epoch, to_uint8(samples).cpu().numpy()))
        every = config.score.every_epochs
        if every and state.epoch % every == 0:
            emit(Snapshot(state.epoch, state.inference_generator))
        # After the last epoch too: what follows training may take longer than it.
        stopping = stop()
        if last or stopping or state.epoch % config.checkpoint_every_epochs == 0:
            emit(Checkpoint(state.epoch, state.state_dict()))
        if stopping:
            raise Interrupted


@torch.no_grad()
def _sample(state: TrainingState, latents: Tensor, labels: Tensor | None) -> Tensor:
    with evaluating(state.inference_generator):
        images: Tensor = state.inference_generator(latents, labels)
    return images


def _set_learning_rates(config: RunConfig, state: TrainingState, factor: float) -> dict[str, float]:
    lrs = {}
    for network in ("generator", "discriminator"):
        lr = getattr(config.optimizer, f"{network}_lr") * factor
        for group in getattr(state, f"{network}_optimizer").param_groups:
            group["lr"] = lr
        lrs[f"lr_{network}"] = lr
    return lrs


@torch.no_grad()
def diagnose(
    config: RunConfig, state: TrainingState, samples: Tensor, data: TrainingData
) -> dict[str, float]:
    """``sample_diversity`` and, where there is something to take them from, ``logit_held_out``,
    ``ema_drift`` (see ``state.drift``) and ``augment_probability``.

    samples: (N, C, H, W) in [-1, 1], of the generator that is saved.
    """
    found = {"sample_diversity": diversity(samples)}
    if data.held_out is not None:
        found["logit_held_out"] = mean_logit(
            state.discriminator, to_floats(data.held_out), data.held_out_labels
        )
    if state.average is not None:
        found["ema_drift"] = drift(state.average, state.generator)
    if isinstance(config.augment, AdaptiveConfig):
        found["augment_probability"] = state.augment_probability
    return {name: float(value) for name, value in found.items()}


def diversity(samples: Tensor) -> Tensor:
    """Root mean squared pixel difference of two samples, mean over all pairs of them.

    0 where all samples are one image, sqrt(2) times the noise for noise around one image.
    """
    flat = samples.flatten(1).double()
    distance: Tensor = torch.nn.functional.pdist(flat).mean() / flat.shape[1] ** 0.5
    return distance


def check_finite(means: dict[str, float], epoch: int) -> None:
    """Raises: DivergedError for the first of an epoch's means that is not finite."""
    for name, value in means.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"{name} became {value} in epoch {epoch}; try a lower lr or another loss"
            )


def mean_logit(discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    """Without dropout and changes of the images."""
    with evaluating(discriminator):
        logits: Tensor = discriminator(images, None, labels)
    return logits.mean()
