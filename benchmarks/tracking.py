"""How much longer a run takes with a tracker than without, W&B's server well and in trouble.

    python benchmarks/tracking.py [--rounds 3] [--json FILE|-]

In each round every case has one tiny run, a whole process of ``python -m lungan.train``, and is
held against the round's run with ``tracker=none``. Beside it stands what the run itself waits: its
seconds inside of ``live.Followers``, which a machine that is busy with other things moves less. The
W&B server is that of the tests. Figures are written after every round, with the load before each
run; rounds that FILE has already stay. A run that lacks an epoch, a grid or its summary ends the
benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import figures

from lungan.runs.folder import read_metrics, read_summary

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking"))
import wandb_server

EPOCHS = 3
TINY = [
    "data=phantom", "data.num_images=96", "data.num_test=16", "score=none", "precision=fp32",
    "generator.width=8", "discriminator.width=8", "batch_size=16", f"epochs={EPOCHS}",
    "samples_every_epochs=1",
]  # fmt: skip
ONLINE = ["tracker=wandb", "tracker.mode=online"]
CASES = {
    "none": ["tracker=none"],
    "tensorboard": ["tracker=tensorboard"],
    "offline": ["tracker=wandb", "tracker.mode=offline"],
    "online": ONLINE,
    "refuses": ONLINE,
    "hangs": ONLINE,
    "hangs after the start": ONLINE,
    "dies midway": ONLINE,
    "answers 500": ONLINE,
}
LIMIT_SECONDS = 5.0
TIMED = """
import sys, time
from lungan.tracking.live import Followers
from lungan.train import main

waited = 0.0

def timed(method):
    def call(*arguments):
        global waited
        began = time.perf_counter()
        method(*arguments)
        waited += time.perf_counter() - began
    return call

Followers.__init__, Followers.close = timed(Followers.__init__), timed(Followers.close)
status = main(sys.argv[1:])
print(waited)
sys.exit(status)
"""
"""A run that says in its last line what it waited for its trackers."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of every case (default: 3)")
    figures.add_json_option(parser)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    waited: dict[str, list[float]] = {name: [] for name in CASES}
    loads: list[float] = []
    if options.json and Path(options.json).is_file():
        before = json.loads(Path(options.json).read_text())
        seconds, waited, loads = before["seconds"], before["waited"], before["loads"]
    for _ in range(options.rounds):
        for name in CASES:
            loads.append(round(os.getloadavg()[0], 1))
            for figures_of, found in zip((seconds, waited), run(name), strict=True):
                figures_of[name].append(round(found, 2))
        result = {
            "rounds": len(seconds["none"]),
            "limit_seconds": LIMIT_SECONDS,
            "longer_seconds": {name: longer(seconds, name) for name in CASES if name != "none"},
            "waited_seconds": {name: spread(waited[name]) for name in CASES if name != "none"},
            "seconds": seconds,
            "waited": waited,
            "loads": loads,
            "machine": figures.machine(),
        }
        figures.write(result, options.json, print_table)


def longer(seconds: dict[str, list[float]], name: str) -> dict[str, float]:
    """Than ``tracker=none`` of the same round."""
    by_round = [each - none for each, none in zip(seconds[name], seconds["none"], strict=True)]
    return spread(by_round)


def spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


def run(case: str) -> tuple[float, float]:
    """The seconds of a whole process, and those that its run waited; its folder must have all."""
    with tempfile.TemporaryDirectory() as folder, wandb_server.serving() as server:
        with trouble(case, server) as address:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
            environment |= {"WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40}
            command = [sys.executable, "-c", TIMED, *TINY, *CASES[case]]
            began = time.perf_counter()
            command.append(f"store={folder}")
            done = subprocess.run(command, env=environment, check=True, capture_output=True)
            seconds = time.perf_counter() - began
        (made,) = Path(folder).glob("*/summary.json")
        summary = read_summary(made.parent)
        assert summary is not None and summary["status"] == "done"
        assert len(read_metrics(made.parent)) == EPOCHS
        assert len(list(made.parent.glob("samples/*.png"))) == EPOCHS
        # A tracker that goes on by itself is no part of the next run.
        subprocess.run(["pkill", "-f", folder], check=False)
    return seconds, float(done.stdout.split()[-1])


@contextlib.contextmanager
def trouble(case: str, server: wandb_server.WandbServer) -> Iterator[str]:
    """The address of a W&B server that is as the case says."""

    def when_streaming(act: Callable[[], Any]) -> Callable[[str], Any]:
        return lambda path: act() if path.endswith("file_stream") else None

    match case:
        case "hangs after the start":
            server.trouble = when_streaming(lambda: time.sleep(60))
        case "dies midway":
            server.trouble = when_streaming(server.die)
        case "answers 500":
            server.trouble = when_streaming(lambda: 500)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{port.getsockname()[1]}"
        if case == "hangs":
            port.listen(64)
        if case in ("hangs", "refuses"):
            yield address
        else:
            yield server.address


def print_table(result: Any) -> None:
    load = statistics.median(result["loads"])
    print(f"{result['rounds']} rounds, {figures.describe(result['machine'])}, load {load:.1f}")
    print(f"{'':24}{'waited':>8}{'greatest':>10}{'longer':>10}{'least':>8}{'greatest':>10}")
    for name, row in result["longer_seconds"].items():
        waited = result["waited_seconds"][name]
        print(
            f"{name:24}{waited['median']:8.2f}{waited['greatest']:10.2f}"
            f"{row['median']:10.2f}{row['least']:8.2f}{row['greatest']:10.2f}"
        )


if __name__ == "__main__":
    main()
