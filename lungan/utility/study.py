"""A study: its design, its manifest, its trials, and how long they take."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungan.classifiers.train import Changes, Phase, Portion, train_classifier
from lungan.errors import ConfigError, shown
from lungan.runs.folder import UTILITY, exclusive, flatten, read_summary
from lungan.utility.analysis import read_trials, usual_question
from lungan.utility.arms import ARMS, PRIMARY_SCORE
from lungan.utility.discriminators import starting_network
from lungan.utility.generators import Generators
from lungan.utility.images import TRAIN, WHOLE, Scenario
from lungan.utility.manifest import (
    Addition,
    Design,
    Manifest,
    manifest_path,
    now,
    read_manifest,
    write_manifest,
)
from lungan.utility.trial import Settings, Trial

TIMED_UPDATES = 4


def scenarios_of(design: Design) -> list[Scenario]:
    if not design.prevalences:
        return [Scenario(fraction) for fraction in design.fractions]
    return [
        Scenario(fraction, design.rare, share)
        for fraction in design.fractions
        for share in design.prevalences
    ]


def check_arms(design: Design, num_classes: int, batch_size: int) -> None:
    """Raises: ConfigError for an arm that is unknown or cannot be trained in this design."""
    for name in design.arms:
        if name not in ARMS:
            raise ConfigError(f"--arms must be among {', '.join(ARMS)}, got {name}")
        if design.rare and ARMS[name].uses_generator and not ARMS[name].balanced:
            fit = [
                arm.name
                for arm in ARMS.values()
                if arm.balanced or not (arm.uses_generator or arm.is_unlabelled)
            ]
            raise ConfigError(
                f"--imbalance makes synthetic images of {design.rare} alone, which {name} has no "
                f"use for; --arms may have {', '.join(fit)}"
            )
        if ARMS[name].is_unlabelled and (design.rare or max(design.fractions) == 1):
            raise ConfigError(
                f"{name} takes the training images that a fraction leaves out as unlabelled ones; "
                "give --fractions below 1, without --imbalance, or leave it out of --arms"
            )
        if ARMS[name].balanced and batch_size < 2 * num_classes:
            raise ConfigError(
                f"--batch-size must be at least {2 * num_classes}, two images of each class, for "
                f"{name}; got {batch_size}"
            )


def check_sets(generators: Generators, design: Design) -> None:
    """That the arms can be trained with these sets: begin with their discriminators, or untrained
    ones where the runs are to come, and choose images by their density among the real ones.

    Raises: ConfigError for too few real images of a class; as starting_network.
    """
    sets = list(itertools.chain(*generators.sets.values()))
    for network in {ARMS[name].network for name in design.arms} - {""}:
        for one in sets:
            trained = network == "discriminator" and bool(one.by_class)
            starting_network(one, generators.real, one.seed, trained=trained)
    class_names = generators.real.image_set.class_names
    for one in sets if any(ARMS[name].chosen == "dense" for name in design.arms) else []:
        real = generators.real.draw(TRAIN, one.scenario, one.fraction_seed)
        counts = np.bincount(real.labels, minlength=len(class_names))
        if counts.min() < 2:
            raise ConfigError(
                f"real_dense needs at least two real training images of each class, and fraction "
                f"{one.scenario} has {counts.min()} of {class_names[counts.argmin()]}; give a "
                "larger --fractions"
            )


def parse_question(text: str, arms: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The asked arm and its controls, from ``ASKED:CONTROL,CONTROL``.

    Raises: ConfigError where an arm of the question is not among ``arms``.
    """
    asked, _, rest = text.partition(":")
    controls = tuple(name.strip() for name in rest.split(",") if name.strip())
    for name in (asked, *controls):
        if name not in arms:
            raise ConfigError(
                f"--question must be of arms of the study, {', '.join(arms)}, got {name or 'none'}"
            )
    if not controls or asked in controls:
        raise ConfigError(f"--question must be ASKED:CONTROL,CONTROL, got {text}")
    return asked, controls


def study_with(
    store: Path,
    name: str,
    design: Design,
    question: tuple[str, tuple[str, ...]] | None,
    settings: dict[str, Any],
    generators: dict[str, Any],
    command: str,
) -> Manifest:
    """The manifest of a new study, or the study's own with what it has not; nothing is written.

    What is added while the study has no result yet is planned like the rest. question: None to keep
    the manifest's, or the usual one. settings: what must be the same in all of the study, compared
    with the manifest's. generators: how they are made, for people to read.

    Raises: ConfigError where the study of this name has other settings or another question.
    """
    path = manifest_path(store, name)
    if not path.exists():
        asked, controls = question or usual_question(design.arms)
        return Manifest(
            name=name,
            created=now(),
            command=command,
            asked=asked,
            controls=controls,
            score=PRIMARY_SCORE,
            planned=design,
            settings=settings | {"generators": generators},
            results_before=_num_results(store, design, settings),
        )
    manifest = read_manifest(path)
    other = "give --study NAME to begin another study"
    had = flatten({key: manifest.settings.get(key) for key in settings})
    now_asked = flatten(settings)
    keys = dict.fromkeys([*now_asked, *had])
    if differing := [key for key in keys if had.get(key) != now_asked.get(key)]:
        before, now_is = (
            ", ".join(f"{key}={shown(each.get(key))}" for key in differing)
            for each in (had, now_asked)
        )
        raise ConfigError(f"study {name} has {before}, and this command {now_is}; {other}")
    if question is not None and question != (manifest.asked, manifest.controls):
        asked = f"{manifest.asked}:{','.join(manifest.controls)}"
        raise ConfigError(f"study {name} asks {asked}, which cannot be changed; {other}")
    if design.rare != manifest.planned.rare:
        raise ConfigError(
            f"study {name} has {manifest.planned.rare or 'no class'} made rare; {other}"
        )
    if design.first_seed != manifest.planned.first_seed:
        raise ConfigError(
            f"study {name} begins with seed {manifest.planned.first_seed}, and this command with "
            f"{design.first_seed}; {other}"
        )
    whole = manifest.design.with_more(design)
    if whole == manifest.design:
        return manifest
    number = _num_results(store, manifest.design, settings)
    if number:
        added = (*manifest.added, Addition(now(), number, design))
        return dataclasses.replace(manifest, added=added)
    return dataclasses.replace(manifest, planned=whole, created=now())


