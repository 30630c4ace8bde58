"""Runs of a stack against the same runs trained one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from lungan.config import (
    AdamConfig,
    AdaptiveConfig,
    DecayScheduleConfig,
    OptimizerConfig,
    RmspropConfig,
    RunConfig,
    ScheduleConfig,
    SgdConfig,
    StepScheduleConfig,
)
from lungan.errors import DivergedError
from lungan.training.events import Checkpoint, EpochEnd, Event, Samples, Snapshot
from lungan.training.loop import Interrupted, train
from lungan.training.material import Material
from lungan.training.stacked.loop import Member, train_stack
from lungan.training.state import TrainingState, build_state
from lungan.training.step import build_step

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
NUM_IMAGES = 44  # three steps of 16 an epoch, the last of 12
LRS = {"generator_lr": 1e-3, "discriminator_lr": 2e-3}
# Epsilons are large: where a gradient is all rounding, a tiny one makes whole steps of its sign.
ADAM = AdamConfig(
    name="adam",
    **LRS,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-4,
    epsilon_convention="keras",
    weight_decay=0,
)
RMSPROP = RmspropConfig(
    name="rmsprop", **LRS, decay=0.9, momentum=0, epsilon=1e-4, epsilon_convention="keras"
)
MIXED: list[OptimizerConfig] = [
    ADAM,
    RMSPROP,
    dataclasses.replace(ADAM, name="adamw", epsilon_convention="torch", weight_decay=0.01),
    dataclasses.replace(RMSPROP, epsilon_convention="torch", momentum=0.5, epsilon=0.1),
    dataclasses.replace(ADAM, generator_lr=3e-4, weight_decay=0.01),
    SgdConfig(name="sgd", **LRS, momentum=0.5),
]
SCHEDULES: list[ScheduleConfig] = [
    ScheduleConfig(name="constant", warmup_epochs=0),
    ScheduleConfig(name="constant", warmup_epochs=1.5),
    DecayScheduleConfig(name="linear", warmup_epochs=0, final_factor=0.1),
    DecayScheduleConfig(name="cosine", warmup_epochs=0, final_factor=0),
    StepScheduleConfig(name="step", warmup_epochs=0, every_epochs=1, factor=0.5),
    ScheduleConfig(name="constant", warmup_epochs=0),
]
ADAPTIVE = AdaptiveConfig(
    name="adaptive",
    brightness=1,
    saturation=1,
    contrast=0.5,
    translation=0.125,
    cutout=0.3,
    target=0.6,
    adjust_images=100,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def material(channels: int = 1) -> Material:
    rng = torch.Generator().manual_seed(0)

    def images(count: int) -> torch.Tensor:
        return torch.randint(0, 256, (count, channels, 28, 28), dtype=torch.uint8, generator=rng)

    return Material(images(NUM_IMAGES), None, images(8), None, None)


def configs_of(make_config: MakeConfig, epochs: int = 2, **settings: Any) -> list[RunConfig]:
    """A run for each of the optimizers, with schedules and seeds of their own."""
    configs = []
    for seed, (optimizer, schedule) in enumerate(zip(MIXED, SCHEDULES, strict=True)):
        config = make_config(optimizer=optimizer, seed=seed, width=8, latent_dim=12, **settings)
        configs.append(
            dataclasses.replace(
                config, schedule=schedule, epochs=epochs, samples_every_epochs=1 + seed % 2
            )
        )
    return configs


def start(config: RunConfig) -> TrainingState:
    return build_state(config, 28, config.data.channels, CPU)  # type: ignore[attr-defined]


def alone(
    config: RunConfig, images: Material, state: TrainingState | None = None, precision: str = "fp32"
) -> tuple[TrainingState, list[Event]]:
    state = state or start(config)
    events: list[Event] = []
    train(config, state, build_step(config, state, precision), images, emit=events.append)
    return state, events


def together(
    configs: Sequence[RunConfig],
    images: Material,
    states: Sequence[TrainingState] | None = None,
    precision: str = "fp32",
    until: int = 2,
    **options: Any,
) -> tuple[list[Member], list[list[Event]]]:
    events: list[list[Event]] = [[] for _ in configs]
    states = states or [start(config) for config in configs]
    members = [
        Member(config, state, sink.append)
        for config, state, sink in zip(configs, states, events, strict=True)
    ]
    train_stack(members, images, precision, until, tell=lambda _: None, **options)
    return members, events


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, f"{name}.{key}")
    else:
        yield name, value


def same_state(ours: TrainingState, theirs: TrainingState, tolerance: float = 1e-4) -> None:
    """Weights, statistics, optimizers and progress, by name, type and value."""
    found, wanted = dict(leaves(ours.state_dict())), dict(leaves(theirs.state_dict()))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.allclose(found[name], value, atol=tolerance, rtol=1e-3), name
        elif isinstance(value, float) and name != ".epoch_seconds":
            assert found[name] == pytest.approx(value, rel=1e-12), name
        else:
            assert isinstance(value, float) or found[name] == value, name


def same_events(ours: list[Event], theirs: list[Event], tolerance: float = 1e-4) -> None:
    """What a single run says at the end of its epochs; of epochs' steps a stack speaks for all."""
    kinds = EpochEnd | Samples | Snapshot | Checkpoint
    theirs = [event for event in theirs if isinstance(event, kinds)]
    assert [type(event) for event in ours] == [type(event) for event in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert not isinstance(our, kinds) or our.epoch == their.epoch  # type: ignore[union-attr]
        if isinstance(our, EpochEnd) and isinstance(their, EpochEnd):
            assert list(our.metrics) == list(their.metrics)
            for name in set(their.metrics) - {"seconds", "images_per_second"}:
                wanted = pytest.approx(their.metrics[name], abs=tolerance, rel=1e-3)
                assert our.metrics[name] == wanted, name
        if isinstance(our, Samples) and isinstance(their, Samples):
            assert abs(our.images.astype(int) - their.images.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [
        ({}, 1e-4),
        ({"update": "alternating", "discriminator_updates": 2}, 1e-4),
        ({"channels": 3, "augment": ADAPTIVE, "loss": "hinge", "lecam": 0.3, "ema": 40}, 1e-3),
        ({"update": "alternating", "loss": "relativistic", "dropout": 0.0, "ema": 40}, 1e-3),
    ],
    ids=["simultaneous", "alternating", "all that is random", "relativistic"],
)
def test_each_run_is_the_one_that_was_alone(
    make_config: MakeConfig, recipe: dict[str, Any], tolerance: float
) -> None:
    settings = dict(recipe)
    augment, loss = settings.pop("augment", None), settings.pop("loss", "bce")
    lecam, ema = settings.pop("lecam", 0), settings.pop("ema", 0)
    configs = configs_of(make_config, **settings)
    for config in configs:
        config.augment = augment or config.augment
        config.loss = dataclasses.replace(config.loss, name=loss, lecam=lecam)
        config.score.every_epochs = 2
        if config.seed % 2:
            config.generator.ema_half_life_images = ema
    images = material(configs[0].data.channels)  # type: ignore[attr-defined]
    members, events = together(configs, images)
    for config, member, said in zip(configs, members, events, strict=True):
        assert member.error is None
        state, theirs = alone(config, images)
        same_state(member.state, state, tolerance)
        same_events(said, theirs, tolerance)


def test_bf16_is_a_single_runs_bf16(make_config: MakeConfig) -> None:
    configs = configs_of(make_config, epochs=1)[:2]
    images = material()
    members, events = together(configs, images, precision="bf16", until=1)
    for config, member, said in zip(configs, members, events, strict=True):
        state, theirs = alone(config, images, precision="bf16")
        same_state(member.state, state, 2e-2)
        same_events(said[:1], [e for e in theirs if isinstance(e, EpochEnd)], 2e-2)


def test_stopped_runs_go_on_alone_and_lone_ones_together(make_config: MakeConfig) -> None:
    configs = configs_of(make_config)[1:5]
    images = material()
    asked = iter([False, True])
    stopped = [start(config) for config in configs]
    with pytest.raises(Interrupted):
        together(configs, images, stopped, stop=lambda: next(asked))
    assert {(state.epoch, state.step) for state in stopped} == {(0, 2)}
    resumed, _ = together(configs[2:], images, stopped[2:])
    for config, state in zip(configs[:2], stopped[:2], strict=True):
        same_state(alone(config, images, state)[0], alone(config, images)[0])
    for config, member in zip(configs[2:], resumed, strict=True):
        same_state(member.state, alone(config, images)[0])


def test_a_diverging_run_touches_no_other(make_config: MakeConfig) -> None:
    configs = configs_of(make_config)[:3]
    configs[0].optimizer = dataclasses.replace(ADAM, discriminator_lr=1e30)
    images = material()
    members, events = together(configs, images)
    assert isinstance(members[0].error, DivergedError)
    assert "in epoch 1; try a lower lr" in str(members[0].error)
    assert not events[0]
    for config, member, said in list(zip(configs, members, events, strict=True))[1:]:
        # All stop where one has ended, and have a checkpoint to go on from.
        assert member.error is None and member.state.epoch == 1
        assert isinstance(said[-1], Checkpoint)
        state = start(config)
        step = build_step(config, state, "fp32")
        train(dataclasses.replace(config, epochs=1), state, step, images, emit=lambda _: None)
        if config.schedule.name == "constant":
            same_state(member.state, state)


def test_a_sink_that_fails_ends_its_run_only(make_config: MakeConfig) -> None:
    configs = configs_of(make_config)[:2]

    def full(_: Event) -> None:
        raise OSError("no space left")

    members = [Member(configs[0], start(configs[0]), full)]
    members += [Member(configs[1], start(configs[1]), lambda _: None)]
    train_stack(members, material(), "fp32", 2, tell=lambda _: None)
    assert str(members[0].error) == "no space left"
    assert members[1].error is None and members[1].state.epoch == 1


def test_the_stack_tells_means_over_its_runs(make_config: MakeConfig) -> None:
    configs = configs_of(make_config)[:2]
    told: list[Event] = []
    events: list[list[Event]] = [[], []]
    members = [Member(c, start(c), e.append) for c, e in zip(configs, events, strict=True)]
    train_stack(members, material(), "fp32", 1, tell=told.append)
    ends = [said[0] for said in events]
    assert isinstance(told[-1], EpochEnd)
    for key in ("loss_generator", "seconds"):
        each = [end.metrics[key] for end in ends if isinstance(end, EpochEnd)]
        assert told[-1].metrics[key] == pytest.approx(sum(each) / 2)
    assert len(told) == 1 + 3 + 1
