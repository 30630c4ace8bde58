"""``python -m lungan.utility``: do generated images help a classifier?"""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.errors import ConfigError
from lungan.results.arms import ARMS, STANDARD
from lungan.runs.folder import SWEEPS, UTILITY, write_bytes

EXAMPLES = """examples:
  python -m lungan.utility runs/<run of normal> runs/<run of pneumonia>
      one generator a class, or one run with generator.conditional=true
  python -m lungan.utility runs/* --fractions 0.05,0.1,0.25,1 --ratios 0.5,1,2 --seeds 5
      with generators that were trained with data.splits=[train] data.fraction=0.05, ...
  python -m lungan.utility runs/* --dry-run
      how many classifiers there are to train, and what does not fit

Every classifier is trained by the same number of updates, selected on val and tested once on test.
The results lie in <store>/utility; stopped by Ctrl-C, the same command goes on. Several processes
may share a study. What the arms and controls mean: docs/utility.md.
Exit codes: 0 good, 2 bad input, 130 interrupted (resumable)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _study(options))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m lungan.utility",
        description="Train classifiers with and without generated images, and compare them.",
        epilog=f"arms (--arms):\n{_arms()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished run folders")
    parser.add_argument(
        "--ratios", type=_numbers, default=[1.0], metavar="A,B", help="images added a real one (1)"
    )
    parser.add_argument(
        "--fractions",
        type=_numbers,
        metavar="A,B",
        help="of the training split (all that the runs were trained on)",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (5)")
    parser.add_argument(
        "--arms",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        default=list(STANDARD),
        metavar="A,B",
        help="which (the first six)",
    )
    parser.add_argument("--classifier", default="small", metavar="NAME", help="small or resnet18")
    parser.add_argument("--updates", type=int, default=800, metavar="N", help="in each arm (800)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument(
        "--peak-lr", type=float, metavar="X", help="of the one cycle (small 0.2, resnet18 0.1)"
    )
    parser.add_argument(
        "--positive", metavar="CLASS", help="whose detection is measured, of two classes (the last)"
    )
    parser.add_argument("--data-path", metavar="PATH", help="where the runs' data lies now")
    parser.add_argument("--store", type=Path, metavar="DIR", help="(the first run's)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("results/utility"), help="tables, figures"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<index>")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the CPU (torch's)")
    parser.add_argument("--dry-run", action="store_true", help="check and say the plan only")
    return parser


def _study(options: argparse.Namespace) -> int:
    _check(options)
    # Here, so that --help need not wait for torch.
    import torch

    from lungan.classifiers.train import make_recipe
    from lungan.device import resolve_device, resolve_precision
    from lungan.utility.generators import read_generators
    from lungan.utility.study import describe_plan, plan_trials, run_trials
    from lungan.utility.trial import Settings

    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    recipe = make_recipe(options.classifier, options.updates, options.batch_size, options.peak_lr)
    # A store's own folders, which runs/* brings along, hold no runs.
    runs = [path for path in options.runs if path.name not in (UTILITY, SWEEPS)]
    if not runs:
        raise ConfigError(f"RUN must be finished run folders, got {options.runs[0]}")
    generators = read_generators(runs, options.fractions, options.data_path)
    settings = Settings(
        generators=generators,
        recipe=recipe,
        positive=_positive(options.positive, generators.real.image_set.class_names),
        device=device,
        precision=resolve_precision("auto", device),
    )
    store: Path = options.store or options.runs[0].resolve().parent
    root = store / UTILITY
    trials = plan_trials(generators, options.arms, options.ratios, options.seeds)
    print(describe_plan(trials, settings, root), flush=True)
    if options.dry_run:
        return 0
    outcome = run_trials(trials, settings, root)
    if outcome.num_busy:
        print(f"under way elsewhere: {outcome.num_busy} trials; the same command adds them")
    _write(store, options.out, outcome.run_ids)
    return 0


def _check(options: argparse.Namespace) -> None:
    for key in ("ratios", "fractions"):
        values = getattr(options, key)
        if values is not None and (not values or len(set(values)) < len(values)):
            raise ConfigError(f"--{key} must be different numbers such as 0.5,1, got {values}")
    for ratio in options.ratios:
        if not (math.isfinite(ratio) and ratio > 0):
            raise ConfigError(f"--ratios must be greater than 0, got {ratio:g}")
    for fraction in options.fractions or []:
        if not 0 < fraction <= 1:
            raise ConfigError(f"--fractions must be greater than 0, at most 1, got {fraction:g}")
    for key in ("seeds", "threads"):
        least = 1 if key == "seeds" else 0
        if getattr(options, key) < least:
            raise ConfigError(f"--{key} must be at least {least}, got {getattr(options, key)}")


def _write(store: Path, out: Path, run_ids: set[str]) -> None:
    from lungan.results.utility import read_utility
    from lungan.results.utility_report import report_utility

    utility = read_utility(store, run_ids=run_ids)
    if utility is None:
        return
    report = report_utility(utility)
    for name, content in report.files.items():
        write_bytes(out / name, content)
    for line in report.verdicts:
        print(line)
    print(
        f"\n{len(report.files)} files in {out}; python -m lungan.results {shlex.quote(str(store))} "
        "puts them beside the runs"
    )


def _positive(name: str | None, class_names: Sequence[str]) -> int:
    if name is None:
        return len(class_names) - 1
    if name not in class_names:
        raise ConfigError(f"--positive must be one of {', '.join(class_names)}, got {name}")
    return class_names.index(name)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part.strip()]


def _arms() -> str:
    return "\n".join(f"  {arm.name:26} {arm.title}" for arm in ARMS.values())


if __name__ == "__main__":
    run_as_program(main)
