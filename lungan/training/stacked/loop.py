"""The training loop of R runs at once; each run's events go to its own sink."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lungan.config import DcganDiscriminatorConfig, DcganGeneratorConfig, RunConfig
from lungan.errors import DivergedError
from lungan.models.pixels import to_uint8
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
from lungan.training.loop import NUM_SAMPLES, Interrupted
from lungan.training.material import Material
from lungan.training.outcome import StepOutcome
from lungan.training.randomness import fixed_latents, permutation
from lungan.training.schedules import learning_rate_factor
from lungan.training.stacked.diagnostics import diagnose, sample, tells
from lungan.training.stacked.draws import Draws
from lungan.training.stacked.networks import StackedDiscriminator, StackedGenerator
from lungan.training.stacked.optimizers import kind
from lungan.training.stacked.state import StackedState
from lungan.training.stacked.step import LearningRates, build_stacked_step
from lungan.training.state import TrainingState

NUM_WRITERS = 8


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
        self._writers = ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="writer")
        self._seconds = [0.0] * len(configs)
        self._learning_rates: LearningRates = [
            (_lr(state.generator_optimizer), _lr(state.discriminator_optimizer)) for state in states
        ]

    def close(self) -> None:
        self._draws.close()
        self._writers.shutdown()

    def run(self, until: int, tell: Sink, stop: Callable[[], bool]) -> None:
        stack, images = self._stack, self._material.images
        batch_size = self._shared.batch_size
        steps_per_epoch = -(-len(images) // batch_size)
        while stack.epoch < until and not self._ended():
            first = stack.step - stack.epoch * steps_per_epoch
            tell(EpochStart(stack.epoch + 1, steps_per_epoch))
            seeds = [config.seed for config in self._configs]
            orders = [permutation(s, stack.epoch, len(images), images.device) for s in seeds]
            order = torch.stack(orders)
            began = time.perf_counter()
            for index in range(first, steps_per_epoch):
                self._set_learning_rates(stack.epoch + index / steps_per_epoch)
                chosen = order[:, index * batch_size : (index + 1) * batch_size]
                outcome = self._step(images[chosen], self._learning_rates)
                num = chosen.shape[1]
                stack.epoch_totals += outcome.stacked().T.double() * num
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
        samples = sample(stack, self._generator, self._latents)
        told = diagnose(stack, self._discriminator, samples, self._material.held_out)
        means = stack.epoch_totals.T / num_images
        table = torch.cat([means, torch.stack(list(told.values())).double()])
        columns = table.T.tolist()  # waits for the device
        self._count_seconds(began)
        self._seconds = stack.epoch_seconds
        stack.epoch += 1
        stack.begin_epoch()
        lines = self._lines(list(told), columns)
        if lines:
            shared = set.intersection(*(set(line) for line in lines.values()))
            summed = {key: sum(line[key] for line in lines.values()) for key in shared}
            tell(EpochEnd(stack.epoch, {key: summed[key] / len(lines) for key in summed}))
        wanting = {row for row in lines if self._wants_samples(self._configs[row])}
        pictures = to_uint8(samples).cpu().numpy() if wanting else None
        events: dict[int, list[Event]] = {}
        for row, line in lines.items():
            events[row] = [EpochEnd(stack.epoch, line)]
            if pictures is not None and row in wanting:
                events[row].append(Samples(stack.epoch, pictures[row]))
        self._emit(events)
        for row, member in self._live():
            every = member.config.score.every_epochs
            if every and stack.epoch % every == 0:
                self._write(row, member)
                _emit(member, [Snapshot(stack.epoch, member.state.inference_generator)])

    def _lines(self, told: list[str], columns: list[list[float]]) -> dict[int, dict[str, float]]:
        """The epoch's metrics by row, of rows that have not diverged."""
        stack, num_images = self._stack, len(self._material.images)
        names, lines = StepOutcome.names(), {}
        for row, member in self._live():
            metrics = dict(zip(names, columns[row], strict=False))
            try:
                check_finite(metrics, stack.epoch)
            except DivergedError as error:
                member.error = error
                continue
            extra = dict(zip(told, columns[row][len(names) :], strict=True))
            lr_generator, lr_discriminator = self._learning_rates[row]
            seconds = self._seconds[row]
            lines[row] = (
                {"epoch": stack.epoch, "images_seen": stack.images_seen}
                | metrics
                | {key: value for key, value in extra.items() if tells(member.config, key)}
                | {"lr_generator": lr_generator, "lr_discriminator": lr_discriminator}
                | {"seconds": seconds, "images_per_second": num_images / seconds}
            )
        return lines

    def _wants_samples(self, config: RunConfig) -> bool:
        epoch, every = self._stack.epoch, config.samples_every_epochs
        return epoch == config.epochs or bool(every and epoch % every == 0)

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
        events: dict[int, list[Event]] = {}
        for row, member in self._live():
            if everyone or self._stack.epoch % member.config.checkpoint_every_epochs == 0:
                self._write(row, member)
                events[row] = [Checkpoint(member.state.epoch, member.state.state_dict())]
        self._emit(events)

    def _emit(self, events: dict[int, list[Event]]) -> None:
        """Each run's own in order, but runs at the same time: their files wait for the disk."""
        members = [self._members[row] for row in events]
        for _ in self._writers.map(_emit, members, events.values()):
            pass

    def _write(self, row: int, member: Member) -> None:
        self._stack.write(row, member.state, self._learning_rates[row])

    def _live(self) -> Iterator[tuple[int, Member]]:
        for row, member in enumerate(self._members):
            if member.error is None:
                yield row, member

    def _ended(self) -> bool:
        return any(member.error is not None for member in self._members)


def _emit(member: Member, events: Sequence[Event]) -> None:
    """What a run's sink raises ends that run and no other."""
    try:
        for event in events:
            member.emit(event)
    except Exception as error:
        member.error = error


def _lr(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
