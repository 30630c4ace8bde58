"""Wall time of the report's four runs through the real command, scores and tables included.

    python benchmarks/end_to_end.py [--data DATA] [--epochs 50,100] [--processes N]
        [--fresh-cache] [--json FILE|-] [key=value ...]

The sweep has one seed and a store of its own that is thrown away. Other settings go to the command
as they are, such as score=fast or generator.width=8. Phases are those of the runs' summary.json;
start-up is what passes until the command says what it is going to do, without reading data, and
"other" is the rest: sinks around training, tables, figures and the way out. Phases add up to the
total in one process only; of several the total is given alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import figures

PHASES = ("data", "training", "scoring")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="example: %(prog)s --epochs 1,2 score=none"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further settings")
    parser.add_argument("--data", default="phantom", help="pneumoniamnist needs data.path=FILE too")
    parser.add_argument("--epochs", default="50,100", help="of the shorter and the longer runs")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="that train at a time (%(default)s)"
    )
    parser.add_argument(
        "--fresh-cache",
        action="store_true",
        help="train the in-domain encoder again, as a first run does",
    )
    figures.add_json_option(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options)
    figures.write(result, options.json, print_table)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "lungan.train", "--multirun", f"data={options.data}"]
    command += ["optimizer=adam,rmsprop", f"epochs={options.epochs}", "seed=0"]
    command += ["--processes", str(options.processes)]
    command += [*options.overrides, f"store={folder / 'runs'}"]
    environment = os.environ | (
        {"LUNGAN_CACHE": str(folder / "cache")} if options.fresh_cache else {}
    )
    cpu_before = cpu_seconds_of_children()
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    plan = process.stdout.readline().strip()
    until_plan = time.perf_counter() - began
    process.stdout.read()
    code = process.wait()
    total = time.perf_counter() - began
    if code != 0:
        raise SystemExit(f"end_to_end: the command ended with {code}")

    summaries = [json.loads(path.read_text()) for path in folder.glob("runs/*/summary.json")]
    summaries.sort(key=lambda summary: (summary["config"]["optimizer"]["name"], summary["epochs"]))
    seconds: dict[str, float] = {}
    if options.processes == 1:
        seconds = {phase: sum(each["seconds"][phase] for each in summaries) for phase in PHASES}
        start_up = until_plan - seconds["data"]
        other = total - start_up - sum(seconds.values())
        seconds = {"start_up": start_up, **seconds, "other": other}
    first = summaries[0]
    return {
        "plan": plan,
        "overrides": command[4:-1],
        "fresh_cache": options.fresh_cache,
        "seconds": seconds | {"total": total},
        "cpu_seconds": cpu_seconds_of_children() - cpu_before,
        "runs": [each_run(summary) for summary in summaries],
        "machine": figures.machine()
        | {name: first[name] for name in ("device", "precision", "threads")},
    }


def each_run(summary: dict[str, Any]) -> dict[str, Any]:
    scores = summary["scores"]
    return {
        "optimizer": summary["config"]["optimizer"]["name"],
        "epochs": summary["epochs"],
        "continued_from": summary["continued_from"],
        "status": summary["status"],
        "seconds": summary["seconds"],
        "scored_with": sorted(scores["encoders"]) if scores else [],
        "lacking": scores["reasons"] if scores else {},
    }


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_table(result: dict[str, Any]) -> None:
    machine = result["machine"]
    print(
        f"{figures.describe(machine)}, on {machine['device']}, {machine['precision']}: "
        f"{' '.join(result['overrides'])}"
    )
    print(f"{'run':>22}" + "".join(f"{phase:>10}" for phase in (*PHASES, "total")))
    for run in result["runs"]:
        name = f"{run['optimizer']}, {run['epochs']} epochs"
        cells = (run["seconds"][phase] for phase in (*PHASES, "total"))
        goes_on = "  goes on from the shorter run" if run["continued_from"] else ""
        print(f"{name:>22}" + "".join(f"{cell:>10.1f}" for cell in cells) + goes_on)
    for phase, seconds in result["seconds"].items():
        share = seconds / result["seconds"]["total"]
        print(f"{phase.replace('_', '-'):>22}{seconds:>10.1f} s {share:>6.1%}")
    print(f"{'CPU seconds':>22}{result['cpu_seconds']:>10.1f}")
    lacking = {name for run in result["runs"] for name in run["lacking"]}
    if lacking:
        print(f"not scored, see the JSON's reasons: {', '.join(sorted(lacking))}")


if __name__ == "__main__":
    main()
