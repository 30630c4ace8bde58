"""The training loop of R runs at once; each run's events go to its own sink."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lungan.config import AdaptiveConfig, DcganDiscriminatorConfig, DcganGeneratorConfig, RunConfig
from lungan.errors import DivergedError
from lungan.training.diagnostics import check_finite
from lungan.training.events import (
    Checkpoint,
    EpochEnd,
    EpochStart,
    Event,
    Samples,
    Sink,
    Snapshot,
    StepEnd,
)
from lungan.training.loop import NUM_SAMPLES, Interrupted, to_uint8
from lungan.training.material import Material
from lungan.training.outcome import StepOutcome
from lungan.training.randomness import fixed_latents, permutation
from lungan.training.schedules import learning_rate_factor
from lungan.training.stacked.draws import Draws
from lungan.training.stacked.networks import StackedDiscriminator, StackedGenerator
from lungan.training.stacked.optimizers import kind
from lungan.training.stacked.state import StackedState
from lungan.training.stacked.step import LearningRates, build_stacked_step, to_batches
from lungan.training.state import TrainingState
from lungan.training.step import to_floats


@dataclass(slots=True)
class Member:
    """One run of a stack. ``error``: what ended it, DivergedError or what its sink raised."""

    config: RunConfig
    state: TrainingState
    emit: Sink
    error: Exception | None = None


def train_stack(
    members: Sequence[Member],
    material: Material,
    precision: str,
    until: int,
    *,
    tell: Sink,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train runs of one ``obstacles.shape``, all at the same step, to epoch ``until``.

    It ends before, at the end of an epoch, where a member has an error. Then and at ``until``
    every member without one has its own state brought up to date and a checkpoint emitted.
    tell: hears of the stack as of one run: epochs, steps, and metrics that are means over runs.
    stop: asked after every step; True ends with checkpoints in the middle of the epoch.

    A run's ``seconds`` are its share of the stack's.

    Raises: Interrupted.
    """
    with contextlib.closing(_Training(members, material, precision)) as training:
        training.run(until, tell, stop)


