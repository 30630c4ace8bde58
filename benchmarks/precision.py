"""Whether the report's recipe trains to the same losses in bf16 as in fp32, over seeds.

    python benchmarks/precision.py [--epochs 20] [--seeds 3] [--json FILE|-] [key=value ...]

Each seed is trained in both precisions from the same weights, images and random numbers. A figure
of a run is its mean over the last quarter of the epochs. Precisions agree in it where their means
over seeds lie no further apart than one standard deviation of seeds within a precision. A GAN's
paths part after some steps, whatever parts them, so that runs are not compared step by step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import figures

from lungan.config import RunConfig
from lungan.config.compose import compose, composer
from lungan.runs.prepare import prepare
from lungan.training.events import EpochEnd, Event
from lungan.training.loop import train
from lungan.training.state import build_state
from lungan.training.step import build_step
from lungan.training.training_data import gather

PRECISIONS = ("fp32", "bf16")
FIGURES = ("loss_generator", "loss_discriminator", "logit_real", "logit_fake")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: %(prog)s --epochs 4 data.num_images=200 generator.width=8",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further settings")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2 (default: 3)")
    figures.add_json_option(parser)
    options = parser.parse_args(arguments)
    if options.seeds < 2 or options.epochs < 1:
        parser.error("--seeds must be at least 2, for a spread, and --epochs at least 1")
    runs: dict[str, list[list[dict[str, float]]]] = {name: [] for name in PRECISIONS}
    began = time.perf_counter()
    for seed in range(options.seeds):
        for precision in PRECISIONS:
            settings = [*options.overrides, f"epochs={options.epochs}", f"seed={seed}"]
            with composer():
                config = compose([*settings, f"precision={precision}", "score=none"])
            runs[precision].append(epochs_of(config))
            seconds = time.perf_counter() - began
            print(f"seed {seed} in {precision} done, {seconds:.0f} s so far", file=sys.stderr)
    result = {
        "overrides": options.overrides,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "figures": {name: compare(name, runs) for name in FIGURES},
        "runs": {
            precision: [{name: [row[name] for row in run] for name in FIGURES} for run in of_it]
            for precision, of_it in runs.items()
        },
        "machine": figures.machine(),
    }
    figures.write(result, options.json, print_table)


def epochs_of(config: RunConfig) -> list[dict[str, float]]:
    """A run's metrics, a row an epoch. Nothing is written."""
    prepared = prepare(config)
    images = prepared.training_set
    data = gather(config, prepared.image_set, images, prepared.device)
    state = build_state(config, images.size, images.channels, prepared.device, data.classes)
    rows: list[dict[str, float]] = []

    def emit(event: Event) -> None:
        if isinstance(event, EpochEnd):
            rows.append(event.metrics)

    step = build_step(config, state, prepared.precision)
    train(config, state, step, data, emit=emit)
    return rows


def compare(name: str, runs: dict[str, list[list[dict[str, float]]]]) -> dict[str, Any]:
    """A figure's mean and spread over seeds in each precision, and whether they agree."""
    values = {}
    for precision, of_it in runs.items():
        last = max(1, len(of_it[0]) // 4)
        values[precision] = [statistics.mean(row[name] for row in run[-last:]) for run in of_it]
    means = {precision: statistics.mean(each) for precision, each in values.items()}
    variances = [statistics.variance(each) for each in values.values()]
    spread = statistics.mean(variances) ** 0.5
    difference = means["bf16"] - means["fp32"]
    return {
        "mean": means,
        "difference": difference,
        "spread_of_seeds": spread,
        "agrees": abs(difference) <= spread,
    }


def print_table(result: dict[str, Any]) -> None:
    print(
        f"{figures.describe(result['machine'])}: "
        f"{result['seeds']} seeds, {result['epochs']} epochs, mean of the last quarter"
    )
    heads = ("fp32", "bf16", "difference", "seeds' std")
    print(f"{'':>20}" + "".join(f"{head:>12}" for head in heads))
    for name, found in result["figures"].items():
        cells = (*found["mean"].values(), found["difference"], found["spread_of_seeds"])
        verdict = "agrees" if found["agrees"] else "DIFFERS"
        print(f"{name:>20}" + "".join(f"{cell:>12.4f}" for cell in cells) + f"  {verdict}")


if __name__ == "__main__":
    main()
