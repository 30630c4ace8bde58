"""Steps that read their inputs from fixed addresses, and their recording as CUDA graphs."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lungan.config import RunConfig, presets
from lungan.models.build import Classes
from lungan.training import graphs as graphs_module
from lungan.training.events import EpochStart, Event, StepEnd
from lungan.training.graphs import NUM_EAGER_CALLS, Graphs
from lungan.training.loop import train
from lungan.training.randomness import StepInputs
from lungan.training.state import TrainingState, build_state
from lungan.training.step import Step, build_step
from lungan.training.training_data import TrainingData

CPU = torch.device("cpu")
ConfigMaker = Callable[..., RunConfig]
SIZES = (6, 6, 6, 3) * 4
CLASSES = Classes(("one", "other"), (0.5, 0.5))

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "simultaneous": ({}, {}),
    "penalties": ({}, {"r1": 0.1, "r2": 0.1, "lecam": 0.2, "penalty_every_steps": 2}),
    "alternating": (
        {"update": "alternating", "discriminator_updates": 2},
        {"gradient_penalty": 1.0, "penalty_every_steps": 3, "lecam": 0.1},
    ),
    "relativistic": (
        {"update": "alternating"},
        {"name": "relativistic", "micro_batches": 2, "r1": 0.1},
    ),
}


def case(make_config: ConfigMaker, name: str, device: torch.device) -> RunConfig:
    form, loss = CASES[name]
    config = make_config(width=8, latent_dim=20, **form)
    return dataclasses.replace(
        config,
        loss=dataclasses.replace(config.loss, **loss),
        generator=dataclasses.replace(config.generator, conditional=name != "simultaneous"),
        augment=presets.load("augment", "none" if name == "simultaneous" else "adaptive"),
        device=str(device),
    )


def trained(
    config: RunConfig, precision: str, device: torch.device, prepare: Callable[[Any], None]
) -> tuple[TrainingState, list[Tensor]]:
    """The state after sixteen steps of batches of two sizes, and what the steps told."""
    conditional = config.generator.conditional
    state = build_state(config, 28, 1, device, CLASSES if conditional else None)
    step = build_step(config, state, precision)
    prepare(step)
    rng = torch.Generator().manual_seed(0)
    told = []
    for size in SIZES:
        images = torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8, generator=rng)
        labels = torch.randint(0, 2, (size,), generator=rng).to(device) if conditional else None
        told.append(torch.stack(step(images.to(device), labels)))
    return state, told


def tensors(state: TrainingState) -> list[Tensor]:
    networks = (state.generator, state.discriminator)
    weights = [tensor for network in networks for tensor in network.state_dict().values()]
    return [*weights, state.logit_means, state.augment_probability]


def assert_equal(ours: tuple[TrainingState, list[Tensor]], wanted: Any) -> None:
    each = (tensors(state) + told for state, told in (ours, wanted))
    assert all(torch.equal(one, other) for one, other in zip(*each, strict=True))


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "fp32") for name in CASES), ("relativistic", "bf16")]
)
def test_held_inputs_give_the_bits_of_fresh_ones(
    name: str, precision: str, make_config: ConfigMaker
) -> None:
    config = case(make_config, name, CPU)

    def hold(step: Step) -> None:
        step.inputs = StepInputs(config.seed, CPU, hold=True)

    fresh = trained(config, precision, CPU, lambda _: None)
    assert_equal(trained(config, precision, CPU, hold), fresh)
    assert all(told.isfinite().all() for told in fresh[1])


def test_held_inputs_keep_their_addresses() -> None:
    inputs = StepInputs(0, CPU, hold=True)
    asked: list[tuple[Tensor, ...]] = []
    values = []
    for step in range(3):
        inputs.begin("key", step)
        held = (
            inputs.given("images", torch.full((2,), float(step))),
            inputs.latents(2, 3, 0),
            inputs.uniforms("augment", (0, 0), (2,)),
            inputs.number("share", float),
        )
        asked.append(held)
        values.append([tensor.clone() for tensor in held])
    assert len({tuple(tensor.data_ptr() for tensor in held) for held in asked}) == 1
    assert values[2][0].tolist() == [2, 2]
    assert float(values[2][3]) == 2
    assert not torch.equal(values[1][1], values[2][1])
    assert not torch.equal(values[1][2], values[2][2])


class Device:
    """Stands in for CUDA: what is recorded leaves no trace, and every replay does it again."""

    def __init__(self, step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state: TrainingState = step.state
        self.num_replays = 0
        self.work: graphs_module.Work
        stand_ins: dict[str, Callable[..., Any]] = {
            "Stream": lambda _: self,
            "current_stream": lambda _: self,
            "set_stream": lambda _: None,
            "stream": lambda _: contextlib.nullcontext(),
            "CUDAGraph": lambda: Recording(self),
            "graph": lambda recording, **_: recording.under_way(),
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        networks = (self.state.generator, self.state.discriminator)
        self.parameters = [p for network in networks for p in network.parameters()]
        self.graphs = Graphs(self.parameters, CPU)
        step.inputs = StepInputs(step.config.seed, CPU, hold=True)
        step.graphs = self._perform

    def wait_stream(self, other: object) -> None:
        pass

    def _perform(self, key: Any, work: graphs_module.Work) -> Tensor:
        self.work = work
        return self.graphs(key, work)


class Recording:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._work = device.work

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        before = copy.deepcopy(tensors(self._device.state))
        yield
        with torch.no_grad():
            for tensor, value in zip(tensors(self._device.state), before, strict=True):
                tensor.copy_(value)

    def replay(self) -> None:
        (graph,) = (g for g in self._device.graphs._graphs.values() if g.graph is self)
        graph.scalars.copy_(self._work())
        for parameter, gradient in graph.gradients:
            assert parameter.grad is not None
            gradient.copy_(parameter.grad)
        for parameter in self._device.parameters:
            parameter.grad = None
        self._device.num_replays += 1


@pytest.mark.parametrize("name", list(CASES))
def test_recorded_steps_are_eager_ones(
    name: str, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Graphs does around a recording, with one that a CPU can make."""
    config = case(make_config, name, CPU)
    eager = trained(config, "fp32", CPU, lambda _: None)
    devices: list[Device] = []
    recorded = trained(config, "fp32", CPU, lambda step: devices.append(Device(step, monkeypatch)))
    assert_equal(recorded, eager)
    counted = devices[0].graphs
    assert max(counted._calls.values()) == NUM_EAGER_CALLS
    kinds = {"simultaneous": 1, "penalties": 1, "alternating": 3, "relativistic": 2}[name]
    assert devices[0].num_replays == sum(SIZES.count(n) * kinds for n in (3, 6)) - sum(
        counted._calls.values()
    )
    assert devices[0].num_replays > 0


