"""Time of an experiment's training step on this machine, beside the usual PyTorch form of it.

python benchmarks/train_step.py [--experiment NAME --size N] [--precision fp32|bf16] [--steps N]
    [--keras PYTHON] [--beside N] [--processes N,N] [--json FILE|-] [key=value ...]

Without --experiment it is the report's step, beside PyTorch as tutorials write it and, with
--keras, Keras. Otherwise the usual form has the same networks, of PyTorch's own convolutions and
memory layout, in fp32 with a backward pass for each loss; where gradient penalties are rare, as
many steps are timed together as have one. On a GPU at least 20 steps are, as training waits for
no step there.

The forms take turns within one run, so that what else the machine does hits all of them alike.
``--beside N`` keeps N other processes busy meanwhile, as on a shared machine.
``--processes 1,4`` adds what one process trains in a second, and what four at a time do together.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import figures
import peak_memory
import torch
import turns
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lungan.config import RunConfig
from lungan.config.compose import compose, composer
from lungan.device import resolve_device
from lungan.training.augment import augmented
from lungan.training.losses import build_loss, gradient_penalties, has_gradient_penalty
from lungan.training.state import build_state
from lungan.training.step import build_step

REPORT_GFLOP = 116.0
"""Both networks forward once, and each loss sent back on its own, zero taps counted."""
WARMUP_STEPS = 5  # a CUDA graph is recorded at the fourth
STEPS_WITHOUT_WAITING = 20
SECONDS_SIDE_BY_SIDE = 3.0

Step = Callable[[int], object]
"""A training step by its number, from 0: those that ``loss.penalty_every_steps`` divides have
gradient penalties."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """``num_steps`` steps of an experiment, which are timed together."""

    config: RunConfig
    is_report: bool
    num_steps: int

    def some_images(self, device: torch.device) -> Tensor:
        shape = (self.config.batch_size, 1, self.config.data.size, self.config.data.size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def gflop_per_step(self, images: Tensor) -> float:
        """Of the usual form, forward and backward."""
        if self.is_report:
            return REPORT_GFLOP
        every = self.config.loss.penalty_every_steps
        step = eager_recipe_step(self.config, images)
        with FlopCounter() as counter:
            repeat(step, every)
        return counter.total / 1e9 / every


class FlopCounter(TorchDispatchMode):
    """Counts as FlopCounterMode does, which cannot pass gradients of gradients."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def workload(
    experiment: str, size: int, device: torch.device, overrides: Sequence[str] = ()
) -> Workload:
    is_report = experiment == "report"
    with composer():
        choice = [] if is_report else [f"experiment={experiment}"]  # the report's is the default
        given = ["data=phantom", f"data.size={size}", "optimizer=adam", *choice, *overrides]
        config = compose(given)
    num_steps = every = config.loss.penalty_every_steps
    if device.type == "cuda":
        num_steps = every * math.ceil(STEPS_WITHOUT_WAITING / every)
    return Workload(config, is_report, num_steps)


def eager_report_step(images: Tensor) -> Step:
    """The usual form: nn.ConvTranspose2d, nn.Dropout, two backward passes, two optimizers."""
    device = images.device

    class Crop(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features[:, :, :-1, :-1]

    def norm(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.3)]

    generator = nn.Sequential(
        nn.Linear(100, 12544, bias=False),
        nn.BatchNorm1d(12544, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.3),
        nn.Unflatten(1, (256, 7, 7)),
        nn.ConvTranspose2d(256, 128, 5, 1, 2, bias=False), *norm(128),
        nn.ConvTranspose2d(128, 64, 5, 2, 1, bias=False), Crop(), *norm(64),
        nn.ConvTranspose2d(64, 1, 5, 2, 1, bias=False), Crop(), nn.Tanh(),
    ).to(device)  # fmt: skip
    pad = nn.ZeroPad2d((1, 2, 1, 2))
    discriminator = nn.Sequential(
        pad, nn.Conv2d(1, 64, 5, 2), nn.LeakyReLU(0.3), nn.Dropout(0.3),
        pad, nn.Conv2d(64, 128, 5, 2), nn.LeakyReLU(0.3), nn.Dropout(0.3),
        nn.Flatten(), nn.Linear(6272, 1),
    ).to(device)  # fmt: skip
    generator_optimizer = torch.optim.Adam(generator.parameters(), 1e-3, eps=1e-7)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3, eps=1e-7)
    loss = nn.BCEWithLogitsLoss()
    ones = torch.ones(len(images), 1, device=device)
    zeros = torch.zeros_like(ones)

    def step(_: int) -> None:
        fake = generator(torch.randn(len(images), 100, device=device))
        real = images.float() / 127.5 - 1
        discriminator_optimizer.zero_grad()
        loss_real = loss(discriminator(real), ones)
        loss_fake = loss(discriminator(fake.detach()), zeros)
        (loss_real + loss_fake).backward()
        discriminator_optimizer.step()
        generator_optimizer.zero_grad()
        loss(discriminator(fake), ones).backward()
        generator_optimizer.step()

    return step