def _num_results(store: Path, design: Design, settings: dict[str, Any]) -> int:
    """Finished trials of the design in the store, whoever asked for them."""
    recipe = {"tuned": None} | settings["recipe"] | {"positive": settings["positive"]}
    same = {f"classifier.{key}": one for key, one in recipe.items()}
    same["tested_on"] = settings["tested_on"]
    return sum(
        all(trial.config.get(key) == one for key, one in same.items())
        and trial.facts.get("data_hash") == settings["data_hash"]
        and design.holds(trial.config)
        for trial in read_trials(store)[0]
    )


def plan_trials(generators: Generators, design: Design) -> list[Trial]:
    """Seed by seed, so that a study that was stopped early has whole seeds; the baseline first."""
    chosen = [arm for name, arm in ARMS.items() if name in design.arms]
    return [
        Trial(arm, generators.of(arm, scenario, number), ratio, design.first_seed + number)
        for number in range(design.seeds)
        for scenario in generators.sets
        for arm in chosen
        for ratio in (design.ratios if arm.uses_ratio else [None])
    ]


def add_trials(store: Path, name: str, trials: Sequence[Trial], settings: Settings) -> None:
    """Write into the study's manifest which trials belong to it, and their generators' weights."""
    ids = {trial.identity(settings).run for trial in trials}
    sources = [source for trial in trials for source in trial.generators.by_class.values()]
    with exclusive(store / UTILITY):
        manifest = read_manifest(manifest_path(store, name))
        added = tuple(sorted({*manifest.trials, *ids}))
        weights = manifest.weights | {source.name: source.weights_hash for source in sources}
        write_manifest(store, dataclasses.replace(manifest, trials=added, weights=weights))


def sets_in_use(
    generators: Generators, design: Design, settings: Settings, store: Path
) -> set[tuple[Scenario, int]]:
    """Scenario and seed of each set that a trial without a result makes images with; ``WHOLE`` of
    those without classes."""
    return {
        (
            WHOLE if trial.arm.source == "of_all" else trial.generators.scenario,
            trial.generators.seed,
        )
        for trial in waiting(plan_trials(generators, design), settings, store)
        if trial.arm.uses_generator
    }


def waiting(trials: Sequence[Trial], settings: Settings, store: Path) -> list[Trial]:
    """Those that the store has no result of."""
    root = store / UTILITY
    return [one for one in trials if read_summary(root / one.identity(settings).name) is None]


def describe_plan(trials: Sequence[Trial], settings: Settings, store: Path) -> str:
    """How many trials there are, how many of them the store has, and how long the others take."""
    real, recipe = settings.real, settings.recipe
    num_waiting, dropped = len(waiting(trials, settings, store)), sum(real.num_dropped.values())
    line = f"{len(trials)} trials, {len(trials) - num_waiting} of them done"
    if num_waiting:
        minutes = num_waiting * seconds_a_trial(settings, store) / 60
        line += f", about {minutes:.0f} min in one process at measured speed"
    line += (
        f": {recipe.classifier} classifier, {recipe.updates} updates of {recipe.batch_size} images "
        f"each, tested on {len(settings.test_images)} images of {settings.tested_on}"
    )
    if settings.tuned:
        line += f"; each the best of {len(settings.recipes)} recipes on its validation images"
    if dropped:
        line += f"; {dropped} copies of training or test images, or images of the same patients, "
        line += "are left out"
    if about_val := real.image_set.facts.about_val:
        line += f"\nnote: {about_val}"
    return line


def seconds_a_trial(settings: Settings, store: Path) -> float:
    """The median of finished trials of this recipe, else by a few updates on this machine."""
    same = {f"classifier.{key}": one for key, one in settings.described_recipe.items()}
    same["classifier.tuned"] = settings.tuned or None
    times = [
        total
        for trial in read_trials(store)[0]
        if all(trial.config.get(key) == one for key, one in same.items())
        and isinstance(total := trial.facts.get("seconds.total"), int | float)
    ]
    if times:
        return statistics.median(times)
    _seconds_of(1, settings)  # what torch sets up once is not counted
    updates = sum(recipe.updates for recipe in settings.recipes.values())
    return _seconds_of(TIMED_UPDATES, settings) / TIMED_UPDATES * updates


def _seconds_of(updates: int, settings: Settings) -> float:
    portion = Portion(settings.test_images, settings.recipe.batch_size)
    began = time.perf_counter()
    train_classifier(
        [Phase((portion,), updates)],
        num_classes=settings.real.num_classes,
        recipe=settings.recipe,
        seed=0,
        changes=Changes(),
        device=settings.device,
        dtype=settings.dtype,
    )
    return time.perf_counter() - began
