"""How long ``lungan.results`` takes for many runs: it should be linear, and 10,000 under 15 s.

python benchmarks/results_scale.py [--runs 100,1000,10000] [--json FILE|-]

Makes synthetic run folders in a temporary folder and times the real command on them, start of
Python included. One run in fifty is unfinished, one in fifty diverged and one in a hundred damaged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import figures
import yaml

SCORES = (
    "frechet_distance",
    "frechet_distance_infinity",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "memorization_distance_ratio",
    "memorization_share",
    "authenticity",
    "memorization_c_t",
    "inception_score",
)
SEEDS = 5
EPOCHS = 50


def config_of(index: int) -> dict[str, Any]:
    """Five seeds of each of many learning rates, sizes of networks and two optimizers."""
    group, seed = divmod(index, SEEDS)
    lr = 1e-4 * 1.01 ** (group // 8)
    groups = ("loss", "schedule", "augment", "tracker", "discriminator", "data")
    return {
        **{name: {"name": "default", **{f"key_{i}": i for i in range(8)}} for name in groups},
        "generator": {"name": "dcgan", "width": (32, 64, 96, 128)[group % 4], "latent_dim": 100},
        "optimizer": {"name": ("adam", "rmsprop")[group // 4 % 2], "generator_lr": lr},
        "score": {"name": "standard", **{f"key_{i}": i for i in range(12)}},
        "epochs": EPOCHS,
        "batch_size": 256,
        "lr": lr,
        "seed": seed,
    }


def write_run(store: Path, index: int, rng: random.Random, template: str) -> None:
    config = config_of(index)
    run_id = hashlib.sha256(str(index).encode()).hexdigest()
    folder = store / f"run{index:05d}-{run_id[:8]}"
    folder.mkdir()
    if index % 50 == 1:
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return
    if index % 100 == 2:
        (folder / "summary.json").write_text('{"status": "do')
        return
    values = {}
    for encoder in ("domain", "inception"):
        for score in SCORES:
            key = f"{encoder}.{score}"
            values |= {key: rng.gauss(1, 0.1), f"{key}.floor": 0.5, f"{key}.floor_std": 0.01}
    diverged = index % 50 == 3
    status = "diverged" if diverged else "done"
    result = {
        "scoring_id": "5c" * 32,
        "epoch": EPOCHS,
        "config": config["score"],
        "num_images": 624,
        "reference": {"splits": ["test"], "classes": [], "content_hash": "aa" * 32},
        "encoders": {name: {"weights_hash": "bb" * 32} for name in ("domain", "inception")},
        "values": values,
        "reasons": {},
    }
    summary = {
        "status": status,
        "reason": "loss_generator is not finite" if diverged else None,
        "run_id": run_id,
        "trajectory_id": run_id,
        "epochs_done": EPOCHS,
        "device": "cpu",
        "precision": "bf16",
        "data_hash": "cc" * 32,
        "versions": {"lungan": "0", "python": "3", "torch": "2", "numpy": "2"},
        "seconds": {"data": 1.0, "training": 60.0, "scoring": 5.0, "total": 66.0},
        "scores": None if diverged else result,
        "config": config,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text(template)


def measure(num_runs: int) -> tuple[float, float]:
    """Seconds of the command for ``num_runs`` folders: on the clock, and of processor time, which
    other work on the machine disturbs less."""
    rng = random.Random(0)
    template = "".join(
        json.dumps({"epoch": e, "loss_generator": 1 + 0.01 * e, "loss_discriminator": 1.0}) + "\n"
        for e in range(1, EPOCHS + 1)
    )
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "runs"
        store.mkdir()
        for index in range(num_runs):
            write_run(store, index, rng, template)
        os.sync()  # writing them down is not what is timed
        command = [sys.executable, "-m", "lungan.results", str(store)]
        command += ["--out", str(Path(temporary) / "out")]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        return seconds, user + system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="100,1000,10000", help="how many runs, with commas")
    figures.add_json_option(parser)
    options = parser.parse_args()
    table = []
    for num_runs in map(int, options.runs.split(",")):
        seconds, cpu_seconds = measure(num_runs)
        table.append({"runs": num_runs, "seconds": seconds, "cpu_seconds": cpu_seconds})
    figures.write({"times": table, "machine": figures.machine()}, options.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    print(figures.describe(result["machine"]))
    print(f"{'runs':>8} {'seconds':>9} {'CPU seconds':>12} {'CPU ms a run':>13}")
    for row in result["times"]:
        line = f"{row['runs']:8d} {row['seconds']:9.2f} {row['cpu_seconds']:12.2f}"
        print(f"{line} {1000 * row['cpu_seconds'] / row['runs']:13.2f}")


if __name__ == "__main__":
    main()
