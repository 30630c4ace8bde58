"""``python -m lungan.utility``: do generated images help a classifier?"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.cli import CommandParser, add_config_dir, run_as_program, run_command
from lungan.errors import ConfigError
from lungan.runs.folder import GENERATOR, SWEEPS, UTILITY, check_name
from lungan.utility.arms import ARMS, BASELINE, RARE, STANDARD
from lungan.utility.manifest import ENDING, Design, manifest_path, manifests, read_manifest

if TYPE_CHECKING:
    from lungan.classifiers.train import Recipe
    from lungan.runs.jobs import Launcher
    from lungan.utility.generators import Generators
    from lungan.utility.images import RealImages
    from lungan.utility.trial import Settings

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
    # Here, so that --help need not wait for torch.
    import torch

    from lungan import launchers
    from lungan.classifiers.train import make_recipe
    from lungan.config import compose
    from lungan.device import resolve_device

    if options.threads:
        torch.set_num_threads(options.threads)
    resolve_device(options.device)
    recipe = make_recipe(options.classifier, options.updates, options.batch_size, options.peak_lr)
    with compose.composer(options.config_dir):
        given, launching = compose.split_launcher(options.given, options.processes)
    launcher = launchers.build(launching)
    # Path.exists has an error for an override that is longer than a file's name may be.
    overrides = [text for text in given if "=" in text and not os.path.exists(text)]  # noqa: PTH110
    if overrides and len(overrides) < len(given):
        other = next(text for text in given if text not in overrides)
        raise ConfigError(f"give run folders or settings, not both; got {other} and {overrides[0]}")
    if overrides:
        return _from_overrides(options, recipe, launcher, overrides)
    return _from_runs(options, recipe, launcher, given)


def _from_runs(
    options: argparse.Namespace, recipe: Recipe, launcher: Launcher, given: Sequence[str]
) -> int:
    from lungan.utility.generators import read_generators
    from lungan.utility.study import check_sets, scenarios_of

    # A store's own folders, which runs/* brings along, hold no runs.
    runs = [Path(text) for text in given if Path(text).name not in (UTILITY, SWEEPS)]
    if not runs:
        raise ConfigError(f"RUN must be finished run folders, got {options.given[0]}")
    store: Path = options.store or runs[0].resolve().parent
    gone = [path for path in runs if not path.is_file() and not (path / GENERATOR).is_file()]
    if gone and manifest_path(store, options.study).is_file():
        as_given = options.store or (runs[0].parent if runs[0].name else store)
        raise ConfigError(
            f"RUN must be finished run folders, and {gone[0]} has no generator; the page of the "
            f"trials that study {options.study} has is written again by lungan utility --study "
            f"{options.study} --store {as_given}"
        )
    scenarios = None
    if options.fractions is not None or options.imbalance is not None:
        scenarios = scenarios_of(_design(options, options.fractions or [1.0]))
    of_all = any(name in ARMS and ARMS[name].source == "of_all" for name in options.arms or [])
    generators = read_generators(runs, scenarios, options.data_path, unlabelled=of_all)
    design = _design(options, sorted({scenario.fraction for scenario in generators.sets}))
    settings = _settings(options, recipe, generators.real, design)
    check_sets(generators, design)
    record = {"runs": sorted(path.name for path in runs)}
    return _answer(options, settings, design, store, record, launcher, lambda: generators)


def _from_overrides(
    options: argparse.Namespace, recipe: Recipe, launcher: Launcher, overrides: Sequence[str]
) -> int:
    from lungan.config import compose
    from lungan.runs.store import store_path
    from lungan.runs.sweep import plan_sweep
    from lungan.utility import training
    from lungan.utility.generators import read_generators, without_runs
    from lungan.utility.images import WHOLE, read_real, whole_data
    from lungan.utility.study import check_sets, scenarios_of, sets_in_use

    if options.data_path is not None:
        raise ConfigError("--data-path is for run folders; give data.path=...")
    own = list(overrides)
    own += [f"store={options.store}"] if options.store else []
    own += [f"threads={options.threads}"] if options.threads else []
    own += [f"device={options.device}"] if options.device != "auto" else []
    with compose.composer(options.config_dir):
        base = training.base_config(own)
    real = read_real(whole_data(base.data))
    design = _design(options, options.fractions or [1.0], base.seed)
    settings = _settings(options, recipe, real, design)
    scenarios, num_sets = scenarios_of(design), min(options.sets or design.seeds, design.seeds)
    store = store_path(base)
    record = {"overrides": own, "sets": num_sets}
    seeds = range(base.seed, base.seed + num_sets)
    if not any(ARMS[name].uses_generator for name in design.arms):
        print("generators: none, since no arm has synthetic images", flush=True)
        known = without_runs(real, scenarios, seeds, base.discriminator, {})
        check_sets(known, design)
        return _answer(options, settings, design, store, record, launcher, lambda: known)
    configs = training.generator_configs(
        base, real.image_set, scenarios, num_sets, options.one_a_class, design.arms
    )
    plan = plan_sweep(configs, launcher, options.study, print)
    sets = training.runs_by_set(plan, real.image_set, [*scenarios, WHOLE], seeds)
    path, class_names = manifest_path(store, options.study), real.image_set.class_names
    by_run = read_manifest(path).weights if path.exists() else {}
    weights = {key: training.known_weights(runs, by_run, class_names) for key, runs in sets.items()}
    known = without_runs(real, scenarios, seeds, base.discriminator, weights)
    check_sets(known, design)
    in_use = sets_in_use(known, design, settings, store)
    said = "none, since all trials with synthetic images are done"
    if in_use:
        plan = training.only(plan, [run for key in in_use for run in sets[key]])
        said = f"{training.describe_cost(plan)}\n{launcher.describe(plan.trajectories)}".rstrip()
    print(f"generators: {said}", flush=True)

    def made() -> Generators:
        if not in_use or options.dry_run:
            return known
        runs = training.train_generators(plan, launcher, _command())
        used = {scenario for scenario, _ in in_use}
        wanted = [scenario for scenario in scenarios if scenario in used]
        of_all = WHOLE in used - {*scenarios}
        path = getattr(base.data, "path", None)
        return known.replaced_by(read_generators(runs, wanted, path, unlabelled=of_all))

    return _answer(options, settings, design, store, record, launcher, made)


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


def _settings(
    options: argparse.Namespace, recipe: Recipe, real: RealImages, design: Design
) -> Settings:
    """Raises: ConfigError for arms and classes that do not fit."""
    from lungan.device import resolve_device, resolve_precision
    from lungan.utility.images import TEST, VALIDATION
    from lungan.utility.study import check_arms
    from lungan.utility.trial import Settings

    class_names = real.image_set.class_names
    check_arms(design, len(class_names), recipe.batch_size)
    device = resolve_device(options.device)
    return Settings(
        real=real,
        recipe=recipe,
        positive=_positive(options.positive or design.rare or None, class_names),
        device=device,
        precision=resolve_precision("auto", device),
        tested_on=VALIDATION if options.try_on_validation else TEST,
        tuned=options.tune,
        first_seed=design.first_seed,
    )


def _answer(
    options: argparse.Namespace,
    settings: Settings,
    design: Design,
    store: Path,
    described: dict[str, Any],
    launcher: Launcher,
    make: Callable[[], Generators],
) -> int:
    """Write down what is asked, before anything is trained, and answer it. make: gives the
    generators, which are described by ``described``."""
    from lungan.runs.folder import exclusive
    from lungan.utility.manifest import write_manifest
    from lungan.utility.study import (
        add_trials,
        describe_plan,
        parse_question,
        plan_trials,
        study_with,
    )
    from lungan.utility.tasks import do_trials, plan_jobs

    question = options.question and parse_question(options.question, design.arms)
    common = settings.described()
    asked = (store, options.study, design, question, common, described, _command())
    if options.dry_run:
        study_with(*asked)
    else:
        with exclusive(store / UTILITY):
            write_manifest(store, study_with(*asked))
    trials = plan_trials(make(), design)
    jobs = plan_jobs(trials, settings, store / UTILITY, options.device, options.threads)
    said = f"{describe_plan(trials, settings, store)}\n{launcher.describe(jobs)}".rstrip()
    print(f"classifiers: {said}", flush=True)
    if options.dry_run:
        return 0
    add_trials(store, options.study, trials, settings)
    do_trials(jobs, options.study, launcher)
    return _write_page(options, store)


def _write_page(options: argparse.Namespace, store: Path) -> int:
    from lungan.results.report import write_results

    results = write_results(store, None, options.out, study=options.study)
    for line in results.verdicts:
        print(line)
    print(f"\n{options.out / 'report.html'} has all of it")
    return 0


def _command() -> str:
    return shlex.join(["lungan", "utility", *sys.argv[1:]])


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


def _design(options: argparse.Namespace, fractions: Sequence[float], first_seed: int = 0) -> Design:
    """Raises: ConfigError for an --imbalance that cannot be."""
    rare = ""
    prevalences: tuple[float, ...] = ()
    if options.imbalance is not None:
        rare, _, shares = options.imbalance.partition("=")
        try:
            prevalences = tuple(_numbers(shares))
        except ValueError:
            prevalences = ()
        fit = prevalences and all(0 < share < 1 for share in prevalences)
        if not rare or not fit or len(set(prevalences)) < len(prevalences):
            raise ConfigError(
                "--imbalance must be a class and different shares between 0 and 1, such as "
                f"pneumonia=0.02,0.05, got {options.imbalance}"
            )
    arms = options.arms or (RARE if rare else STANDARD)
    return Design(
        arms=tuple(dict.fromkeys([BASELINE, *arms])),
        fractions=tuple(fractions),
        rare=rare,
        prevalences=prevalences,
        ratios=tuple(options.ratios),
        first_seed=first_seed,
        seeds=options.seeds,
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
