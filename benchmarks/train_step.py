"""Time of the report's training step on this machine, beside the usual PyTorch form of it.

python benchmarks/train_step.py [--precision fp32|bf16] [--steps N] [--keras PYTHON]
    [--beside N] [--json FILE|-]

The forms take turns within one run, so that what else the machine does hits all of them alike.
``--beside N`` keeps N other processes busy meanwhile, as on a shared machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import figures
import peak_memory
import torch
from torch import Tensor, nn

from lungan.config.compose import compose, composer
from lungan.device import resolve_device
from lungan.training.state import build_state
from lungan.training.step import build_step

BATCH_SIZE = 256
GFLOP_PER_STEP = 116.0
"""Both networks forward once, and each loss sent back on its own, zero taps counted."""
WARMUP_STEPS = 5  # a CUDA graph is recorded at the fourth


def eager_step(images: Tensor) -> Callable[[], None]:
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

    def step() -> None:
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


def lungan_step(images: Tensor, precision: str) -> Callable[[], object]:
    with composer():
        config = compose(["data=phantom", "optimizer=adam"])  # the defaults are the report's
    state = build_state(config, 28, 1, images.device)
    step = build_step(config, state, precision)
    return lambda: step(images)


def peak_mebibytes(precision: str) -> float:
    """Of a process that does nothing but lungan's step: what it held at most, libraries and all."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_after_steps, precision, torch.get_num_threads()).result()


def _peak_after_steps(precision: str, threads: int) -> float:
    torch.set_num_threads(threads)
    step = lungan_step(some_images(torch.device("cpu")), precision)
    for _ in range(WARMUP_STEPS):
        step()
    return peak_memory.mebibytes()


def some_images(device: torch.device) -> Tensor:
    return torch.randint(0, 256, (BATCH_SIZE, 1, 28, 28), dtype=torch.uint8, device=device)


def matrix_product(device: torch.device, precision: str) -> tuple[Callable[[], object], float]:
    """A product of 2048 x 2048 matrices, and its GFLOP: what the hardware gives at best."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(2048, 2048, device=device).to(dtype)
    return lambda: matrix @ matrix, 2 * 2048**3 / 1e9


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) * 1e3


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """``count`` other processes that compute without a pause."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class KerasSteps:
    """A process of its own, with a Python that has TensorFlow, that does one step when told to."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("keras_step.py")
        self._process = subprocess.Popen(
            [python, str(script), str(torch.get_num_threads())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.version = self._answer()

    def __call__(self) -> float:
        """Its milliseconds, without the way there and back."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> float:
        """Its peak memory in MiB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = float(self._answer())
        self._process.wait()
        return peak

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("train_step: the Python given by --keras has no working TensorFlow")
        return line


def measure(
    works: dict[str, Callable[[], object]],
    steps: int,
    device: torch.device,
    keras: KerasSteps | None,
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in works}
    if keras is not None:
        times["keras"] = []
    for number in range(WARMUP_STEPS + steps):
        if keras is not None:
            elapsed = keras()
            if number >= WARMUP_STEPS:
                times["keras"].append(elapsed)
        for name, work in works.items():
            elapsed = milliseconds(work, device)
            if number >= WARMUP_STEPS:
                times[name].append(elapsed)
    return times


def row(times: list[float], ceiling: float) -> dict[str, float]:
    ordered = sorted(times)
    median = statistics.median(ordered)
    gflops = GFLOP_PER_STEP / median * 1e3
    return {
        "ms_per_step": median,
        "ms_min": ordered[0],
        "ms_p10": ordered[len(ordered) // 10],
        "ms_p90": ordered[-1 - len(ordered) // 10],
        "images_per_second": BATCH_SIZE / median * 1e3,
        "gflops": gflops,
        "share_of_matrix_product": gflops / ceiling,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: both")
    parser.add_argument("--steps", type=int, default=20, help="timed ones (default: 20)")
    figures.add_json_option(parser)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keras", metavar="PYTHON", help="a Python with TensorFlow, to compare")
    parser.add_argument("--beside", type=int, default=0, help="busy processes (default: none)")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    device = resolve_device(arguments.device)
    precisions = [arguments.precision] if arguments.precision else ["fp32", "bf16"]
    images = some_images(device)
    works: dict[str, Callable[[], object]] = {"pytorch_eager fp32": eager_step(images)}
    gflop = {}
    for precision in dict.fromkeys(["fp32", *precisions]):
        works[f"matrix {precision}"], gflop[precision] = matrix_product(device, precision)
    for precision in precisions:
        works[f"lungan {precision}"] = lungan_step(images, precision)
    keras = KerasSteps(arguments.keras) if arguments.keras else None
    with busy(arguments.beside):
        times = measure(works, arguments.steps, device, keras)
    ceilings = {p: gflop[p] / min(times[f"matrix {p}"]) * 1e3 for p in gflop}

    result: dict[str, Any] = {
        "lungan": {p: row(times[f"lungan {p}"], ceilings[p]) for p in precisions},
        "pytorch_eager": {"fp32": row(times["pytorch_eager fp32"], ceilings["fp32"])},
        "matrix_product_gflops": ceilings,
        "batch_size": BATCH_SIZE,
        "gflop_per_step": GFLOP_PER_STEP,
        "steps": arguments.steps,
        "busy_processes": arguments.beside,
        "machine": figures.machine(device),
    }
    if device.type == "cpu":
        result["lungan_peak_mebibytes"] = {p: peak_mebibytes(p) for p in precisions}
    if keras is not None:
        result["keras"] = {"fp32": row(times["keras"], ceilings["fp32"])}
        result["keras_peak_mebibytes"] = keras.close()
        result["machine"]["keras"] = keras.version
    figures.write(result, arguments.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    where = figures.describe(result["machine"])
    print(
        f"{where}; batch {BATCH_SIZE}, {result['steps']} steps each"
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
                f"{timing['ms_per_step']:.1f}",
                f"{timing['ms_min']:.1f}",
                f"{timing['ms_p10']:.1f}-{timing['ms_p90']:.1f}",
                f"{timing['images_per_second']:.0f}",
                f"{timing['gflops']:.0f}",
                f"{timing['share_of_matrix_product']:.0%}",
            )
            print(*(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    peaks = {f"lungan {p}": peak for p, peak in result.get("lungan_peak_mebibytes", {}).items()}
    if "keras" in result:
        peaks["keras"] = result["keras_peak_mebibytes"]
    for form, peak in peaks.items():
        print(f"peak memory of {form}: {peak:.0f} MiB")
    for precision, ceiling in result["matrix_product_gflops"].items():
        print(f"matrix product in {precision}: {ceiling:.0f} GFLOP/s at best")


if __name__ == "__main__":
    main()
