"""The generators of a study: for each fraction, one or more sets of runs that make every class."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungan.config import DiscriminatorConfig, RunConfig
from lungan.data.images import ONLY_CLASS, keep_fraction
from lungan.errors import ConfigError, DataError
from lungan.generation.source import Source, read_source
from lungan.utility.arms import Arm
from lungan.utility.images import (
    TRAIN,
    WHOLE,
    RealImages,
    Scenario,
    check_no_leak,
    read_real,
    whole_data,
)

_NOT_SHAPING = (
    *("seed", "store", "device", "threads", "score", "tracker", "retry"),
    *("checkpoint_every_epochs", "samples_every_epochs"),
)


Key = tuple[float, int, int]
"""Fraction, fraction seed and seed of a run."""


@dataclass(frozen=True, slots=True)
class GeneratorSet:
    """Runs of one scenario, one choice of its images and one seed that together make every class,
    or the rare one where there is one; each class by one of them.

    name: the same for sets that differ only in seed, choice of images and fraction, if they were
    trained on equally many images, each counted as often as it was seen. discriminator: of the
    first run. weights: hashes, by class. by_class: empty where no image is to be made, and the runs
    may be gone.
    """

    name: str
    scenario: Scenario
    fraction_seed: int
    seed: int
    discriminator: DiscriminatorConfig
    weights: dict[str, str]
    by_class: dict[str, Source]

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(source.name for source in self.by_class.values()))


@dataclass(frozen=True, slots=True)
class Generators:
    """sets: by scenario, in the order of their seeds; seed number n of a study takes set n modulo
    their number. of_all: in the same order, of one run each that has no classes and was trained on
    training images whose labels nobody used, also those that a fraction leaves out."""

    real: RealImages
    sets: dict[Scenario, list[GeneratorSet]]
    of_all: list[GeneratorSet]

    def of(self, arm: Arm, scenario: Scenario, number: int) -> GeneratorSet:
        """number: which of a study's seeds, from 0."""
        sets = self.sets[scenario]
        own = sets[number % len(sets)]
        if arm.source != "of_all":
            return own
        other = self.of_all[number % len(self.of_all)]
        return dataclasses.replace(other, scenario=scenario, fraction_seed=own.fraction_seed)

    def replaced_by(self, others: Generators) -> Generators:
        """With the sets of ``others`` in place of those of the same scenario and seed."""
        of_all = {one.seed: one for one in others.of_all}
        by_key = {(scenario, one.seed): one for scenario, of in others.sets.items() for one in of}
        sets = {
            scenario: [by_key.get((scenario, one.seed), one) for one in of]
            for scenario, of in self.sets.items()
        }
        return Generators(self.real, sets, [of_all.get(one.seed, one) for one in self.of_all])


def without_runs(
    real: RealImages,
    scenarios: Sequence[Scenario],
    seeds: Sequence[int],
    discriminator: DiscriminatorConfig,
    weights: Mapping[tuple[Scenario, int], dict[str, str]],
) -> Generators:
    """The choices of real images, with the hashes of the generators' weights by scenario and seed,
    as far as they are known: they name the trials, of which none that uses them can be done."""

    def sets(scenario: Scenario) -> list[GeneratorSet]:
        whole = min(scenario.fractions(real.image_set).values()) == 1
        return [
            GeneratorSet(
                name="",
                scenario=scenario,
                fraction_seed=0 if whole else seed,
                seed=seed,
                discriminator=discriminator,
                weights=weights.get((scenario, seed), {}),
                by_class={},
            )
            for seed in seeds
        ]

    return Generators(real, {scenario: sets(scenario) for scenario in scenarios}, sets(WHOLE))


def read_generators(
    paths: Sequence[Path],
    scenarios: Sequence[Scenario] | None,
    data_path: str | None = None,
    *,
    unlabelled: bool = False,
) -> Generators:
    """Read the runs and their data, check that they fit together and that nothing leaks.

    scenarios: None for all fractions that the runs were trained on. data_path: where the data lies
    now, in place of the runs' data.path. unlabelled: whether runs without classes may be among them
    that were trained on images which the classifiers have no labels of.

    Raises: ConfigError, DataError, RunFolderError or WeightsError saying what to give instead.
    """
    runs = []
    for path in paths:
        source = read_source(path)
        if source.config is None or source.summary is None:
            raise ConfigError(
                f"utility needs run folders, since a generator's file does not say which images "
                f"it was trained on; got {path}"
            )
        runs.append(_Trained(source, source.config, source.summary))
    real = _read_data([run.config for run in runs], data_path)
    of_all: list[_Trained] = []
    by_key: dict[Key, list[_Trained]] = {}
    for run in runs:
        of_key = by_key.setdefault(run.key, [])
        (of_all if unlabelled and run.has_no_classes else of_key).append(run)
    by_key = {key: of_key for key, of_key in by_key.items() if of_key}
    if not by_key and scenarios != []:
        raise ConfigError(
            "the study needs runs that make each class too, by one for each or by "
            "generator.conditional=true: they say which real images the classifiers have"
        )
    if unlabelled and not of_all:
        raise ConfigError(
            "real_unlabelled needs a run with generator.conditional=false of all training images; "
            "give one, or settings of the generators to train in place of runs"
        )
    wanted = scenarios or [Scenario(fraction) for fraction in sorted({key[0] for key in by_key})]
    sets = {scenario: _sets_of(scenario, by_key, real) for scenario in wanted}
    for run in of_all:
        _check(run, real, WHOLE)
    of_all.sort(key=lambda run: run.config.seed)
    made = [_assemble(run.key, {ONLY_CLASS: run.source}, WHOLE, [ONLY_CLASS]) for run in of_all]
    return Generators(real, sets, made)


