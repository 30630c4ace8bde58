"""What each trick of the CPU's step is worth: steps without each of them in turn.

    python benchmarks/tricks.py [--rounds N] [--seconds S] [--json FILE|-]

The report's step has one backward pass for both losses. small_data's has two, and gradient
penalties in some steps, so as many steps are timed together as have one with penalties. The forms
take turns as turns.py says. What is counted is CPU time, the kernel's included, of one thread,
since that hardly depends on what else a machine does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import figures
import torch
import torch.nn.functional as F
import train_step
import turns
from torch import Tensor

from lungan.models import dcgan, layers
from lungan.models.sampling import to_floats
from lungan.training import step as steps
from lungan.training.step import gradient_norm

WORKLOADS = ("report bf16", "report fp32", "small_data bf16", "small_data fp32")
"""Experiment and precision."""
WARMUP_CALLS = 3


def without_turned_weights() -> None:
    """Features are padded by a copy before each convolution of the discriminator, as Keras does."""

    def forward(self: layers.DownConvolution, features: Tensor, scale: float = 1.0) -> Tensor:
        padded = F.pad(features, (1, 2, 1, 2))
        return F.conv2d(padded, self.weight * scale, self.bias * scale, stride=2)

    layers.DownConvolution.forward = forward  # type: ignore[method-assign]


def without_shared_backward() -> None:
    """The discriminator sees real and generated images apart, and each loss is sent back on its
    own, so that no logit's gradient has to be kept from zero."""

    def gradients(self: Any, images: Tensor, labels: Tensor | None) -> Tensor:
        state = self.state
        with self.autocast():
            fake = state.generator(self.latents(len(images), 0), labels)
        leaf = fake.detach().requires_grad_()
        real_logits = self.logits(to_floats(images, fake.dtype), None, 0)
        fake_logits = self.logits(leaf, None, 1)
        loss_generator = self.loss.of_generator(real_logits, fake_logits)
        (gradient,) = torch.autograd.grad(loss_generator, leaf, retain_graph=True)
        torch.autograd.backward(fake, gradient.to(fake.dtype))
        leaf.requires_grad_(False)
        loss_discriminator = self.loss.discriminator(real_logits, fake_logits)
        torch.autograd.backward(loss_discriminator)
        scalars = self.scalars(loss_discriminator, real_logits, fake_logits, torch.zeros(()))
        norms = [gradient_norm(network) for network in (state.generator, state.discriminator)]
        return torch.cat([loss_generator.detach()[None], scalars, torch.stack(norms)])

    steps.SimultaneousStep.gradients = gradients  # type: ignore[method-assign]


def without_blocks() -> None:
    """PyTorch's own transposed convolutions, with their gradients, and a crop."""

    def forward(self: layers.UpConvolution, features: Tensor) -> Tensor:
        return F.conv_transpose2d(features, self.weight, None, 2, 1)[:, :, :-1, :-1]

    layers.UpConvolution.forward = forward  # type: ignore[method-assign]


def without_kept_memory() -> None:
    """glibc hands freed blocks back to the kernel."""
    steps.keep_freed_memory = lambda: None


def without_bits() -> None:
    """PyTorch's leaky ReLU and dropout."""

    def leaky_dropout(features: Tensor, slope: float, probability: float, _: Any) -> Tensor:
        return F.dropout(F.leaky_relu(features, slope), probability)

    dcgan.leaky_dropout = leaky_dropout


TRICKS: dict[str, Callable[[], None]] = {
    "turned weights": without_turned_weights,
    "shared backward": without_shared_backward,
    "transposed convolutions as blocks": without_blocks,
    "kept freed memory": without_kept_memory,
    "bits for dropout": without_bits,
}
ALL = "all"
TRICKS_OF = {
    workload: [
        name
        for name in TRICKS
        if (name == "shared backward") <= workload.startswith("report")
        and (name == "bits for dropout") <= workload.startswith("report")
    ]
    for workload in WORKLOADS
}
"""The tricks that a workload uses."""


def serve(workload: str, without: str | None) -> None:
    if without:
        TRICKS[without]()
    experiment, precision = workload.split()
    device = torch.device("cpu")
    wanted = train_step.workload(experiment, 28, device)
    step = train_step.lungan_step(wanted.config, wanted.some_images(device), precision)
    train_step.repeat(step, WARMUP_CALLS * wanted.num_steps)
    turns.serve(
        lambda: train_step.milliseconds(step, wanted.num_steps, device, clock=time.process_time)
    )


def measure(workload: str, rounds: int, seconds: float) -> dict[str, Any]:
    forms = {name: form(workload, name) for name in (ALL, *TRICKS_OF[workload])}
    taken = turns.take(forms, rounds, seconds, others=turns.ANY)
    for each in forms.values():
        each.close()
    with_all = taken.times[ALL]
    return {
        "forms": {name: row(times, with_all) for name, times in taken.times.items()},
        "rounds": taken.count,
    }


def form(workload: str, without: str) -> turns.Form:
    options = [] if without == ALL else ["--without", without]
    command = [sys.executable, __file__, "--serve", workload, *options]
    return turns.Form(command, os.environ | {"OMP_NUM_THREADS": "1"})


def row(times: list[float], with_all: list[float]) -> dict[str, float]:
    """``saved``: of the time without the trick, what the step with all tricks does not take, round
    by round; its median, and the quartiles of the rounds."""
    saved = [1 - whole / own for own, whole in zip(times, with_all, strict=True)]
    quartiles = statistics.quantiles(saved, n=4) if len(saved) > 1 else saved * 3
    return {
        "ms_per_step": statistics.median(times),
        "ms_min": min(times),
        "ms_max": max(times),
        "saved": quartiles[1],
        "saved_lower_quartile": quartiles[0],
        "saved_upper_quartile": quartiles[2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="that count (default: 20)")
    parser.add_argument("--seconds", type=float, default=600, help="a workload, at most (600)")
    parser.add_argument("--workload", choices=WORKLOADS, help="default: all")
    parser.add_argument("--serve", choices=WORKLOADS, help=argparse.SUPPRESS)
    parser.add_argument("--without", choices=list(TRICKS), help=argparse.SUPPRESS)
    figures.add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.without)
        return
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    result: dict[str, Any] = {
        workload: measure(workload, arguments.rounds, arguments.seconds)
        for workload in ([arguments.workload] if arguments.workload else WORKLOADS)
    }
    figures.write(result | {"machine": figures.machine()}, arguments.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    print(figures.describe(result["machine"]))
    for workload in (each for each in WORKLOADS if each in result):
        measured = result[workload]
        print(f"{workload}, CPU time of a step in one thread, {measured['rounds']} rounds")
        for name, each in measured["forms"].items():
            title = "with all" if name == ALL else f"without {name}"
            print(
                f"{title:>42} {each['ms_per_step']:7.1f} ms ({each['ms_min']:.1f} to "
                f"{each['ms_max']:.1f}); saved {each['saved']:6.1%} "
                f"({each['saved_lower_quartile']:.1%} to {each['saved_upper_quartile']:.1%})"
            )


if __name__ == "__main__":
    main()
