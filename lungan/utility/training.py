"""The generators that a study lacks: their runs, planned and done by the sweep engine."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lungan.config import RunConfig, compose
from lungan.data.images import ONLY_CLASS, ImageSet
from lungan.errors import RunFolderError
from lungan.runs import sweep as sweeps
from lungan.runs.jobs import Launcher
from lungan.runs.prepare import Prepared
from lungan.runs.run import StopSignal
from lungan.runs.sweep import Plan, PlannedRun, against_store
from lungan.training.events import Event, StepEnd
from lungan.training.loop import Interrupted, train
from lungan.training.state import build_state
from lungan.training.step import build_step
from lungan.training.training_data import gather
from lungan.utility.arms import ARMS
from lungan.utility.images import TRAIN, Scenario

SCORING = ("score=fast", "score.memorization=true", "samples_every_epochs=0")
RECIPES = {
    "small_data": ("augment=diffaugment", "generator.width=32", *SCORING),
    "small_data_64": SCORING,
}
"""What a study changes in each experiment: small_data is half as wide, to save time, and has
DiffAugment, without which the discriminator knows a few hundred images by heart."""

SMALL_SIZE = 32
"""Up to so many pixels small_data serves, above them small_data_64."""


def base_config(overrides: Sequence[str]) -> RunConfig:
    """What all generators share, from overrides that change the usual recipe.

    Raises: ConfigError for anything wrong with them.
    """

    def composed(experiment: str) -> RunConfig:
        given = {text.partition("=")[0] for text in overrides}
        usual = (
            [f"experiment={experiment}", *RECIPES[experiment]] if "experiment" not in given else []
        )
        return compose.compose([*usual, *overrides], sweeping="give one value")

    with compose.composer():
        config = composed("small_data")
        if config.data.size > SMALL_SIZE:
            config = composed("small_data_64")
    return config


def generator_configs(
    base: RunConfig,
    image_set: ImageSet,
    scenarios: Sequence[Scenario],
    num_sets: int,
    one_a_class: bool,
    arms: Sequence[str],
) -> list[tuple[RunConfig, dict[str, str]]]:
    """The runs of all generators, with what sets them apart: for each seed, from the base's on,
    and scenario one conditional generator, or one for each class, or one for the rare class; and
    for each seed one without classes of all training images, where an arm uses such ones.

    ``base.epochs`` are of the whole training split: a run of fewer images has so many more that
    every generator sees as many images.

    Raises: ConfigError where a rare class has too few images.
    """
    training_images = image_set.select([TRAIN], [])
    using = [ARMS[name] for name in arms if ARMS[name].uses_generator]
    configs = []
    for seed in range(base.seed, base.seed + num_sets):
        if any(arm.source == "of_all" for arm in using):
            config = dataclasses.replace(
                base,
                data=dataclasses.replace(base.data, splits=[TRAIN], classes=[], fraction=1.0),
                generator=dataclasses.replace(base.generator, conditional=False),
                seed=seed,
            )
            configs.append((config, {"generator.conditional": "false", "seed": str(seed)}))
        for scenario in scenarios if any(arm.source == "" for arm in using) else []:
            fraction = scenario.of_generators(image_set)
            groups: list[list[str]] = [[]]
            if scenario.rare:
                groups = [[scenario.rare]]
            elif one_a_class:
                groups = [[name] for name in image_set.class_names]
            for classes in groups:
                share = int(training_images.members([], classes).sum()) / len(training_images)
                wanted = dataclasses.replace(
                    base.data,
                    splits=[TRAIN],
                    classes=classes,
                    fraction=fraction,
                    fraction_seed=seed if fraction < 1 else 0,
                )
                config = dataclasses.replace(
                    base,
                    data=wanted,
                    generator=dataclasses.replace(base.generator, conditional=not classes),
                    epochs=max(1, round(base.epochs / (fraction * share))),
                    seed=seed,
                )
                apart = {"data.fraction": f"{fraction:g}", "seed": str(seed)}
                configs.append((config, apart | ({"data.classes": classes[0]} if classes else {})))
    return configs


def runs_by_set(
    plan: Plan, image_set: ImageSet, scenarios: Sequence[Scenario], seeds: Sequence[int]
) -> dict[tuple[Scenario, int], list[PlannedRun]]:
    """The planned runs of each set, by scenario and seed."""
    found = {}
    for scenario in scenarios:
        fraction = scenario.of_generators(image_set)
        for seed in seeds:
            found[scenario, seed] = [
                run
                for run in plan.runs
                if (run.prepared.config.data.fraction, run.prepared.config.seed) == (fraction, seed)
            ]
    return found


def known_weights(
    runs: Sequence[PlannedRun], by_run: Mapping[str, str], class_names: Sequence[str]
) -> dict[str, str]:
    """The hash of the weights that make each class in the set of these runs, as the study's
    manifest has it by run folder; empty where it lacks one."""
    names = [run.identity.name for run in runs]
    return {
        class_name: by_run[name]
        for run, name in zip(runs, names, strict=True)
        for class_name in _made_by(run.prepared.config, class_names)
        if by_run.keys() >= set(names)
    }


def _made_by(config: RunConfig, class_names: Sequence[str]) -> Sequence[str]:
    every = class_names if config.generator.conditional else [ONLY_CLASS]
    return config.data.classes or every


def only(plan: Plan, wanted: Sequence[PlannedRun]) -> Plan:
    """The plan of some of its runs."""
    ids = {run.identity.run for run in wanted}
    kept = (
        tuple(run for run in trajectory if run.identity.run in ids)
        for trajectory in plan.trajectories
    )
    return against_store(plan.sweep, tuple(filter(None, kept)))


def describe_cost(plan: Plan) -> str:
    """The plan of the generators in lines, with a measured speed where the store has none yet."""
    if plan.images_to_show and plan.images_per_second is None:
        first = next(run for run in plan.runs if plan.state[run.identity.run] != "done")
        plan = dataclasses.replace(plan, images_per_second=measure_speed(first.prepared))
    return plan.describe()


SPEED_SECONDS = 5.0
"""So long at most, after the first step, a speed is measured."""


def measure_speed(prepared: Prepared) -> float:
    """Images a second that training shows, by a few steps on this machine whose result is thrown
    away. The first step, which is slower, does not count."""
    config = prepared.config
    training_data = gather(config, prepared.image_set, prepared.training_set, prepared.device)
    training_set = prepared.training_set
    state = build_state(
        config, training_set.size, training_set.channels, prepared.device, training_data.classes
    )
    steps: list[tuple[float, int]] = []

    def count(event: Event) -> None:
        if isinstance(event, StepEnd):
            steps.append((time.perf_counter(), event.num_images))

    def enough() -> bool:
        return len(steps) > 1 and steps[-1][0] - steps[0][0] > SPEED_SECONDS

    with contextlib.suppress(Interrupted):
        train(
            dataclasses.replace(config, epochs=max(2, config.epochs)),
            state,
            build_step(config, state, prepared.precision),
            training_data,
            emit=count,
            stop=enough,
        )
    return sum(number for _, number in steps[1:]) / (steps[-1][0] - steps[0][0])


def train_generators(
    plan: Plan, launcher: Launcher, command: str, stop: StopSignal | None = None
) -> list[Path]:
    """Do what is lacking; gives the folders of all runs.

    Raises: RunFolderError where one has no result; KeyboardInterrupt where it was
    stopped: the same call goes on.
    """
    question = "The generators of a utility study."
    runs = sweeps.run_sweep(plan, launcher, question=question, command=command, stop=stop)
    if lacking := [run.folder.name for run in runs if not run.has_result]:
        raise RunFolderError(
            f"{len(lacking)} of {len(runs)} generators have no result, such as {lacking[0]}; why "
            "is in its log.txt, and the same command tries them again"
        )
    return [run.folder for run in runs]
