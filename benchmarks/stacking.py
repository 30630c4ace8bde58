"""What torch.func can make of the ordinary step: several runs as one, by vmap.

    python benchmarks/stacking.py [--runs S] [--rounds N] [--json FILE|-]

Runs that differ by seed alone have their weights stacked. The ordinary step's work, networks and
losses run under ``vmap``, gradients are taken outside of it, and each run's own optimizer works on
views of the stack. It is first asked whether a step of the stack gives each run what the ordinary
step gives it, in float64, then what CPU time the step takes beside the runs' own steps.

Operations are replaced where vmap needs it: transposed convolutions and gradient penalties by
PyTorch's, leaky ReLU with dropout by two operations. Random numbers are drawn for all runs at once.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import figures
import torch
import torch.nn.functional as F
import train_step
import turns
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from train_step import Step

from lungan.config import RunConfig
from lungan.config.compose import compose, composer
from lungan.models import dcgan, layers
from lungan.models.build import Classes
from lungan.models.operations import RandomBits, threshold
from lungan.training import losses
from lungan.training import step as steps
from lungan.training.losses import Logits
from lungan.training.randomness import StepInputs
from lungan.training.state import TrainingState, build_state
from lungan.training.step import AlternatingStep, build_step

CPU = torch.device("cpu")

SMALL = ["batch_size=8", "generator.width=8", "discriminator.width=8", "loss.update=alternating"]
CASES = {
    "dcgan": [],
    "dcgan, conditional": ["generator.conditional=true", "data.classes=[]"],
    "dcgan, r1 and r2": ["loss.r1=0.1", "loss.r2=0.1", "loss.penalty_every_steps=1"],
    "dcgan, lsgan, RMSprop": ["loss=lsgan", "optimizer=rmsprop"],
    "resnet, spectral norm": [
        "generator=resnet", "discriminator=resnet", "discriminator.spectral_norm=true",
        "optimizer=sgd",
    ],
    "fastgan, small_data_64": ["experiment=small_data_64", "data.size=64", "optimizer=sgd"],
}  # fmt: skip
"""Batch norm takes out the biases before it, so that their gradients are rounding noise: Adam would
make steps of these in resnet and fastgan, gradient descent does not."""
STEPS = 5
TIMED = {
    "report": ["loss.update=alternating"],
    "report, batch 16, width 16": [
        *SMALL, "batch_size=16", "generator.width=16", "discriminator.width=16",
    ],
    "small_data_64": ["experiment=small_data_64", "data.size=64"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4, metavar="S", help="of the stack (4)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="timed (7)")
    figures.add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"runs": options.runs, "rounds": options.rounds, "steps": STEPS}
    result["difference"] = {name: difference(settings) for name, settings in CASES.items()}
    result["cpu_ms"] = {
        name: times(settings, options.runs, options.rounds) for name, settings in TIMED.items()
    }
    with torch.autocast("cpu", torch.bfloat16):
        one, kernel = torch.ones(2, 3, 4, 8, 8), torch.ones(2, 5, 4, 3, 3)
        result["convolution_in_autocast"] = str(F.conv2d(one[0], kernel[0]).dtype)
        result["stacked_convolution_in_autocast"] = str(vmap(F.conv2d)(one, kernel).dtype)
    result["machine"] = figures.machine()
    figures.write(result, options.json, print_table)


class Stack:
    """Networks of one kind as one: their tensors have the run as first dimension."""

    def __init__(self, states: list[TrainingState], name: str) -> None:
        self.networks = [getattr(state, name) for state in states]
        self.optimizers = [getattr(state, f"{name}_optimizer") for state in states]
        self.tensors = stack_module_state(self.networks)
        self.network = copy.deepcopy(self.networks[0]).to("meta")
        for run, network in enumerate(self.networks):
            own = (network.named_parameters(), network.named_buffers())
            for stacked, named in zip(self.tensors, own, strict=True):
                for name, tensor in named:
                    tensor.data = stacked[name].data[run]

    def update(self) -> None:
        """Every run's own optimizer, by its own part of the gradients."""
        for run, (network, optimizer) in enumerate(
            zip(self.networks, self.optimizers, strict=True)
        ):
            for name, parameter in network.named_parameters():
                gradient = self.tensors[0][name].grad
                parameter.grad = None if gradient is None else gradient[run]
            optimizer.step()
            network.zero_grad(set_to_none=True)


