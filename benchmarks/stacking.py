"""What torch.func can make of the ordinary networks: several runs as one, by vmap.

    python benchmarks/stacking.py [--runs S] [--rounds N] [--json FILE|-]

Runs that differ by seed alone have their weights stacked; every forward pass is the ordinary
network under ``vmap``, gradients are taken outside of it, and each run's own optimizer works on
views of the stack. It is first asked whether a step of the stack gives each run what the ordinary
step gives it, in float64, then what CPU time the step takes beside the runs' own steps.

Networks are changed where vmap needs it: transposed convolutions are PyTorch's, dropout masks are
drawn before the step, leaky ReLU and dropout are two operations.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import figures
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lungan.config import RunConfig
from lungan.config.compose import compose, composer
from lungan.models import dcgan, layers
from lungan.models.build import Classes
from lungan.models.operations import RandomBits, threshold
from lungan.models.sampling import to_floats
from lungan.training.augment import diffaugment
from lungan.training.losses import build_loss
from lungan.training.randomness import StepInputs
from lungan.training.regularizers import has_gradient_penalty
from lungan.training.state import TrainingState, build_state
from lungan.training.step import build_step

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
        "report": times(["loss.update=alternating"], options.runs, options.rounds),
        "report, batch 16, width 16": times(
            [*SMALL, "batch_size=16", "generator.width=16", "discriminator.width=16"],
            options.runs,
            options.rounds,
        ),
        "small_data_64": times(
            ["experiment=small_data_64", "data.size=64"], options.runs, options.rounds
        ),
    }
    with torch.autocast("cpu", torch.bfloat16):
        one, kernel = torch.ones(2, 3, 4, 8, 8), torch.ones(2, 5, 4, 3, 3)
        result["convolution_in_autocast"] = str(F.conv2d(one[0], kernel[0]).dtype)
        result["stacked_convolution_in_autocast"] = str(vmap(F.conv2d)(one, kernel).dtype)
    result["machine"] = figures.machine()
    figures.write(result, options.json, print_table)


class Stack:
    """Networks of one kind as one: their tensors have the run as first dimension."""

    def __init__(self, networks: list[nn.Module]) -> None:
        self.parameters, self.buffers = stack_module_state(networks)
        self.network = copy.deepcopy(networks[0]).to("meta")
        for run, network in enumerate(networks):
            for name, tensor in network.named_parameters():
                tensor.data = self.parameters[name].data[run]
            for name, tensor in network.named_buffers():
                tensor.data = self.buffers[name].data[run]
        self.networks = networks

    def __call__(self, call: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
        """``call`` of the network as it is in a run and of the run's part of each argument."""

        def of_run(tensors: tuple[dict[str, Tensor], ...], *given: Tensor | None) -> Tensor:
            return call(lambda *args: functional_call(self.network, tensors, args), *given)

        in_dims = (0, *(None if each is None else 0 for each in arguments))
        tensors = (self.parameters, self.buffers)
        result: Tensor = vmap(of_run, in_dims, randomness="error")(tensors, *arguments)
        return result

    def update(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Every run's own optimizer, by its own part of the gradients."""
        for run, (network, optimizer) in enumerate(zip(self.networks, optimizers, strict=True)):
            for name, parameter in network.named_parameters():
                gradient = self.parameters[name].grad
                parameter.grad = None if gradient is None else gradient[run]
            optimizer.step()
            network.zero_grad(set_to_none=True)
        for parameter in self.parameters.values():
            parameter.grad = None


class StackedStep:
    """An alternating step of one update each, without micro-batches, of all runs."""

    def __init__(self, configs: list[RunConfig], states: list[TrainingState]) -> None:
        self.config = configs[0]
        self.states = states
        self.generators = Stack([state.generator for state in states])
        self.discriminators = Stack([state.discriminator for state in states])
        self.inputs = [StepInputs(config.seed, torch.device("cpu")) for config in configs]
        self.loss = build_loss(self.config.loss)

    def drawn(self, draw: Callable[[StepInputs], Tensor]) -> Tensor:
        return torch.stack([draw(inputs) for inputs in self.inputs])

    def fake(self, images: Tensor, labels: Tensor | None, update: int) -> Tensor:
        size = images.shape[1], self.config.generator.latent_dim
        latents = self.drawn(lambda inputs: inputs.latents(*size, update))
        return self.generators(lambda network, *args: network(*args), latents, labels)

    def augmented(self, images: Tensor, update: int) -> Tensor:
        if self.config.augment.name != "diffaugment":
            return images
        shape = (12, images.shape[1])
        draws = self.drawn(lambda inputs: inputs.uniforms("augment", (update, 0), shape))
        probability = self.states[0].augment_probability
        changed: Tensor = vmap(
            lambda images, draws: diffaugment(
                self.config.augment, images, probability, lambda *_: draws
            )
        )(images, draws)
        return changed

    def logits(self, images: Tensor, labels: Tensor | None, draw: int | None) -> Tensor:
        """(S, N) of images (S, N, C, H, W)."""
        if labels is not None and labels.shape[1] < images.shape[1]:
            labels = torch.cat([labels, labels], 1)
        bits = None
        counts = [] if draw is None else self.counts(images, labels)
        if counts:
            assert draw is not None
            bits = self.drawn(lambda inputs: torch.cat([*map(inputs.dropout_bits(draw), counts)]))

        def call(network: Any, images: Tensor, labels: Tensor | None, bits: Tensor | None) -> Any:
            return network(images, None if bits is None else served(bits), labels)

        return self.discriminators(call, images, labels, bits)

    def counts(self, images: Tensor, labels: Tensor | None) -> list[int]:
        """How many bits each of a forward pass' dropouts asks for."""
        asked: list[int] = []

        def bits(count: int) -> Tensor:
            asked.append(count)
            return torch.zeros(count, dtype=torch.int16)

        with torch.no_grad():
            network = self.states[0].discriminator.eval()
            network(images[0], bits, None if labels is None else labels[0])
            network.train()
        return asked

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> None:
        """images: (S, N, C, H, W) uint8."""
        for inputs, state in zip(self.inputs, self.states, strict=True):
            inputs.begin(None, state.step)
        with torch.no_grad():
            fake = self.fake(images, labels, 0)
        seen = self.augmented(torch.cat([to_floats(images, fake.dtype), fake], 1), 0)
        real_logits, fake_logits = self.logits(seen, labels, 0).chunk(2, 1)
        vmap(self.loss.discriminator)(real_logits, fake_logits).sum().backward()
        if has_gradient_penalty(self.config.loss, self.states[0].step):
            leaf = seen.detach().requires_grad_()
            logits = self.logits(leaf, labels, None)
            (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
            squares = gradient.flatten(2).square().sum(2)
            real, fake_squares = (part.mean(1).sum() for part in squares.chunk(2, 1))
            config = self.config.loss
            penalty = (config.r1 * real + config.r2 * fake_squares) / 2
            (penalty * config.penalty_every_steps).backward()
        self.discriminators.update([state.discriminator_optimizer for state in self.states])

        fake = self.fake(images, labels, 1)
        real_logits = torch.zeros(images.shape[:2], dtype=fake.dtype)
        if self.loss.relativistic:
            seen = self.augmented(torch.cat([to_floats(images, fake.dtype), fake], 1), 1)
            real, fake = seen.chunk(2, 1)
            with torch.no_grad():
                real_logits = self.logits(real, labels, 1)
        else:
            fake = self.augmented(fake, 1)
        fake_logits = self.logits(fake, labels, 1)
        vmap(self.loss.of_generator)(real_logits, fake_logits).sum().backward()
        self.generators.update([state.generator_optimizer for state in self.states])
        for parameter in self.discriminators.parameters.values():
            parameter.grad = None
        for state in self.states:
            state.step += 1


def served(bits: Tensor) -> RandomBits:
    """What was drawn before, from its beginning on."""
    first = 0

    def give(count: int) -> Tensor:
        nonlocal first
        first += count
        return bits[first - count : first]

    return give


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
    states = [build_state(each, size, 1, torch.device("cpu"), classes) for each in configs]
    for state in states:
        state.generator.to(dtype)
        state.discriminator.to(dtype)
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (runs, count, 1, size, size), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 2, (runs, count), generator=rng) if conditional else None
    return configs, states, images, labels


def difference(settings: list[str]) -> float | str:
    """Of weights and running statistics after STEPS steps of three runs: the largest distance of
    a tensor from the ordinary run's, relative to its length; or why there is no step."""
    with in_float64():
        configs, single, images, labels = prepared([*settings, *SMALL], 3, torch.float64)
        _, stacked, _, _ = prepared([*settings, *SMALL], 3, torch.float64)
        for run, (config, state) in enumerate(zip(configs, single, strict=True)):
            step = build_step(config, state, "fp32")
            for _ in range(STEPS):
                step(images[run], None if labels is None else labels[run])
        try:
            with stackable():
                together = StackedStep(configs, stacked)
                for _ in range(STEPS):
                    together(images, labels)
        except RuntimeError as error:
            return str(error).partition("\n")[0]
    largest = 0.0
    for one, other in zip(single, stacked, strict=True):
        for network in ("generator", "discriminator"):
            pairs = zip(
                getattr(one, network).state_dict().values(),
                getattr(other, network).state_dict().values(),
                strict=True,
            )
            for ours, theirs in pairs:
                largest = max(largest, float((ours - theirs).norm() / ours.norm().clamp_min(1e-9)))
    return largest


def times(settings: list[str], runs: int, rounds: int) -> dict[str, float]:
    """Median CPU time of all runs' steps: one after the other as lungan does them, the same with
    the stack's operations, and stacked; one thread, fp32, taking turns."""
    configs, states, images, labels = prepared(settings, runs, torch.float32)
    steps = [build_step(each, state, "fp32") for each, state in zip(configs, states, strict=True)]
    configs, states, _, _ = prepared(settings, runs, torch.float32)
    with stackable():
        together = StackedStep(configs, states)
    every = configs[0].loss.penalty_every_steps

    def one_by_one() -> None:
        for run, step in enumerate(steps):
            for _ in range(every):
                step(images[run])

    def as_stack() -> None:
        for _ in range(every):
            together(images, labels)

    taken: dict[str, list[float]] = {"single": [], "single_pytorch": [], "stacked": []}
    for number in range(rounds + 1):
        for name in taken:
            with contextlib.nullcontext() if name == "single" else stackable():
                began = time.process_time()
                (as_stack if name == "stacked" else one_by_one)()
                if number:
                    taken[name].append((time.process_time() - began) * 1e3 / every)
    return {name: statistics.median(each) for name, each in taken.items()}


def print_table(result: dict[str, Any]) -> None:
    print(figures.describe(result["machine"]))
    for name, found in result["difference"].items():
        shown = found if isinstance(found, str) else f"{found:.1e}"
        print(f"{name:>28}: difference from single runs in float64 {shown}")
    print(
        f"a convolution in bf16 autocast gives {result['convolution_in_autocast']}, "
        f"stacked {result['stacked_convolution_in_autocast']}"
    )
    for name, row in result["cpu_ms"].items():
        cells = ", ".join(f"{form} {value:.0f}" for form, value in row.items())
        print(f"{name:>28}: CPU ms of a step of {result['runs']} runs: {cells}")


if __name__ == "__main__":
    main()
