"""A study: its design, its manifest, its generators and trials, and how long they take."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lungan import launchers
from lungan.classifiers.train import Changes, Phase, Portion, Recipe, make_recipe, train_classifier
from lungan.config import compose
from lungan.device import resolve_device, resolve_precision
from lungan.errors import ConfigError, RunFolderError
from lungan.results.read import Run
from lungan.runs.folder import (
    GENERATOR,
    PREDICTIONS,
    SUMMARY,
    SWEEPS,
    UTILITY,
    exclusive,
    read_run,
)
from lungan.runs.jobs import Launcher
from lungan.runs.run import StopSignal
from lungan.runs.store import Store, store_path
from lungan.training.loop import Interrupted
from lungan.utility import training
from lungan.utility.analysis import read_trials, usual_question
from lungan.utility.arms import ARMS, BASELINE, PRIMARY_SCORE, RARE, STANDARD
from lungan.utility.generators import (
    Generator,
    Generators,
    arrange,
    read_generators,
    starting_network,
)
from lungan.utility.images import (
    TEST,
    TRAIN,
    VALIDATION,
    RealImages,
    Scenario,
    read_real,
    whole_data,
)
from lungan.utility.manifest import (
    Addition,
    Design,
    Manifest,
    manifest_path,
    now,
    parse_question,
    read_manifest,
    write_manifest,
)
from lungan.utility.runner import Settings, TrialRunner
from lungan.utility.trial import Trial

TIMED_UPDATES = 4

Jobs = list[tuple[Trial, ...]]


def do_study(options: argparse.Namespace) -> Path:
    """Do the study that the command's options ask for, or say its plan; gives its store."""
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
) -> Path:
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
        scenarios = _scenarios(_design(options, options.fractions or [1.0]))
    of_all = any(name in ARMS and ARMS[name].source == "of_all" for name in options.arms or [])
    generators = read_generators(runs, scenarios, options.data_path, unlabelled=of_all)
    design = _design(options, sorted({scenario.fraction for scenario in generators.sets}))
    runner = _runner(options, recipe, generators.real, design, store)
    _check_sets(generators, design, trained=True)
    record = {"runs": sorted(path.name for path in runs)}
    return _answer(options, runner, design, launcher, record, lambda: generators)


def _from_overrides(
    options: argparse.Namespace, recipe: Recipe, launcher: Launcher, overrides: Sequence[str]
) -> Path:
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
    store, scenarios = store_path(base), _scenarios(design)
    runner = _runner(options, recipe, real, design, store)
    num_sets = min(options.sets or design.seeds, design.seeds)
    of_all = any(ARMS[name].source == "of_all" for name in design.arms)
    configs = training.generator_configs(
        base, real.image_set, scenarios, num_sets, one_a_class=options.one_a_class, of_all=of_all
    )
    needed = [config for config in configs if training.is_needed(config, design.arms)]
    # The others say which real images the classifiers have.
    runs = [Generator(Path(), config) for config in configs if config not in needed]
    plan, said = None, "none, since no arm has synthetic images"
    if needed:
        plan = training.plan_generators(needed, launcher, options.study)
        path = manifest_path(store, options.study)
        weights = read_manifest(path).weights if path.exists() else {}
        runs += training.planned_generators(plan, weights)
    known = arrange(runs, scenarios, real, unlabelled=of_all)
    _check_sets(known, design, trained=False)
    if plan is not None:
        trials = _waiting(itertools.chain(*_plan_jobs(known, design, runner, options.device)))
        names = {name for one in trials if one.arm.uses_generator for name in one.generators.runs}
        plan = training.only(plan, names) if names else None
        said = "none, since all trials with synthetic images are done"
    if plan is not None:
        said = f"{training.describe_cost(plan)}\n{launcher.describe(plan.trajectories)}".rstrip()
    print(f"generators: {said}", flush=True)

    def make() -> Generators:
        if plan is None or options.dry_run:
            return known
        done = training.train_generators(plan, launcher, _command())
        by_name = {one.folder.name: one for one in done}
        trained = [by_name.get(one.folder.name, one) for one in runs]
        return arrange(trained, scenarios, real, unlabelled=of_all)

    record = {"overrides": own, "sets": num_sets}
    return _answer(options, runner, design, launcher, record, make)


