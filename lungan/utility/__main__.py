"""``python -m lungan.utility``: do generated images help a classifier?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CommandParser, add_config_dir, run_as_program, run_command
from lungan.errors import ConfigError
from lungan.runs.folder import check_name
from lungan.utility.arms import ARMS
from lungan.utility.manifest import ENDING, manifest_path, manifests

EXAMPLES = """examples:
  lungan utility data=pneumoniamnist --fractions 0.02,0.05 --seeds 10
      trains the generators that the store lacks, one a fraction and seed, then the classifiers
  lungan utility data=folder data.path=films 'data.group=(.*)_' epochs=30 --seeds 20 --dry-run
      what there is to do and what it will cost, at measured speed
  lungan utility data=pneumoniamnist --imbalance normal=0.02,0.05
      normal images so rare; synthetic ones of that class alone
  lungan utility runs/<run of normal> runs/<run of pneumonia>
      with generators that were trained with data.splits=[train] (data.fraction=...)
  lungan utility --study study --store runs
      the page again from finished trials; data, generators and weights may be gone

Overrides are those of lungan.train; epochs are of the whole training split, and a generator of
fewer images has so many more. The page is <out>/report.html, and its first sentence the answer.
What is asked is written down before the first result (<store>/utility/<study>.study.json); what is
added later is exploratory. Stopped by Ctrl-C, the same command goes on; several commands may share
a study. How to read the answer: docs/utility.md; every arm and option: docs/utility_details.md.
Exit codes: 0 good, 2 bad input, 130 interrupted (resumable)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    parser = _parser()

    def command() -> int:
        options = parser.parse_intermixed_args(arguments)
        return _study(options) if options.given else _from_store(options, parser)

    return run_command(command)


def _parser() -> CommandParser:
    parser = CommandParser(
        "utility",
        "Train classifiers with and without generated images, and compare them.",
        f"arms (--arms):\n{_arms()}\n\n{EXAMPLES}",
    )
    parser.add_argument(
        "given",
        nargs="*",
        metavar="key=value|RUN",
        help="settings of the generators to train, or finished run folders; without any, the page "
        "is written again from the trials that the store has",
    )
    add_config_dir(parser)
    parser.add_argument("--study", default="study", metavar="NAME", help="its name (%(default)s)")
    parser.add_argument(
        "--ratios", type=_numbers, default=[1.0], metavar="A,B", help="synthetic a real one (1)"
    )
    parser.add_argument(
        "--fractions",
        type=_numbers,
        metavar="A,B",
        help="of training and validation images (1, or all that the runs were trained on)",
    )
    parser.add_argument(
        "--imbalance",
        metavar="CLASS=A,B",
        help="make this class so rare: its shares of the training images",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="how many (5), from seed=, or 0, on"
    )
    parser.add_argument(
        "--arms",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        metavar="A,B",
        help="which (the first six; with --imbalance those for a rare class)",
    )
    parser.add_argument(
        "--question",
        metavar="ASKED:CONTROL,CONTROL",
        help="the arm asked about, and the controls of which it must be better than each",
    )
    parser.add_argument(
        "--sets", type=int, metavar="N", help="of generators a fraction (as many as seeds)"
    )
    parser.add_argument(
        "--one-a-class", action="store_true", help="a generator a class, not one for all"
    )
    parser.add_argument(
        "--try-on-validation",
        action="store_true",
        help="measure on validation images, to try options and leave the test images alone",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="choose each classifier's updates, peak rate and weight decay, among six recipes, on "
        "its validation images",
    )
    parser.add_argument("--classifier", default="small", metavar="NAME", help="small or resnet18")
    parser.add_argument("--updates", type=int, default=400, metavar="N", help="of real (400)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument(
        "--peak-lr", type=float, metavar="X", help="of the one cycle (small 0.2, resnet18 0.1)"
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        help="whose detection is measured (the rare one, or the last)",
    )
    parser.add_argument("--data-path", metavar="PATH", help="where the runs' data lies now")
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="(the first run's, or the config's)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("results/utility"), help="tables, figures"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="on this machine, at a time (as the CPU's cores and memory allow); "
        "hydra/launcher=slurm or ray uses a cluster",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<index>")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the CPU (torch's)")
    parser.add_argument("--dry-run", action="store_true", help="check and say the plan only")
    return parser


def _study(options: argparse.Namespace) -> int:
    _check(options)
    from lungan.utility.study import do_study  # which needs torch, and --help does not

    store = do_study(options)
    return 0 if options.dry_run else _write_page(options, store)


def _from_store(options: argparse.Namespace, parser: CommandParser) -> int:
    """The page of what the store has, for which nothing is trained or read but trials."""
    for key, one in vars(options).items():
        if key not in ("given", "study", "store", "out") and one != parser.get_default(key):
            raise ConfigError(
                f"--{key.replace('_', '-')} needs settings of the generators to train, or run "
                "folders; without them --study, --store and --out alone write a study's page again"
            )
    store = options.store or Path("runs")
    if not manifest_path(store, options.study).is_file():
        have = [path.name.removesuffix(ENDING) for path in manifests(store)]
        raise ConfigError(
            "give settings of the generators to train, run folders, or the --study and --store of "
            f"a study that was begun; {store} has {', '.join(have) or 'none'}, not {options.study}"
        )
    return _write_page(options, store)


def _write_page(options: argparse.Namespace, store: Path) -> int:
    from lungan.results.report import write_results

    results = write_results(store, None, options.out, study=options.study)
    for line in results.verdicts:
        print(line)
    print(f"\n{options.out / 'report.html'} has all of it")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Check what needs no data; ``imbalance`` becomes a class and its shares.

    Raises: ConfigError.
    """
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
    if options.tune and options.try_on_validation:
        raise ConfigError(
            "--tune chooses recipes by the images that --try-on-validation measures on; give one "
            "of them"
        )
    if options.one_a_class and "discriminator" in (options.arms or []):
        raise ConfigError(
            "--one-a-class trains a discriminator for each class, and the arm discriminator takes "
            "one for all; leave one of them out"
        )
    for key, least in (("seeds", 1), ("sets", 1), ("threads", 0)):
        number = getattr(options, key)
        if number is not None and number < least:
            raise ConfigError(f"--{key} must be at least {least}, got {number}")
    check_name(options.study, "--study")
    if options.imbalance is not None:
        options.imbalance = _imbalance(options.imbalance)


def _imbalance(text: str) -> tuple[str, tuple[float, ...]]:
    """The rare class and its shares, from ``CLASS=A,B``. Raises: ConfigError."""
    rare, _, listed = text.partition("=")
    try:
        shares = tuple(_numbers(listed))
    except ValueError:
        shares = ()
    fit = shares and all(0 < share < 1 for share in shares)
    if not rare or not fit or len(set(shares)) < len(shares):
        raise ConfigError(
            "--imbalance must be a class and different shares between 0 and 1, such as "
            f"pneumonia=0.02,0.05, got {text}"
        )
    return rare, shares


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part.strip()]


def _arms() -> str:
    return "\n".join(f"  {arm.name:26} {arm.title}" for arm in ARMS.values())


if __name__ == "__main__":
    run_as_program(main)