def eager_recipe_step(config: RunConfig, images: Tensor) -> Step:
    """The usual form of alternating steps: each loss with a backward pass of its own, in fp32."""
    device = images.device
    state = build_state(config, config.data.size, 1, device)
    networks = (state.generator, state.discriminator)
    generator, discriminator = (
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for network in networks
    )
    adversarial = build_loss(config.loss)
    always = torch.ones((), device=device)

    def seen(images: Tensor) -> Tensor:
        return augmented(
            config.augment, images, always, lambda *shape: torch.rand(shape, device=device)
        )

    def latents() -> Tensor:
        return torch.randn(len(images), config.generator.latent_dim, device=device)

    def step(number: int) -> None:
        real = images.float() / 127.5 - 1
        with torch.no_grad():
            fake = generator(latents())
        real_seen, fake_seen = seen(real), seen(fake)
        loss = adversarial.discriminator(discriminator(real_seen), discriminator(fake_seen))
        if has_gradient_penalty(config.loss, number):
            mixing = torch.rand(len(images), device=device)
            loss = loss + gradient_penalties(
                config.loss, discriminator, real_seen, fake_seen, mixing
            )
        state.discriminator_optimizer.zero_grad()
        loss.backward()
        state.discriminator_optimizer.step()
        fake_logits = discriminator(seen(generator(latents())))
        real_logits = discriminator(seen(real)) if adversarial.relativistic else fake_logits
        state.generator_optimizer.zero_grad()
        adversarial.of_generator(real_logits, fake_logits).backward()
        state.generator_optimizer.step()

    return step


def lungan_step(config: RunConfig, images: Tensor, precision: str) -> Step:
    state = build_state(config, config.data.size, 1, images.device)
    step = build_step(config, state, precision)
    return lambda _: step(images)


def repeat(step: Step, times: int) -> None:
    for number in range(times):
        step(number)


