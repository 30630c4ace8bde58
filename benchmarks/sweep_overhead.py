"""What the framework costs beside training and scoring: start-up, each job of a sweep, the sinks.

    python benchmarks/sweep_overhead.py [--rounds 7] [--jobs 8] [--steps 20] [--json FILE|-]

Start-up is ``python -m lungan.train --help``. A job's overhead is what a sweep of ``--jobs`` more
tiny runs takes longer, less their own training and scoring: interpreter, imports and the sweep's
tables cancel. What the loop waits for sinks is timed around them, in a run of the report's networks
that writes all it can after every epoch. CPU seconds are there for machines that do other work
too; those of a job hold its training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import figures

from lungan.config.compose import compose, composer
from lungan.runs.folder import CHECKPOINT
from lungan.runs.prepare import prepare
from lungan.runs.sinks import FolderSink, ProgressSink
from lungan.runs.store import Claimed, Store
from lungan.tracking.live import Followers, chosen
from lungan.tracking.records import describe_run
from lungan.training.events import Event
from lungan.training.loop import train
from lungan.training.state import build_state
from lungan.training.step import build_step
from lungan.training.training_data import gather

TARGETS = {"start_up": 2.0, "job": 0.5}
KEYS = ("seconds_min", "seconds_median", "cpu_seconds_min", "cpu_seconds_median")
SINKS_BATCH_SIZE = 8
TINY = [
    "data=phantom", "data.num_images=96", "data.num_test=16", "score=none",
    "optimizer=adam", "generator.width=8", "generator.max_width=16", "discriminator.width=8",
    "batch_size=16",
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="of everything (default: 7)")
    parser.add_argument("--jobs", type=int, default=8, help="by which the sweeps differ")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch, for the sinks")
    parser.add_argument("--tracker", choices=["none", "wandb"], default="none")
    figures.add_json_option(parser)
    options = parser.parse_args(arguments)
    for name in ("rounds", "jobs", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "start_up": start_up(options.rounds),
            "job": per_job(Path(folder), options.rounds, options.jobs),
            "sinks": sinks(Path(folder), options.rounds, options.steps, options.tracker),
            "targets": TARGETS,
            "machine": figures.machine(),
        }
    figures.write(result, options.json, print_table)


def start_up(rounds: int) -> dict[str, float]:
    times = [command(["--help"]) for _ in range(rounds)]
    return row(times)


def per_job(folder: Path, rounds: int, jobs: int) -> dict[str, float]:
    """Of a sweep of 1 and of 1 + ``jobs`` runs, in turns, each in a store of its own."""
    times = []
    for number in range(rounds):
        few, many = (sweep(folder / f"{number}-{count}", count) for count in (1, 1 + jobs))
        times.append(((many[0] - few[0]) / jobs, (many[1] - few[1]) / jobs))
    return row(times) | {"jobs": jobs}


def sweep(store: Path, num_runs: int) -> tuple[float, float]:
    """Seconds without those of training and scoring, and CPU seconds with them."""
    seeds = ",".join(map(str, range(num_runs)))
    seconds, cpu = command(["--multirun", *TINY, "epochs=1", f"seed={seeds}", f"store={store}"])
    summaries = [json.loads(path.read_text()) for path in store.glob("*/summary.json")]
    assert len(summaries) == num_runs
    own = sum(each["seconds"]["training"] + each["seconds"]["scoring"] for each in summaries)
    return seconds - own, cpu


def command(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds on the clock and of the CPU that ``python -m lungan.train`` takes."""
    before, began = cpu_seconds_of_children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lungan.train", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"sweep_overhead: the command failed: {done.stderr.strip()}")
    return time.perf_counter() - began, cpu_seconds_of_children() - before


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sinks(folder: Path, rounds: int, num_steps: int, tracker: str) -> dict[str, Any]:
    """Milliseconds that the loop waits inside the sinks of a run of the report's networks, for
    each kind of event, and those of its steps, which are small ones."""
    images = num_steps * SINKS_BATCH_SIZE
    with composer():
        config = compose(
            ["data=phantom", f"data.num_images={images}", "data.num_test=4", "data.classes=[]",
             "data.splits=[train,val]", "score=none", f"batch_size={SINKS_BATCH_SIZE}",
             f"epochs={rounds}", "checkpoint_every_epochs=1", "samples_every_epochs=1",
             f"tracker={tracker}", f"store={folder / 'sinks'}"]
        )  # fmt: skip
    prepared = prepare(config)
    claimed = Store(Path(config.store)).claim(prepared.identity)
    assert isinstance(claimed, Claimed)
    progress = ProgressSink("", config.epochs)
    run = describe_run(claimed.folder, prepared.identity.run, dataclasses.asdict(config), None)
    followers = Followers(run, chosen(config))
    sinks = [FolderSink(claimed.folder, claimed.claim, None), progress]
    waited: dict[str, list[float]] = {}

    def emit(event: Event) -> None:
        began = time.perf_counter()
        for sink in sinks:
            sink(event)
        waited.setdefault(type(event).__name__, []).append(time.perf_counter() - began)

    training_set = prepared.training_set
    state = build_state(config, training_set.size, training_set.channels, prepared.device)
    step = build_step(config, state, prepared.precision)
    data = gather(config, prepared.image_set, training_set, prepared.device)
    began = time.perf_counter()
    try:
        train(config, state, step, data, emit=emit)
    finally:
        followers.close()
        claimed.claim.release()
    total = time.perf_counter() - began
    return {
        "tracker": tracker,
        "ms": {kind: statistics.median(times) * 1e3 for kind, times in waited.items()},
        "ms_max": {kind: max(times) * 1e3 for kind, times in waited.items()},
        "checkpoint_mebibytes": (claimed.folder / CHECKPOINT).stat().st_size / 2**20,
        "seconds_in_sinks": sum(map(sum, waited.values())),
        "seconds": total,
    }


def row(times: list[tuple[float, float]]) -> dict[str, float]:
    clock, cpu = zip(*times, strict=True)
    return {
        "seconds_min": min(clock),
        "seconds_median": statistics.median(clock),
        "cpu_seconds_min": min(cpu),
        "cpu_seconds_median": statistics.median(cpu),
    }


def print_table(result: dict[str, Any]) -> None:
    print(figures.describe(result["machine"]))
    heads = ("seconds", "fastest", "median", "CPU fastest", "median", "target")
    print(f"{heads[0]:>12}" + "".join(f"{head:>12}" for head in heads[1:]))
    for name, title in (("start_up", "--help"), ("job", "a job")):
        cells = [*(result[name][key] for key in KEYS), result["targets"][name]]
        print(f"{title:>12}" + "".join(f"{cell:>12.2f}" for cell in cells))
    told = result["sinks"]
    each = ", ".join(f"{kind} {ms:.2f}" for kind, ms in told["ms"].items())
    print(
        f"inside sinks, ms an event, median (tracker={told['tracker']}, checkpoint of "
        f"{told['checkpoint_mebibytes']:.0f} MiB): {each}"
    )


if __name__ == "__main__":
    main()
