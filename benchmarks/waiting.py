"""Time of the report's step by how CPU threads wait for each other, idle and beside busy processes.

python benchmarks/waiting.py [--precision fp32|bf16] [--beside N] [--rounds N] [--seconds S]
    [--json FILE|-]

Each way of waiting has a process of its own, since OpenMP reads the environment once. The processes
take turns as turns.py says, first with nothing else and then beside ``--beside`` busy processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Any

import figures
import torch
import train_step
import turns

from lungan import WAITING

WAYS = {
    "as OpenMP comes": {"KMP_BLOCKTIME": "200"},  # LLVM's own default: set, lungan sets nothing
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "lungan": WAITING,
    "100000 spins": {"GOMP_SPINCOUNT": "100000"},
    "1000000 spins": {"GOMP_SPINCOUNT": "1000000"},
    "lungan, one thread": WAITING | {"OMP_NUM_THREADS": "1"},
}


def form(way: dict[str, str], precision: str) -> turns.Form:
    """A process whose threads wait as the environment variables of ``way`` say."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    return turns.Form([sys.executable, __file__, "--serve", precision], kept | way)


def serve(precision: str) -> None:
    device = torch.device("cpu")
    report = train_step.workload("report", 28, device)
    step = train_step.lungan_step(report.config, report.some_images(device), precision)
    train_step.repeat(step, train_step.WARMUP_STEPS)
    turns.serve(lambda: train_step.milliseconds(step, 1, device))


def rows(taken: turns.Rounds) -> dict[str, Any]:
    return {
        "forms": {
            name: {"ms_per_step": statistics.median(each), "ms_min": min(each), "ms_max": max(each)}
            for name, each in taken.times.items()
        },
        "rounds": taken.count,
        "rounds_disturbed": taken.disturbed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--beside", type=int, default=os.cpu_count(), help="default: one a core")
    parser.add_argument("--rounds", type=int, default=10, help="that count (default: 10)")
    parser.add_argument("--seconds", type=float, default=600, help="idle and beside, at most (600)")
    parser.add_argument("--serve", choices=["fp32", "bf16"], help=argparse.SUPPRESS)
    figures.add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")

    forms = {name: form(way, arguments.precision) for name, way in WAYS.items()}
    idle = turns.take(forms, arguments.rounds, arguments.seconds)
    with train_step.busy(arguments.beside) as pids:
        beside = turns.take(forms, arguments.rounds, arguments.seconds, busy=pids)
    for each in forms.values():
        each.close()
    result = {
        "idle": rows(idle),
        "beside": rows(beside),
        "busy_processes": arguments.beside,
        "precision": arguments.precision,
        "machine": figures.machine(),
    }
    figures.write(result, arguments.json, print_table)


def print_table(result: dict[str, Any]) -> None:
    print(f"{figures.describe(result['machine'])}; {result['precision']}, median ms")
    for when in ("idle", "beside"):
        taken = result[when]
        print(
            f"{when}: {taken['rounds']} rounds, and {taken['rounds_disturbed']} that were "
            "disturbed and do not count"
        )
    print(f"busy processes: {result['busy_processes']}")
    for name, idle in result["idle"]["forms"].items():
        beside = result["beside"]["forms"][name]
        cells = [
            f"{row['ms_per_step']:.0f} ({row['ms_min']:.0f} to {row['ms_max']:.0f})"
            for row in (idle, beside)
        ]
        times = beside["ms_per_step"] / idle["ms_per_step"]
        print(f"{name:>20}  idle {cells[0]:>20}  beside {cells[1]:>20}  {times:.2f} times")


if __name__ == "__main__":
    main()