@dataclass(frozen=True, slots=True)
class _Trained:
    source: Source
    config: RunConfig
    summary: dict[str, Any]

    @property
    def key(self) -> Key:
        fraction = self.config.data.fraction
        return fraction, self.config.data.fraction_seed if fraction < 1 else 0, self.config.seed

    @property
    def has_no_classes(self) -> bool:
        """Whether it makes images of several classes and cannot be asked for one."""
        return not self.source.conditional and len(self.config.data.classes) != 1


def _sets_of(
    scenario: Scenario, by_key: dict[Key, list[_Trained]], real: RealImages
) -> list[GeneratorSet]:
    class_names = [scenario.rare] if scenario.rare else list(real.image_set.class_names)
    fraction = scenario.of_generators(real.image_set)
    sets = []
    for key in sorted(by_key):
        if key[0] != fraction:
            continue
        by_class: dict[str, Source] = {}
        for run in by_key[key]:
            made = [name for name in run.source.class_names if name in class_names]
            if not made and scenario.rare:
                continue
            if run.has_no_classes:
                raise ConfigError(
                    f"{run.source.name} makes images of several classes without labels; give one "
                    "run a class (data.classes=[...]), or one with generator.conditional=true"
                )
            _check(run, real, scenario)
            for class_name in made:
                other = by_class.setdefault(class_name, run.source)
                if other is not run.source:
                    raise ConfigError(
                        f"{other.name} and {run.source.name} both make {class_name} for "
                        f"data.fraction={key[0]:g}, data.fraction_seed={key[1]} and seed={key[2]}; "
                        "give one of them"
                    )
        if by_class or not scenario.rare:
            sets.append(_assemble(key, by_class, scenario, class_names))
    if not sets:
        first = next(iter(by_key.values()))[0].config
        raise ConfigError(_missing(fraction, first, sorted({key[0] for key in by_key})))
    return sets


def _read_data(configs: Sequence[RunConfig], data_path: str | None) -> RealImages:
    """The images that all runs share, whole. Raises: DataError where they share none."""
    read: dict[str, RealImages] = {}
    for config in configs:
        whole = whole_data(config.data)
        if data_path is not None:
            if not hasattr(whole, "path"):
                raise ConfigError(f"--data-path means nothing to data={whole.name}")
            whole = dataclasses.replace(whole, path=data_path)  # type: ignore[call-arg]
        if repr(whole) not in read:
            read[repr(whole)] = read_real(whole)
    first, *others = read.values()
    if any(other.image_set.content_hash != first.image_set.content_hash for other in others):
        raise DataError(
            "the runs must be trained on the same images at the same size, and are not; give runs "
            "of one data set"
        )
    return first


def _check(run: _Trained, real: RealImages, scenario: Scenario) -> None:
    fraction, fraction_seed, _ = run.key
    source, config = run.source, run.config
    whole = real.image_set
    if fraction < 1:
        whole = keep_fraction(whole, config.data.splits, fraction, fraction_seed)
    if whole.content_hash != run.summary["data_hash"]:
        raise DataError(
            f"the images of data={config.data.name} are not those that {source.name} was trained "
            "on, so nothing can be said of leaks; put these back, or give --data-path"
        )
    trained_on = whole.select(config.data.splits, config.data.classes)
    allowed = real.draw(TRAIN, scenario, fraction_seed)
    check_no_leak(source.name, trained_on, real, allowed, scenario)


def _assemble(
    key: Key, by_class: dict[str, Source], scenario: Scenario, class_names: Sequence[str]
) -> GeneratorSet:
    fraction, fraction_seed, seed = key
    for class_name in class_names:
        if class_name not in by_class:
            have = ", ".join(source.name for source in by_class.values())
            raise ConfigError(
                f"no run makes {class_name} for data.fraction={fraction:g} and seed={seed}, only "
                f"{', '.join(by_class)} ({have}); give such a run, or one with "
                "generator.conditional=true"
            )
    ordered = {name: by_class[name] for name in class_names}
    config = ordered[class_names[0]].config
    assert config is not None
    return GeneratorSet(
        name=_name(ordered),
        scenario=scenario,
        fraction_seed=fraction_seed,
        seed=seed,
        discriminator=config.discriminator,
        weights={name: source.weights_hash for name, source in ordered.items()},
        by_class=ordered,
    )


def _name(by_class: dict[str, Source]) -> str:
    """Of networks and loss, and 8 hex digits of all settings but seed and data.

    Of the epochs only how many images they are: ten times as many of a tenth are the same training.
    """
    parts = []
    for class_name, source in by_class.items():
        assert source.config is not None
        settings = dataclasses.asdict(source.config)
        for key in (*_NOT_SHAPING, "data"):
            del settings[key]
        settings["epochs"] = round(source.config.epochs * source.config.data.fraction, 6)
        parts.append([class_name, settings])
    text = json.dumps(parts, sort_keys=True)
    config = next(iter(by_class.values())).config
    assert config is not None
    digits = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{config.generator.name}-{config.loss.name}-{digits}"


def _missing(fraction: float, config: RunConfig, have: Sequence[float]) -> str:
    overrides = [
        f"data={config.data.name}",
        f"data.splits=[{TRAIN}]",
        f"data.fraction={fraction:g}",
    ]
    listed = ", ".join(f"{one:g}" for one in have) or "none"
    return (
        f"the study needs generators of the fraction {fraction:g}, and the runs given were trained "
        f"on {listed}: a generator must be trained on the fraction that it helps. Train some with "
        f"python -m lungan.train {shlex.join(overrides)} and the other settings of these"
    )
