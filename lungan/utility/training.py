"""The generators that a study lacks: their runs, planned and done by the sweep engine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lungan.config import RunConfig, compose
from lungan.data.images import ImageSet
from lungan.errors import RunFolderError, WeightsError
from lungan.runs import sweep as sweeps
from lungan.runs.folder import GENERATOR
from lungan.runs.jobs import Launcher
from lungan.runs.prepare import Prepared
from lungan.runs.store import Store
from lungan.runs.sweep import Plan, against_store, plan_sweep
from lungan.training.events import Event, StepEnd
from lungan.training.loop import Interrupted, train
from lungan.training.state import build_state
from lungan.training.step import build_step
from lungan.training.training_data import gather
from lungan.utility.arms import ARMS
from lungan.utility.generators import Generator, read_generator
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

SPEED_SECONDS = 5.0
"""So long at most, after the first step, a speed is measured."""


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
    *,
    one_a_class: bool,
    of_all: bool,
) -> list[RunConfig]:
    """The runs of all generators: for each seed, from the base's on, and scenario one conditional
    generator, or one for each class, or one for the rare class. of_all: for each seed also one
    without classes of all training images.

    ``base.epochs`` are of the whole training split: a run of fewer images has so many more that
    every generator sees as many images.

    Raises: ConfigError where a rare class has too few images.
    """
    training_images = image_set.select([TRAIN], [])
    configs: list[RunConfig] = []

    def add(seed: int, fraction: float, classes: Sequence[str], conditional: bool) -> None:
        share = int(training_images.members([], classes).sum()) / len(training_images)
        data = dataclasses.replace(
            base.data,
            splits=[TRAIN],
            classes=[*classes],
            fraction=fraction,
            fraction_seed=seed if fraction < 1 else 0,
        )
        generator = dataclasses.replace(base.generator, conditional=conditional)
        epochs = max(1, round(base.epochs / (fraction * share)))
        config = dataclasses.replace(base, data=data, generator=generator, epochs=epochs, seed=seed)
        if config not in configs:
            configs.append(config)

    for seed in range(base.seed, base.seed + num_sets):
        if of_all:
            add(seed, 1.0, [], conditional=False)
        for scenario in scenarios:
            alone = image_set.class_names if one_a_class else ()
            for name in [scenario.rare] if scenario.rare else alone or [""]:
                classes = [name] if name else []
                add(seed, scenario.of_generators(image_set), classes, conditional=not classes)
    return configs


def is_needed(config: RunConfig, arms: Sequence[str]) -> bool:
    """Whether an arm takes the images or the discriminator of this run."""
    sources = {ARMS[name].source for name in arms if ARMS[name].uses_generator}
    return ("of_all" if _is_of_all(config) else "") in sources


def plan_generators(configs: Sequence[RunConfig], launcher: Launcher, study: str) -> Plan:
    """Raises: as ``plan_sweep``."""

    def set_apart(config: RunConfig) -> dict[str, str]:
        seed = {"seed": str(config.seed)}
        if _is_of_all(config):
            return {"generator.conditional": "false"} | seed
        classes = {"data.classes": config.data.classes[0]} if config.data.classes else {}
        return {"data.fraction": f"{config.data.fraction:g}"} | seed | classes

    return plan_sweep([(config, set_apart(config)) for config in configs], launcher, study, print)


def _is_of_all(config: RunConfig) -> bool:
    return not (config.generator.conditional or config.data.classes)


def planned_generators(plan: Plan, weights: Mapping[str, str]) -> list[Generator]:
    """The generators of a plan. weights: hashes by run folder, as far as the study's manifest has
    them; others are those of the finished runs in the store."""
    store, found = Store(plan.store), []
    for run in plan.runs:
        folder = store.folder(run.identity)
        known = weights.get(folder.name, "")
        if not known and plan.state[run.identity.run] == "done":
            with contextlib.suppress(OSError):  # training says what is wrong with it
                known = hashlib.sha256((folder / GENERATOR).read_bytes()).hexdigest()
        found.append(Generator(folder, run.prepared.config, known))
    return found


def only(plan: Plan, names: Collection[str]) -> Plan:
    """The plan of the runs in the folders of these names."""
    store = Store(plan.store)
    kept = (
        tuple(run for run in trajectory if store.folder(run.identity).name in names)
        for trajectory in plan.trajectories
    )
    return against_store(plan.sweep, tuple(filter(None, kept)))


def describe_cost(plan: Plan) -> str:
    """The plan of the generators in lines, with a measured speed where the store has none yet."""
    if plan.images_to_show and plan.images_per_second is None:
        first = next(run for run in plan.runs if plan.state[run.identity.run] != "done")
        plan = dataclasses.replace(plan, images_per_second=measure_speed(first.prepared))
    return plan.describe()


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


def train_generators(plan: Plan, launcher: Launcher, command: str) -> list[Generator]:
    """Do what is lacking; gives the generators of all runs.

    Raises: RunFolderError where one has no result or no generator that can be used;
    KeyboardInterrupt where it was stopped: the same call goes on.
    """
    question = "The generators of a utility study."
    runs = sweeps.run_sweep(plan, launcher, question=question, command=command)
    if lacking := [run.folder.name for run in runs if not run.has_result]:
        raise RunFolderError(
            f"{len(lacking)} of {len(runs)} generators have no result, such as {lacking[0]}; why "
            "is in its log.txt, and the same command tries them again"
        )
    if diverged := [run.folder.name for run in runs if run.status == "diverged"]:
        raise RunFolderError(
            f"{len(diverged)} of {len(runs)} generators of study {plan.sweep} diverged, such as "
            f"{diverged[0]}, and make no images; give other settings, such as a smaller lr=..."
        )
    return [_read(run.folder, plan.sweep) for run in runs]


def _read(folder: Path, study: str) -> Generator:
    try:
        return read_generator(folder)
    except WeightsError as error:
        state = "is damaged" if (folder / GENERATOR).exists() else "is missing"
        raise RunFolderError(
            f"{folder / GENERATOR}, which makes images for study {study}, {state}; remove the "
            f"folder {folder}, and the same command trains that generator again"
        ) from error
