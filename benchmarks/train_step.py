"""Time of the report's training step on this machine, beside the usual PyTorch form of it.

python benchmarks/train_step.py [--precision fp32|bf16] [--steps N] [--json FILE|-]

The forms take turns within one run, so that what else the machine does hits all of them alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lungan.config import (
    AdamConfig,
    AugmentConfig,
    DcganDiscriminatorConfig,
    DcganGeneratorConfig,
    LossConfig,
    PhantomConfig,
    RunConfig,
    ScheduleConfig,
    ScoreConfig,
    TrackerConfig,
)
from lungan.training.device import resolve_device
from lungan.training.state import build_state
from lungan.training.step import build_step

BATCH_SIZE = 256
GFLOP_PER_STEP = 116.0
"""The plain form's, zero taps counted: 3 generator passes of 51.9 million multiply-adds an image,
and of the discriminator's 10.4 forward on real and fake and five backward passes' worth."""
WARMUP_STEPS = 3


def report_config() -> RunConfig:
    """The report's settings; what a step does not use is set to anything valid."""
    return RunConfig(
        data=PhantomConfig(
            name="phantom", size=28, channels=1, splits=[], classes=[], num_images=20,
            num_test=4, seed=0,
        ),
        generator=DcganGeneratorConfig(
            name="dcgan", latent_dim=100, width=64, max_width=256, leaky_slope=0.3,
            batch_norm_momentum=0.01, batch_norm_epsilon=1e-3,
        ),
        discriminator=DcganDiscriminatorConfig(
            name="dcgan", width=64, max_width=256, leaky_slope=0.3, dropout=0.3
        ),
        loss=LossConfig(name="bce", update="simultaneous", discriminator_updates=1),
        optimizer=AdamConfig(
            name="adam", generator_lr=1e-3, discriminator_lr=1e-3, beta1=0.9, beta2=0.999,
            epsilon=1e-7, epsilon_convention="keras", weight_decay=0.0,
        ),
        schedule=ScheduleConfig(name="constant", warmup_epochs=0),
        augment=AugmentConfig(name="none"),
        score=ScoreConfig(
            name="none", encoders=[], num_images=0, batch_size=1, seed=0, every_epochs=0,
            inception_weights=None, require_inception=False, inception_splits=1, nearest_k=1,
            kernel_subsets=1, kernel_subset_size=2, extrapolate=False, memorization=False,
            floor_splits=1,
        ),
        tracker=TrackerConfig(name="none"),
        epochs=1, batch_size=BATCH_SIZE, lr=1e-3, seed=0, precision="auto", device="auto",
        threads=0, store="runs", checkpoint_every_epochs=1, samples_every_epochs=0, retry="never",
    )  # fmt: skip


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
    config = report_config()
    state = build_state(config, 28, 1, images.device)
    step = build_step(config, state, precision)
    return lambda: step(images)


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


def measure(
    works: dict[str, Callable[[], object]], steps: int, device: torch.device
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(WARMUP_STEPS + steps):
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


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], help="one of the two (default: both)"
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="timed steps of each form (default: 20)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures there; - for stdout alone"
    )
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    device = resolve_device(arguments.device)
    precisions = [arguments.precision] if arguments.precision else ["fp32", "bf16"]
    images = torch.randint(0, 256, (BATCH_SIZE, 1, 28, 28), dtype=torch.uint8, device=device)
    works: dict[str, Callable[[], object]] = {"pytorch_eager fp32": eager_step(images)}
    gflop = {}
    for precision in dict.fromkeys(["fp32", *precisions]):
        works[f"matrix {precision}"], gflop[precision] = matrix_product(device, precision)
    for precision in precisions:
        works[f"lungan {precision}"] = lungan_step(images, precision)
    times = measure(works, arguments.steps, device)
    ceilings = {p: gflop[p] / min(times[f"matrix {p}"]) * 1e3 for p in gflop}

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    result: dict[str, Any] = {
        "lungan": {p: row(times[f"lungan {p}"], ceilings[p]) for p in precisions},
        "pytorch_eager": {"fp32": row(times["pytorch_eager fp32"], ceilings["fp32"])},
        "matrix_product_gflops": ceilings,
        "batch_size": BATCH_SIZE,
        "gflop_per_step": GFLOP_PER_STEP,
        "steps": arguments.steps,
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(result, indent=2)
    if arguments.json == "-":
        print(text)
        return
    if arguments.json:
        Path(arguments.json).write_text(text + "\n")
    print_table(result)


def print_table(result: dict[str, Any], out: Any = sys.stdout) -> None:
    machine = result["machine"]
    print(f"{machine['gpu'] or machine['processor']}, {machine['threads']} threads, "
          f"torch {machine['torch']}; batch {BATCH_SIZE}, {result['steps']} steps each", file=out)  # fmt: skip
    print(f"{'form':<14} {'precision':<9} {'ms/step':>8} {'min':>8} {'p10-p90':>17} "
          f"{'images/s':>9} {'GFLOP/s':>8} {'of matmul':>9}", file=out)  # fmt: skip
    for form in ("lungan", "pytorch_eager"):
        for precision, r in result[form].items():
            spread = f"{r['ms_p10']:.1f}-{r['ms_p90']:.1f}"
            print(f"{form:<14} {precision:<9} {r['ms_per_step']:>8.1f} {r['ms_min']:>8.1f} "
                  f"{spread:>17} {r['images_per_second']:>9.0f} {r['gflops']:>8.0f} "
                  f"{r['share_of_matrix_product']:>9.0%}", file=out)  # fmt: skip
    for precision, ceiling in result["matrix_product_gflops"].items():
        print(f"matrix product in {precision}: {ceiling:.0f} GFLOP/s at best", file=out)


if __name__ == "__main__":
    main()