def test_work_that_cannot_be_recorded_is_done_eagerly_and_said_once(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = case(make_config, "alternating", CPU)
    eager = trained(config, "fp32", CPU, lambda _: None)

    @contextlib.contextmanager
    def refused(*_: object, **__: object) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    def prepare(step: Any) -> None:
        Device(step, monkeypatch)
        monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: Untraced(step.state, refused()))

    with caplog.at_level(logging.WARNING, logger="lungan"):
        assert_equal(trained(config, "fp32", CPU, prepare), eager)
    (line,) = caplog.messages
    assert line == ("steps are not recorded as CUDA graphs, and slower so: operation not permitted")


class Untraced(contextlib.AbstractContextManager[None]):
    """A recording that fails, as one on a device without a trace in the state."""

    def __init__(self, state: TrainingState, inner: Any) -> None:
        self._before = copy.deepcopy(tensors(state))
        self._state = state
        self._inner = inner

    def __enter__(self) -> None:
        self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors(self._state), self._before, strict=True):
                tensor.copy_(value)
        self._inner.__exit__(*error)


def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda:0")


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sums whose order changes from call to call, so that equal steps give equal bits."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_on_a_gpu_give_what_eager_steps_give(
    name: str, precision: str, make_config: ConfigMaker, caplog: pytest.LogCaptureFixture
) -> None:
    device = cuda()
    config = case(make_config, name, device)

    def without(step: Any) -> None:
        step.graphs = None

    steps: list[Any] = []
    eager = trained(config, precision, device, without)
    with caplog.at_level(logging.WARNING, logger="lungan"):
        recorded = trained(config, precision, device, steps.append)
    assert not caplog.messages
    assert steps[0].graphs._graphs, "nothing was recorded"
    for ours, wanted in zip(recorded[1], eager[1], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


def training_data(device: torch.device) -> TrainingData:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (44, 1, 28, 28), dtype=torch.uint8, generator=rng)
    return TrainingData(images.to(device), None, None, None, None)


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
def test_a_run_on_a_gpu_that_was_stopped_goes_on_as_one_that_was_not(
    make_config: ConfigMaker,
) -> None:
    device = cuda()
    config = dataclasses.replace(case(make_config, "simultaneous", device), epochs=6, batch_size=8)

    def run(state: TrainingState, epochs: int) -> TrainingState:
        shorter = dataclasses.replace(config, epochs=epochs)
        step = build_step(shorter, state, "fp32")
        train(shorter, state, step, training_data(device), emit=lambda _: None)
        return state

    whole = run(build_state(config, 28, 1, device), 6)
    half = copy.deepcopy(run(build_state(config, 28, 1, device), 3).state_dict())
    continued = build_state(config, 28, 1, device)
    continued.load_state_dict(half)
    run(continued, 6)
    assert continued.step == whole.step
    for ours, wanted in zip(tensors(continued), tensors(whole), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["simultaneous", "alternating"])
def test_nothing_in_an_epoch_waits_for_the_gpu(name: str, make_config: ConfigMaker) -> None:
    device = cuda()
    config = dataclasses.replace(make_config(width=8), epochs=6, batch_size=8, device=str(device))
    loss = dataclasses.replace(config.loss, update=name, r1=0.1)
    config = dataclasses.replace(config, loss=loss, augment=presets.load("augment", "adaptive"))
    state = build_state(config, 28, 1, device)
    num_steps = -(-44 // config.batch_size)

    def watch(event: Event) -> None:
        # Recordings, in the epochs before, do wait.
        if isinstance(event, EpochStart) and event.epoch == config.epochs:
            torch.cuda.set_sync_debug_mode("error")
        if isinstance(event, StepEnd) and event.step == num_steps:
            torch.cuda.set_sync_debug_mode("default")

    try:
        step = build_step(config, state, "bf16")
        train(config, state, step, training_data(device), emit=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.epoch == config.epochs