class _Training:
    def __init__(self, members: Sequence[Member], material: Material, precision: str) -> None:
        self._members = sorted(members, key=lambda member: kind(member.config.optimizer))
        self._material = material
        configs = [member.config for member in self._members]
        shared, states = configs[0], [member.state for member in self._members]
        assert isinstance(shared.generator, DcganGeneratorConfig)
        assert isinstance(shared.discriminator, DcganDiscriminatorConfig)
        device = material.images.device
        self._shared = shared
        self._device = device
        self._configs = configs
        self._stack = StackedState(configs, states)
        latent_dim = shared.generator.latent_dim
        self._draws = Draws([config.seed for config in configs], latent_dim, device)
        self._step = build_stacked_step(self._stack, states[0], self._draws, precision)
        self._generator = StackedGenerator(shared.generator, states[0].generator)
        self._discriminator = StackedDiscriminator(shared.discriminator, states[0].discriminator)
        fixed = [fixed_latents(config.seed, NUM_SAMPLES, latent_dim) for config in configs]
        self._latents = torch.stack(fixed).to(device)
        self._learning_rates: LearningRates = [
            (_lr(state.generator_optimizer), _lr(state.discriminator_optimizer)) for state in states
        ]

    def close(self) -> None:
        self._draws.close()

    def run(self, until: int, tell: Sink, stop: Callable[[], bool]) -> None:
        stack, images = self._stack, self._material.images
        batch_size = self._shared.batch_size
        steps_per_epoch = -(-len(images) // batch_size)
        while stack.epoch < until and not self._ended():
            first = stack.step - stack.epoch * steps_per_epoch
            tell(EpochStart(stack.epoch + 1, steps_per_epoch))
            orders = [permutation(c.seed, stack.epoch, len(images)) for c in self._configs]
            order = torch.stack(orders).to(images.device)
            began = time.perf_counter()
            for index in range(first, steps_per_epoch):
                self._set_learning_rates(stack.epoch + index / steps_per_epoch)
                chosen = order[:, index * batch_size : (index + 1) * batch_size]
                outcome = self._step(images[chosen], self._learning_rates)
                num = chosen.shape[1]
                stack.epoch_totals += _stacked(outcome).double() * num
                stack.count_images(num)
                tell(StepEnd(stack.epoch + 1, index + 1, num))
                if index + 1 < steps_per_epoch and stop():
                    self._count_seconds(began)
                    self._checkpoint(everyone=True)
                    raise Interrupted
            self._end_epoch(began, tell)
            stopping = stop()
            everyone = stopping or stack.epoch == until or self._ended()
            self._checkpoint(everyone)
            if stopping:
                raise Interrupted

    def _end_epoch(self, began: float, tell: Sink) -> None:
        stack, num_images = self._stack, len(self._material.images)
        with torch.no_grad():
            samples, told = self._diagnose()
            means = stack.epoch_totals.T / num_images
            table = torch.cat([means, torch.stack(list(told.values())).double()])
            columns = table.T.tolist()  # waits for the device
        self._count_seconds(began)
        seconds = stack.epoch_seconds
        stack.epoch += 1
        stack.begin_epoch()
        names = StepOutcome.names()
        every_row = []
        for row, member in self._live():
            values = columns[row][: len(names)]
            metrics = dict(zip(names, values, strict=True))
            try:
                check_finite(metrics, stack.epoch)
            except DivergedError as error:
                member.error = error
                continue
            extra = dict(zip(told, columns[row][len(names) :], strict=True))
            lr_generator, lr_discriminator = self._learning_rates[row]
            line = {"epoch": stack.epoch, "images_seen": stack.images_seen} | metrics
            line |= {key: value for key, value in extra.items() if _has(member.config, key)}
            line |= {"lr_generator": lr_generator, "lr_discriminator": lr_discriminator}
            line |= {"seconds": seconds[row], "images_per_second": num_images / seconds[row]}
            every_row.append(line)
            _emit(member, EpochEnd(stack.epoch, line))
            self._show(row, member, samples)
        if every_row:
            shared = set.intersection(*(set(line) for line in every_row))
            summed = {key: sum(line[key] for line in every_row) for key in shared}
            tell(EpochEnd(stack.epoch, {key: summed[key] / len(every_row) for key in summed}))

    def _show(self, row: int, member: Member, samples: Tensor) -> None:
        epoch, config = self._stack.epoch, member.config
        every = config.samples_every_epochs
        if epoch == config.epochs or (every and epoch % every == 0):
            _emit(member, Samples(epoch, to_uint8(samples[row]).cpu().numpy()))
        every = config.score.every_epochs
        if every and epoch % every == 0:
            self._write(row, member)
            _emit(member, Snapshot(epoch, member.state.inference_generator))

    def _diagnose(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples (R, N, C, H, W), and what ``diagnostics.diagnose`` tells, each (R,)."""
        stack, held_out = self._stack, self._material.held_out
        weights = stack.generator.views(stack.inference_flat)
        maps = self._generator(weights, stack.generator.buffers, self._latents, training=False)
        samples = to_batches(maps, len(stack))
        told = {"sample_diversity": _diversity(samples)}
        if held_out is not None:
            images = to_floats(held_out).repeat(1, len(stack), 1, 1)
            images = images.contiguous(memory_format=torch.channels_last)
            logits = self._discriminator(stack.discriminator.parameters, images, None)
            told["logit_held_out"] = logits.mean(1)
        told["ema_drift"] = stack.drift()
        told["augment_probability"] = stack.augment_probability
        return samples, told

    def _set_learning_rates(self, epochs_done: float) -> None:
        rates = []
        for config in self._configs:
            factor = learning_rate_factor(config.schedule, epochs_done, config.epochs)
            optimizer = config.optimizer
            rates.append((optimizer.generator_lr * factor, optimizer.discriminator_lr * factor))
        self._learning_rates = rates

    def _count_seconds(self, began: float) -> None:
        share = (time.perf_counter() - began) / len(self._stack)
        self._stack.epoch_seconds = [seconds + share for seconds in self._stack.epoch_seconds]

    def _checkpoint(self, everyone: bool) -> None:
        for row, member in self._live():
            if everyone or self._stack.epoch % member.config.checkpoint_every_epochs == 0:
                self._write(row, member)
                _emit(member, Checkpoint(member.state.epoch, member.state.state_dict()))

    def _write(self, row: int, member: Member) -> None:
        self._stack.write(row, member.state, self._learning_rates[row])

    def _live(self) -> Iterator[tuple[int, Member]]:
        for row, member in enumerate(self._members):
            if member.error is None:
                yield row, member

    def _ended(self) -> bool:
        return any(member.error is not None for member in self._members)


def _emit(member: Member, event: Event) -> None:
    """What a run's sink raises ends that run and no other."""
    try:
        member.emit(event)
    except Exception as error:
        member.error = member.error or error


def _has(config: RunConfig, diagnostic: str) -> bool:
    if diagnostic == "ema_drift":
        return config.generator.ema_half_life_images > 0
    return diagnostic != "augment_probability" or isinstance(config.augment, AdaptiveConfig)


def _diversity(samples: Tensor) -> Tensor:
    """As ``diagnostics.diversity``, of (R, N, C, H, W): (R,)."""
    flat = samples.flatten(2).double()
    mode = "donot_use_mm_for_euclid_dist"  # which would lose digits of what is alike
    total = torch.cdist(flat, flat, compute_mode=mode).sum((1, 2))
    num = samples.shape[1]
    distance: Tensor = total / (num * (num - 1)) / flat.shape[2] ** 0.5
    return distance


def _stacked(outcome: StepOutcome) -> Tensor:
    """(R, number of names)"""
    return torch.stack([getattr(outcome, name) for name in StepOutcome.names()], dim=1)


def _lr(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