class OfRun:
    """Inside of vmap: a stack's network as it is in a run."""

    def __init__(self, stack: Stack, tensors: tuple[dict[str, Tensor], ...]) -> None:
        self.call = functools.partial(functional_call, stack.network, tensors)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(arguments)

    def requires_grad_(self, _: bool) -> None:
        """Gradients that nobody asked for are cleared after the step."""


class InputsOfRun:
    """Inside of vmap: what the run draws, which is drawn for all runs at once."""

    def __init__(self, inputs: list[StepInputs], run: Tensor) -> None:
        self.inputs, self.run = inputs, run

    def drawn(self, draw: Callable[[StepInputs], Tensor]) -> Tensor:
        return torch.stack([draw(inputs) for inputs in self.inputs])[self.run]

    def latents(self, *arguments: Any) -> Tensor:
        return self.drawn(lambda inputs: inputs.latents(*arguments))

    def uniforms(self, *arguments: Any) -> Tensor:
        return self.drawn(lambda inputs: inputs.uniforms(*arguments))

    def dropout_bits(self, draw: int) -> RandomBits:
        sources = [inputs.dropout_bits(draw) for inputs in self.inputs]
        return lambda count: torch.stack([bits(count) for bits in sources])[self.run]


class StackedStep:
    """The ordinary alternating step of one discriminator update, of all runs."""

    def __init__(self, configs: list[RunConfig], states: list[TrainingState]) -> None:
        self.states = states
        self.stacks = [Stack(states, name) for name in ("generator", "discriminator")]
        self.inputs = [StepInputs(config.seed, CPU) for config in configs]
        self.step = AlternatingStep(configs[0], dataclasses.replace(states[0]), "fp32")

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> None:
        """images: (S, N, C, H, W) uint8. labels: (S, N) int64."""
        for inputs, state in zip(self.inputs, self.states, strict=True):
            inputs.begin(None, state.step)
        for number, (work, stack) in enumerate(
            zip((self.step.judge, self.step.generate), self.stacks[::-1], strict=True)
        ):
            self.backward(functools.partial(work, number), images, labels)
            stack.update()
            for each in self.stacks:
                for parameter in each.tensors[0].values():
                    parameter.grad = None
        for state in (*self.states, self.step.state):
            state.step += 1

    def backward(self, work: Callable[..., Tensor], images: Tensor, labels: Tensor | None) -> None:
        """Gradients of the losses that ``work`` would send back, taken outside of vmap."""

        def of_run(run: Tensor, networks: Any, images: Tensor, labels: Tensor | None) -> Tensor:
            state = self.step.state
            state.generator, state.discriminator = map(OfRun, self.stacks, networks)
            self.step.inputs = InputsOfRun(self.inputs, run)
            losses: list[Tensor] = []
            with mock.patch.object(torch.autograd, "backward", losses.append):
                work(images, labels)
            return torch.stack(losses).sum()

        networks = [stack.tensors for stack in self.stacks]
        in_dims = (0, 0, 0, None if labels is None else 0)
        runs = torch.arange(len(self.states))
        vmap(of_run, in_dims, randomness="error")(runs, networks, images, labels).sum().backward()


def squared_gradients(logits_of: Logits, images: Tensor) -> Tensor:
    gradients = grad(lambda images: logits_of(images).sum())(images)
    return gradients.flatten(1).square().sum(1)


def leaky_dropout(features: Tensor, slope: float, probability: float, bits: RandomBits) -> Tensor:
    num, channels, height, width = features.shape
    kept = bits(features.numel()) >= threshold(probability) - 32768
    mask = kept.view(num, height, width, channels).permute(0, 3, 1, 2)
    return F.leaky_relu(features, slope) * mask


def up_convolution(self: layers.UpConvolution, features: Tensor) -> Tensor:
    return F.conv_transpose2d(features, self.weight, None, 2, 1)[..., :-1, :-1]