def _answer(
    options: argparse.Namespace,
    runner: TrialRunner,
    design: Design,
    launcher: Launcher,
    described: dict[str, Any],
    make: Callable[[], Generators],
) -> Path:
    """Write down what is asked, before anything is trained, and do the trials; gives the study's
    store. make: gives the generators, which are described by ``described``."""
    settings, name = runner.settings, options.study
    store = settings.root.parent
    question = options.question and parse_question(options.question, design.arms)
    asked = (store, name, design, question, settings.described(), described)
    if options.dry_run:
        _study_with(*asked)
    else:
        with exclusive(settings.root):
            write_manifest(store, _study_with(*asked))
    jobs = _plan_jobs(make(), design, runner, options.device)
    trials = list(itertools.chain(*jobs))
    said = f"{_describe_plan(trials, settings)}\n{launcher.describe(jobs)}".rstrip()
    print(f"classifiers: {said}", flush=True)
    if options.dry_run:
        return store
    _add_trials(store, name, trials)
    if not _waiting(trials):
        return store
    (settings.root / SWEEPS).mkdir(parents=True, exist_ok=True)
    with exclusive(settings.root):
        of_trials = Store(settings.root)
        idle = [trial for trial in trials if not of_trials.is_busy(trial.identity)]
        for trial in _waiting(idle):  # the summary of one that has lost its predictions
            (of_trials.folder(trial.identity) / SUMMARY).unlink(missing_ok=True)
    stop = StopSignal(after="the trials under way")
    try:
        with stop.installed():
            launcher.run(jobs, name, stop)
    except Interrupted:
        raise KeyboardInterrupt from None  # a trial has no checkpoint, which the other speaks of
    if left := _waiting(trials):
        raise RunFolderError(
            f"{len(left)} of {len(trials)} trials have no result, such as {left[0].identity.name}; "
            f"why is in {settings.root / SWEEPS / name}.ledger.jsonl, and the same command tries "
            "them again"
        )
    return store


def _command() -> str:
    return shlex.join(["lungan", "utility", *sys.argv[1:]])


def _design(options: argparse.Namespace, fractions: Sequence[float], first_seed: int = 0) -> Design:
    rare, prevalences = options.imbalance or ("", ())
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


def _scenarios(design: Design) -> list[Scenario]:
    return [
        Scenario(fraction, design.rare, share)
        for fraction in design.fractions
        for share in design.prevalences or [None]
    ]


def _runner(
    options: argparse.Namespace, recipe: Recipe, real: RealImages, design: Design, store: Path
) -> TrialRunner:
    """Raises: ConfigError for arms and classes that do not fit."""
    class_names = real.image_set.class_names
    design.check(len(class_names), recipe.batch_size)
    positive = options.positive or design.rare or class_names[-1]
    if positive not in class_names:
        raise ConfigError(f"--positive must be one of {', '.join(class_names)}, got {positive}")
    device = resolve_device(options.device)
    return TrialRunner(
        Settings(
            real=real,
            recipe=recipe,
            positive=class_names.index(positive),
            device=device,
            precision=resolve_precision("auto", device),
            tested_on=VALIDATION if options.try_on_validation else TEST,
            tuned=options.tune,
            first_seed=design.first_seed,
            root=store / UTILITY,
            threads=options.threads,
        )
    )


def _check_sets(generators: Generators, design: Design, *, trained: bool) -> None:
    """That the arms can be trained with these sets: begin with their discriminators, which are
    ``trained`` or to come, and choose images by their density among the real ones.

    Raises: ConfigError for too few real images of a class; as starting_network.
    """
    sets = list(itertools.chain(*generators.sets.values()))
    for network in {ARMS[name].network for name in design.arms} - {""}:
        for one in sets:
            is_there = trained and network == "discriminator"
            starting_network(one, generators.real, one.seed, trained=is_there)
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