def milliseconds(
    step: Step,
    times: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Of one of ``times`` steps, after which the device is waited for."""
    began = clock()
    repeat(step, times)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - began) * 1e3 / times


def peak_mebibytes(wanted: Workload, precision: str) -> float:
    """Of a process that does nothing but lungan's step: what it held at most, libraries and all."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_after_steps, wanted, precision, torch.get_num_threads()).result()


def _peak_after_steps(wanted: Workload, precision: str, threads: int) -> float:
    torch.set_num_threads(threads)
    step = lungan_step(wanted.config, wanted.some_images(torch.device("cpu")), precision)
    repeat(step, WARMUP_STEPS * wanted.num_steps)
    return peak_memory.mebibytes()


def matrix_product(device: torch.device, precision: str) -> tuple[Step, float]:
    """A product of square matrices, and its GFLOP: what the hardware gives at best."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device).to(dtype)
    return lambda _: matrix @ matrix, 2 * side**3 / 1e9


def images_per_second(wanted: Workload, precision: str, device: str, processes: int) -> float:
    """Of lungan's step in so many processes at a time, each with its share of the threads."""
    context = get_context("spawn")
    threads = max(1, torch.get_num_threads() // processes)
    together = context.Barrier(processes)
    with context.Pool(processes, _begin_side_by_side, (together, threads)) as pool:
        return sum(pool.starmap(_rate, [(wanted, precision, device)] * processes, chunksize=1))


def _begin_side_by_side(together: threading.Barrier, threads: int) -> None:
    global _together
    _together = together
    torch.set_num_threads(threads)


def _rate(wanted: Workload, precision: str, name: str) -> float:
    device = resolve_device(name)
    step = lungan_step(wanted.config, wanted.some_images(device), precision)
    milliseconds(step, WARMUP_STEPS * wanted.num_steps, device)
    _together.wait(timeout=300)
    count, began = 0, time.perf_counter()
    while time.perf_counter() < began + SECONDS_SIDE_BY_SIDE:
        milliseconds(step, wanted.num_steps, device)
        count += wanted.num_steps
    return count * wanted.config.batch_size / (time.perf_counter() - began)


@contextlib.contextmanager
def busy(count: int) -> Iterator[list[int]]:
    """``count`` other processes that compute without a pause; gives their numbers."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def row(times: list[float], ceiling: float, batch_size: int, gflop: float) -> dict[str, float]:
    ordered = sorted(times)
    median = statistics.median(ordered)
    gflops = gflop / median * 1e3
    return {
        "ms_per_step": median,
        "ms_min": ordered[0],
        "ms_p10": ordered[len(ordered) // 10],
        "ms_p90": ordered[-1 - len(ordered) // 10],
        "images_per_second": batch_size / median * 1e3,
        "gflops": gflops,
        "share_of_matrix_product": gflops / ceiling,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further settings")
    parser.add_argument("--experiment", default="report", metavar="NAME", help="(report)")
    parser.add_argument("--size", type=int, default=28, metavar="N", help="pixels a side (28)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: both")
    parser.add_argument("--steps", type=int, default=20, help="timed ones (default: 20)")
    figures.add_json_option(parser)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keras", metavar="PYTHON", help="a Python with TensorFlow, to compare")
    parser.add_argument("--beside", type=int, default=0, help="busy processes (default: none)")
    parser.add_argument("--processes", metavar="N,N", help="so many at a time, besides")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    if arguments.experiment == "report" and (arguments.size != 28 or arguments.overrides):
        parser.error("--experiment=report is timed as it is: --size=28 and no key=value")

    device = resolve_device(arguments.device)
    wanted = workload(arguments.experiment, arguments.size, device, arguments.overrides)
    if not wanted.is_report and wanted.config.loss.update != "alternating":
        parser.error(f"{arguments.experiment} has no usual form here: its steps do not alternate")
    precisions = [arguments.precision] if arguments.precision else ["fp32", "bf16"]
    images = wanted.some_images(device)
    if wanted.is_report:
        eager = eager_report_step(images)
    else:
        eager = eager_recipe_step(wanted.config, images)
    forms = {"pytorch_eager fp32": partial(milliseconds, eager, wanted.num_steps, device)}
    gflop = {}
    for precision in dict.fromkeys(["fp32", *precisions]):
        product, gflop[precision] = matrix_product(device, precision)
        forms[f"matrix {precision}"] = partial(milliseconds, product, 1, device)
    for precision in precisions:
        step = lungan_step(wanted.config, images, precision)
        forms[f"lungan {precision}"] = partial(milliseconds, step, wanted.num_steps, device)
    keras = None
    if arguments.keras:
        script = Path(__file__).with_name("keras_step.py")
        keras = turns.Form([arguments.keras, str(script), str(torch.get_num_threads())])
        forms = {"keras": keras} | forms
    with busy(arguments.beside):
        times = turns.alternate(forms, arguments.steps, WARMUP_STEPS)
    ceilings = {p: gflop[p] / min(times[f"matrix {p}"]) * 1e3 for p in gflop}
    counted = wanted.gflop_per_step(images)

    def timing(form: str, precision: str) -> dict[str, float]:
        return row(times[form], ceilings[precision], wanted.config.batch_size, counted)

    result: dict[str, Any] = {
        "lungan": {p: timing(f"lungan {p}", p) for p in precisions},
        "pytorch_eager": {"fp32": timing("pytorch_eager fp32", "fp32")},
        "matrix_product_gflops": ceilings,
        "experiment": arguments.experiment,
        "overrides": arguments.overrides,
        "size": arguments.size,
        "batch_size": wanted.config.batch_size,
        "gflop_per_step": counted,
        "steps": arguments.steps,
        "steps_timed_together": wanted.num_steps,
        "busy_processes": arguments.beside,
        "machine": figures.machine(device),
    }
    if device.type == "cpu":
        result["lungan_peak_mebibytes"] = {p: peak_mebibytes(wanted, p) for p in precisions}
    if keras is not None:
        result["keras"] = {"fp32": timing("keras", "fp32")}
        result["keras_peak_mebibytes"] = float(keras.close())
        result["machine"]["keras"] = keras.greeting
    if arguments.processes:
        result["images_per_second_of_processes"] = {
            p: {
                number: images_per_second(wanted, p, arguments.device, int(number))
                for number in arguments.processes.split(",")
            }
            for p in precisions
        }
    figures.write(result, arguments.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    where = figures.describe(result["machine"])
    print(
        f"{where}; {result['experiment']} at {result['size']} pixels, batch {result['batch_size']}"
        f"; {result['steps']} times {result['steps_timed_together']} steps each"
        f"; busy processes beside: {result['busy_processes']}"
    )
    heads = ("form", "precision", "ms/step", "min", "p10-p90", "images/s", "GFLOP/s", "of matmul")
    widths = (14, 9, 8, 8, 17, 9, 8, 9)
    print(*(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for form in ("lungan", "pytorch_eager", "keras"):
        for precision, timing in result.get(form, {}).items():
            cells = (
                form,
                precision,
                f"{timing['ms_per_step']:.2f}",
                f"{timing['ms_min']:.2f}",
                f"{timing['ms_p10']:.2f}-{timing['ms_p90']:.2f}",
                f"{timing['images_per_second']:.0f}",
                f"{timing['gflops']:.0f}",
                f"{timing['share_of_matrix_product']:.0%}",
            )
            print(*(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    peaks = {f"lungan {p}": peak for p, peak in result.get("lungan_peak_mebibytes", {}).items()}
    if "keras" in result:
        peaks["keras"] = result["keras_peak_mebibytes"]
    else:
        print("keras: not timed, which --keras asks for")
    for form, peak in peaks.items():
        print(f"peak memory of {form}: {peak:.0f} MiB")
    for precision, rates in result.get("images_per_second_of_processes", {}).items():
        for number, rate in rates.items():
            print(f"processes at a time: {number}, in {precision}: {rate:.0f} images/s together")
    for precision, ceiling in result["matrix_product_gflops"].items():
        print(f"matrix product in {precision}: {ceiling:.0f} GFLOP/s at best")


if __name__ == "__main__":
    main()