@contextlib.contextmanager
def stackable() -> Iterator[None]:
    with (
        mock.patch.object(layers.UpConvolution, "forward", up_convolution),
        mock.patch.object(dcgan, "leaky_dropout", leaky_dropout),
        mock.patch.object(losses, "squared_gradients", squared_gradients),
        mock.patch.object(steps, "gradient_norm", lambda _: torch.zeros(())),
    ):
        yield


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """What lungan draws or converts to float32 is float64."""
    with contextlib.ExitStack() as patches:
        for name in ("latents", "uniforms", "number"):
            ordinary = getattr(StepInputs, name)

            def doubled(*args: Any, ordinary: Callable[..., Tensor] = ordinary) -> Tensor:
                return ordinary(*args).double()

            patches.enter_context(mock.patch.object(StepInputs, name, doubled))
        patches.enter_context(mock.patch.object(Tensor, "float", Tensor.double))
        yield


def prepared(
    settings: list[str], runs: int, dtype: torch.dtype
) -> tuple[list[RunConfig], list[TrainingState], Tensor, Tensor | None]:
    with composer():
        configs = [compose(["data=phantom", *settings, f"seed={seed}"]) for seed in range(runs)]
    conditional = configs[0].generator.conditional
    size, count = int(configs[0].data.size), configs[0].batch_size
    classes = Classes(("a", "b"), (0.5, 0.5)) if conditional else None
    states = [build_state(each, size, 1, CPU, classes) for each in configs]
    for state in states:
        state.generator.to(dtype)
        state.discriminator.to(dtype)
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (runs, count, 1, size, size), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 2, (runs, count), generator=rng) if conditional else None
    return configs, states, images, labels


def difference(settings: list[str]) -> float:
    """Of weights and running statistics after STEPS steps of three runs: the largest distance of
    a tensor from the ordinary run's, relative to its length."""
    with in_float64():
        configs, single, images, labels = prepared([*settings, *SMALL], 3, torch.float64)
        _, stacked, _, _ = prepared([*settings, *SMALL], 3, torch.float64)
        for run, (config, state) in enumerate(zip(configs, single, strict=True)):
            step = build_step(config, state, "fp32")
            for _ in range(STEPS):
                step(images[run], None if labels is None else labels[run])
        with stackable():
            together = StackedStep(configs, stacked)
            for _ in range(STEPS):
                together(images, labels)
    return max(
        float((ours - theirs).norm() / ours.norm().clamp_min(1e-9))
        for one, other in zip(single, stacked, strict=True)
        for network in ("generator", "discriminator")
        for ours, theirs in zip(
            getattr(one, network).state_dict().values(),
            getattr(other, network).state_dict().values(),
            strict=True,
        )
    )


def times(settings: list[str], runs: int, rounds: int) -> dict[str, float]:
    """Median CPU time of all runs' steps: one after the other as lungan does them, the same with
    the stack's operations, and stacked; one thread, fp32, taking turns."""
    configs, states, images, labels = prepared(settings, runs, torch.float32)
    singles = [build_step(each, state, "fp32") for each, state in zip(configs, states, strict=True)]
    configs, states, _, _ = prepared(settings, runs, torch.float32)
    together = StackedStep(configs, states)
    every = configs[0].loss.penalty_every_steps

    def one_by_one(_: int) -> None:
        for run, step in enumerate(singles):
            step(images[run])

    def stacked(_: int) -> None:
        together(images, labels)

    def milliseconds(step: Step) -> float:
        return train_step.milliseconds(step, every, CPU, time.process_time)

    forms = {
        "single": lambda: milliseconds(one_by_one),
        "single_pytorch": stackable()(lambda: milliseconds(one_by_one)),
        "stacked": stackable()(lambda: milliseconds(stacked)),
    }
    taken = turns.alternate(forms, rounds, warm_up=1)
    return {name: statistics.median(each) for name, each in taken.items()}


def print_table(result: dict[str, Any]) -> None:
    print(figures.describe(result["machine"]))
    for name, found in result["difference"].items():
        print(f"{name:>28}: difference from single runs in float64 {found:.1e}")
    print(
        f"a convolution in bf16 autocast gives {result['convolution_in_autocast']}, "
        f"stacked {result['stacked_convolution_in_autocast']}"
    )
    for name, row in result["cpu_ms"].items():
        cells = ", ".join(f"{form} {value:.0f}" for form, value in row.items())
        print(f"{name:>28}: CPU ms of a step of {result['runs']} runs: {cells}")


if __name__ == "__main__":
    main()