def _study_with(
    store: Path,
    name: str,
    design: Design,
    question: tuple[str, tuple[str, ...]] | None,
    settings: dict[str, Any],
    generators: dict[str, Any],
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
            command=_command(),
            asked=asked,
            controls=controls,
            score=PRIMARY_SCORE,
            planned=design,
            settings=settings | {"generators": generators},
            results_before=_num_results(store, design, settings),
        )
    manifest = read_manifest(path)
    manifest.check_same(design, question, settings)
    whole = manifest.design.with_more(design)
    if whole == manifest.design:
        return manifest
    if number := _num_results(store, manifest.design, settings):
        added = (*manifest.added, Addition(now(), number, design))
        return dataclasses.replace(manifest, added=added)
    return dataclasses.replace(manifest, planned=whole, created=now())


def _num_results(store: Path, design: Design, settings: dict[str, Any]) -> int:
    """Finished trials of the design in the store, whoever asked for them."""
    recipe = settings["recipe"] | {"positive": settings["positive"]}
    return sum(
        _has_recipe(trial, recipe)
        and trial.config.get("tested_on") == settings["tested_on"]
        and trial.facts.get("data_hash") == settings["data_hash"]
        and design.holds(trial.config)
        for trial in read_trials(store)[0]
    )


def _has_recipe(trial: Run, recipe: Mapping[str, Any]) -> bool:
    wanted = {"tuned": None, **recipe}
    return all(trial.config.get(f"classifier.{key}") == one for key, one in wanted.items())


def _plan_jobs(generators: Generators, design: Design, runner: TrialRunner, device: str) -> Jobs:
    """A job for each seed and scenario, whose trials share real and synthetic images and the
    real-only classifier, the first of them. Seed by seed, so that a study that was stopped early
    has whole seeds."""
    arms = [arm for name, arm in ARMS.items() if name in design.arms]
    return [
        tuple(
            Trial(
                arm,
                generators.of(arm, scenario, number),
                ratio,
                design.first_seed + number,
                runner,
                device=device,
            )
            for arm in arms
            for ratio in (design.ratios if arm.uses_ratio else [None])
        )
        for number in range(design.seeds)
        for scenario in generators.sets
    ]


def _add_trials(store: Path, name: str, trials: Sequence[Trial]) -> None:
    """Write into the study's manifest which trials belong to it, and their generators' weights."""
    ids = {trial.identity.run for trial in trials}
    weights = {
        Path(folder).name: one.generators.weights[made]
        for one in trials
        for made, folder in one.generators.folders.items()
        if one.generators.weights[made]
    }
    with exclusive(store / UTILITY):
        manifest = read_manifest(manifest_path(store, name))
        added = tuple(sorted({*manifest.trials, *ids}))
        known = manifest.weights | weights
        write_manifest(store, dataclasses.replace(manifest, trials=added, weights=known))


def _waiting(trials: Iterable[Trial]) -> list[Trial]:
    """Those that the store has no result of. Raises: RunFolderError for a damaged one."""
    every = list(trials)
    store = Store(every[0].store if every else Path())
    found = ((trial, read_run(store.folder(trial.identity))) for trial in every)
    return [
        trial
        for trial, run in found
        # One that has lost its predictions is done again.
        if not run.has_result or (run.status == "done" and not (run.folder / PREDICTIONS).is_file())
    ]


def _describe_plan(trials: Sequence[Trial], settings: Settings) -> str:
    """How many trials there are, how many of them the store has, and how long the others take."""
    real, recipe = settings.real, settings.recipe
    num_waiting = len(_waiting(trials))
    line = f"{len(trials)} trials, {len(trials) - num_waiting} of them done"
    if num_waiting:
        minutes = num_waiting * _seconds_a_trial(settings) / 60
        line += f", about {minutes:.0f} min in one process at measured speed"
    line += (
        f": {recipe.classifier} classifier, {recipe.updates} updates of {recipe.batch_size} images "
        f"each, tested on {len(settings.test_images)} images of {settings.tested_on}"
    )
    if settings.tuned:
        line += f"; each the best of {len(settings.recipes)} recipes on its validation images"
    if dropped := sum(real.num_dropped.values()):
        line += f"; {dropped} copies of training or test images, or images of the same patients, "
        line += "are left out"
    if about_val := real.image_set.facts.about_val:
        line += f"\nnote: {about_val}"
    return line


def _seconds_a_trial(settings: Settings) -> float:
    """The median of finished trials of this recipe, else by a few updates on this machine."""
    times = [
        total
        for trial in read_trials(settings.root.parent)[0]
        if _has_recipe(trial, settings.described_recipe)
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
