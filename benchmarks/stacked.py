"""Time of one training step of several runs: as one stack, one after another, and in eager PyTorch.

    python benchmarks/stacked.py [--runs 8,32] [--width 64] [--precision fp32|bf16] [--steps N]
        [--device cuda] [--json FILE|-]

The forms take turns within one run, so that what else the machine does hits all of them alike.
Runs differ in seed, learning rate and optimizer. Eager PyTorch is ``train_step.py``'s usual form,
in float32 and of the report's size, so that it is there with ``--width 64`` only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import figures
import torch
from torch import Tensor
from train_step import BATCH_SIZE, eager_step

from lungan.config import RunConfig
from lungan.config.compose import compose, composer
from lungan.device import resolve_device
from lungan.training.stacked.draws import Draws
from lungan.training.stacked.optimizers import kind
from lungan.training.stacked.state import StackedState
from lungan.training.stacked.step import build_stacked_step
from lungan.training.state import build_state
from lungan.training.step import build_step

WARMUP_STEPS = 5  # a CUDA graph is recorded at the fourth
EAGER_WIDTH = 64
Work = Callable[[], object]


def make_configs(num_runs: int, width: int) -> list[RunConfig]:
    """The report's run with seeds, learning rates and two optimizers of their own."""
    networks = [f"generator.width={width}", f"generator.max_width={4 * width}"]
    networks += [f"discriminator.width={width}", f"discriminator.max_width={4 * width}"]
    configs = []
    with composer():
        for number in range(num_runs):
            optimizer = "adam" if number < num_runs / 2 else "rmsprop"
            lr = 1e-3 / (1 + number % 8)
            own = [f"seed={number}", f"optimizer={optimizer}", f"lr={lr}"]
            configs.append(compose(["data=phantom", *networks, *own]))
    return sorted(configs, key=lambda config: kind(config.optimizer))


def one_after_another(configs: Sequence[RunConfig], images: Tensor, precision: str) -> Work:
    steps = []
    for config in configs:
        state = build_state(config, images.shape[-1], images.shape[1], images.device)
        steps.append(build_step(config, state, precision))

    def work() -> None:
        for step in steps:
            step(images)

    return work


def stacked(configs: Sequence[RunConfig], images: Tensor, precision: str) -> Work:
    states = [
        build_state(config, images.shape[-1], images.shape[1], images.device) for config in configs
    ]
    stack = StackedState(configs, states)
    seeds = [config.seed for config in configs]
    draws = Draws(seeds, configs[0].generator.latent_dim, images.device)
    step = build_stacked_step(stack, states[0], draws, precision)
    rates = [(config.lr, config.lr) for config in configs]
    batches = images.expand(len(configs), *images.shape).contiguous()
    return lambda: step(batches, rates)


def eager(num_runs: int, images: Tensor) -> Work:
    steps = [eager_step(images) for _ in range(num_runs)]

    def work() -> None:
        for step in steps:
            step()

    return work


def measure(
    works: dict[str, Work], steps: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds on the clock and of this process's CPU time, of each step of each form."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for number in range(WARMUP_STEPS + steps):
        for name, work in works.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            elapsed = time.perf_counter() - began, time.process_time() - cpu_began
            if number >= WARMUP_STEPS:
                times[name].append((elapsed[0] * 1e3, elapsed[1] * 1e3))
    return times


def row(times: list[tuple[float, float]], num_runs: int) -> dict[str, float]:
    clock = sorted(elapsed for elapsed, _ in times)
    return {
        "ms_per_step": statistics.median(clock),
        "ms_min": clock[0],
        "cpu_ms_min": min(cpu for _, cpu in times),
        "images_per_second": num_runs * BATCH_SIZE / statistics.median(clock) * 1e3,
    }


def compare(num_runs: int, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    shape = (BATCH_SIZE, 1, 28, 28)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    configs = make_configs(num_runs, arguments.width)
    works = {
        "stacked": stacked(configs, images, arguments.precision),
        "one after another": one_after_another(configs, images, arguments.precision),
    }
    if arguments.width == EAGER_WIDTH:
        works["pytorch_eager fp32"] = eager(num_runs, images)
    times = measure(works, arguments.steps, device)
    forms = {name: row(each, num_runs) for name, each in times.items()}
    fastest = forms["stacked"]["ms_min"]
    result: dict[str, Any] = {"runs": num_runs, "forms": forms}
    result["times_faster"] = {name: form["ms_min"] / fastest for name, form in forms.items()}
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="8,32", help="numbers of runs (default: 8,32)")
    parser.add_argument("--width", type=int, default=EAGER_WIDTH, help="of both networks")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--steps", type=int, default=20, help="timed ones (default: 20)")
    parser.add_argument("--device", default="auto")
    figures.add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    device = resolve_device(arguments.device)
    numbers = [int(text) for text in arguments.runs.split(",")]
    result = {
        "comparisons": [compare(number, arguments, device) for number in numbers],
        "width": arguments.width,
        "precision": arguments.precision,
        "batch_size": BATCH_SIZE,
        "steps": arguments.steps,
        "machine": figures.machine(device),
    }
    figures.write(result, arguments.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    print(
        f"{figures.describe(result['machine'])}; width {result['width']}, {result['precision']}, "
        f"batch {result['batch_size']}, {result['steps']} steps each"
    )
    print(f"{'runs':>5} {'form':>18} {'ms/step':>9} {'min':>9} {'CPU min':>9} {'images/s':>9}")
    for comparison in result["comparisons"]:
        for name, form in comparison["forms"].items():
            factor = comparison["times_faster"][name]
            print(
                f"{comparison['runs']:>5} {name:>18} {form['ms_per_step']:>9.1f} "
                f"{form['ms_min']:>9.1f} {form['cpu_ms_min']:>9.1f} "
                f"{form['images_per_second']:>9.0f}  {factor:.2f} x the stack's time"
            )


if __name__ == "__main__":
    main()
