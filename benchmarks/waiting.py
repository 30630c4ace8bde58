"""Time of the report's step by how CPU threads wait for each other, idle and beside busy processes.

python benchmarks/waiting.py [--precision fp32|bf16] [--beside N] [--steps N] [--json FILE|-]

Each way of waiting has a process of its own, since OpenMP reads the environment once. The processes
take turns, a step each, first with nothing else and then beside ``--beside`` busy processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from typing import Any

import figures
import torch
from train_step import WARMUP_STEPS, busy, lungan_step, milliseconds, some_images

from lungan import WAITING

WAYS = {
    "as OpenMP comes": {"KMP_BLOCKTIME": "200"},  # LLVM's own default: set, lungan sets nothing
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "lungan": WAITING,
    "100000 spins": {"GOMP_SPINCOUNT": "100000"},
    "1000000 spins": {"GOMP_SPINCOUNT": "1000000"},
}


def serve(precision: str) -> None:
    """One step for every line of stdin, and its milliseconds on stdout."""
    device = torch.device("cpu")
    step = lungan_step(some_images(device), precision)
    for _ in range(WARMUP_STEPS):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(milliseconds(step, device), flush=True)


class Steps:
    """A process whose threads wait as the environment variables of ``way`` say."""

    def __init__(self, way: dict[str, str], precision: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in WAITING}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", "--precision", precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | way,
        )
        self._answer()

    def __call__(self) -> float:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("waiting: a process that does the steps has ended")
        return line


def turns(forms: dict[str, Steps], steps: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(steps):
        for name, form in forms.items():
            times[name].append(form())
    return {
        name: {"ms_per_step": statistics.median(each), "ms_min": min(each), "ms_max": max(each)}
        for name, each in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--beside", type=int, default=os.cpu_count(), help="default: one a core")
    parser.add_argument("--steps", type=int, default=10, help="timed ones (default: 10)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    figures.add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.precision)
        return
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    forms = {name: Steps(way, arguments.precision) for name, way in WAYS.items()}
    idle = turns(forms, arguments.steps)
    with busy(arguments.beside):
        beside = turns(forms, arguments.steps)
    for form in forms.values():
        form.close()
    result = {
        "idle": idle,
        "beside": beside,
        "busy_processes": arguments.beside,
        "precision": arguments.precision,
        "steps": arguments.steps,
        "machine": figures.machine(),
    }
    figures.write(result, arguments.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    print(
        f"{figures.describe(result['machine'])}; {result['precision']}, {result['steps']} steps "
        f"each, median ms (least to most); {result['busy_processes']} busy processes"
    )
    for name, idle in result["idle"].items():
        cells = [
            f"{row['ms_per_step']:.0f} ({row['ms_min']:.0f} to {row['ms_max']:.0f})"
            for row in (idle, result["beside"][name])
        ]
        print(f"{name:>16}  idle {cells[0]:>20}  beside {cells[1]:>20}")


if __name__ == "__main__":
    main()
