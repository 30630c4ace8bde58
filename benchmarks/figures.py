"""What the benchmarks share: the machine that figures are of, and where figures go."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lungan  # noqa: F401  (before torch, so that CPU threads wait as in its commands)

# isort: split
import torch


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """The processor, or the GPU where ``device`` is one, threads and versions."""
    on_gpu = device is not None and device.type == "cuda"
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def describe(machine: dict[str, Any]) -> str:
    name = machine["gpu"] or machine["processor"]
    return f"{name}, {machine['threads']} threads, torch {machine['torch']}"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="for the figures; - is stdout")


def write(result: Any, target: str | None, print_table: Callable[[Any], None]) -> None:
    """The table on stdout and the figures in ``target``, or with ``-`` the figures on stdout."""
    text = json.dumps(result, indent=2)
    if target == "-":
        print(text)
        return
    if target:
        Path(target).write_text(text + "\n")
    print_table(result)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
