"""The generators of a study: for each fraction, one or more sets of runs that make every class."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lungan.classifiers.network import OnDiscriminator
from lungan.config import DiscriminatorConfig, RunConfig
from lungan.data.images import ONLY_CLASS, keep_fraction
from lungan.errors import ConfigError, DataError, RunFolderError
from lungan.generation.source import Source, read_source
from lungan.models.build import Classes, build_discriminator
from lungan.models.layers import Discriminator
from lungan.runs.folder import CHECKPOINT
from lungan.training.randomness import weights_rng
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


@dataclass(frozen=True, slots=True)
class Generator:
    """A run that makes images: a finished one, or one that a study plans.

    weights: the hash of its generator's file, empty where it is not known. data_hash: of the images
    that a finished run was trained on, empty of a planned one.
    """

    folder: Path
    config: RunConfig
    weights: str = ""
    data_hash: str = ""

    @property
    def key(self) -> tuple[float, int, int]:
        """Fraction, fraction seed and seed."""
        fraction = self.config.data.fraction
        return fraction, self.config.data.fraction_seed if fraction < 1 else 0, self.config.seed

    @property
    def has_no_classes(self) -> bool:
        """Whether it makes images of several classes and cannot be asked for one."""
        return not self.config.generator.conditional and len(self.config.data.classes) != 1

    def makes(self, class_names: Sequence[str]) -> list[str]:
        """Those of ``class_names`` that it can be asked for."""
        own = () if self.has_no_classes else self.config.data.classes or class_names
        return [name for name in own if name in class_names]


@dataclass(frozen=True, slots=True)
class GeneratorSet:
    """Runs of one scenario, one choice of its images and one seed that together make every class,
    or the rare one where there is one; each class by one of them.

    name: the same for sets that differ only in seed, choice of images and fraction, if they were
    trained on equally many images, each counted as often as it was seen. discriminator: of the
    first run. folders, weights: of the runs, and hashes of their generators, by class; hashes are
    empty where they are not known.
    """

    name: str
    scenario: Scenario
    fraction_seed: int
    seed: int
    discriminator: DiscriminatorConfig
    folders: dict[str, str]
    weights: dict[str, str]

    @property
    def runs(self) -> list[str]:
        """The names of their folders."""
        return list(dict.fromkeys(Path(folder).name for folder in self.folders.values()))

    def source(self, class_name: str) -> Source:
        """What makes images of the class. Raises: RunFolderError where it is another by now."""
        return _read_source(self.folders[class_name], self.weights[class_name])


@functools.lru_cache(maxsize=8)
def _read_source(folder: str, weights: str) -> Source:
    source = read_source(Path(folder))
    if source.weights_hash != weights:
        raise RunFolderError(
            f"{folder} has another generator than when the study was planned; repeat the command"
        )
    return source


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


def read_generator(path: Path) -> Generator:
    """Of a finished run. Raises: ConfigError for another file; as ``read_source``."""
    source = read_source(path)
    if source.config is None or source.summary is None:
        raise ConfigError(
            f"utility needs run folders, since a generator's file does not say which images it was "
            f"trained on; got {path}"
        )
    return Generator(source.path, source.config, source.weights_hash, source.summary["data_hash"])


def read_generators(
    paths: Sequence[Path],
    scenarios: Sequence[Scenario] | None,
    data_path: str | None = None,
    *,
    unlabelled: bool = False,
) -> Generators:
    """Read finished runs and their data, and put the runs together as ``arrange`` does.

    data_path: where the data lies now, in place of the runs' data.path.

    Raises: ConfigError, DataError, RunFolderError or WeightsError saying what to give instead.
    """
    runs = [read_generator(path) for path in paths]
    real = _read_data([run.config for run in runs], data_path)
    return arrange(runs, scenarios, real, unlabelled=unlabelled)


def arrange(
    runs: Sequence[Generator],
    scenarios: Sequence[Scenario] | None,
    real: RealImages,
    *,
    unlabelled: bool,
) -> Generators:
    """The sets of the runs. Checks that they fit together, and that no finished one leaks.

    scenarios: None for all fractions that the runs were trained on. unlabelled: whether runs
    without classes may be among them that were trained on images which the classifiers have no
    labels of.

    Raises: ConfigError or DataError saying what to give instead.
    """
    of_all: list[Generator] = []
    by_key: dict[tuple[float, int, int], list[Generator]] = {}
    for run in runs:
        apart = unlabelled and run.has_no_classes
        (of_all if apart else by_key.setdefault(run.key, [])).append(run)
    if not by_key:
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
    return Generators(real, sets, [_assemble({ONLY_CLASS: run}, WHOLE) for run in of_all])


def _sets_of(
    scenario: Scenario, by_key: dict[tuple[float, int, int], list[Generator]], real: RealImages
) -> list[GeneratorSet]:
    class_names = [scenario.rare] if scenario.rare else list(real.image_set.class_names)
    fraction = scenario.of_generators(real.image_set)
    sets = []
    for key in sorted(by_key):
        if key[0] != fraction:
            continue
        by_class: dict[str, Generator] = {}
        for run in by_key[key]:
            made = run.makes(class_names)
            if not made and scenario.rare:
                continue
            if run.has_no_classes:
                raise ConfigError(
                    f"{run.folder.name} makes images of several classes without labels; give one "
                    "run a class (data.classes=[...]), or one with generator.conditional=true"
                )
            _check(run, real, scenario)
            for class_name in made:
                other = by_class.setdefault(class_name, run)
                if other is not run:
                    raise ConfigError(
                        f"{other.folder.name} and {run.folder.name} both make {class_name} for "
                        f"data.fraction={key[0]:g}, data.fraction_seed={key[1]} and seed={key[2]}; "
                        "give one of them"
                    )
        for class_name in class_names if by_class or not scenario.rare else []:
            if class_name not in by_class:
                have = ", ".join(run.folder.name for run in by_class.values())
                raise ConfigError(
                    f"no run makes {class_name} for data.fraction={fraction:g} and seed={key[2]}, "
                    f"only {', '.join(by_class)} ({have}); give such a run, or one with "
                    "generator.conditional=true"
                )
        if by_class:
            sets.append(_assemble({name: by_class[name] for name in class_names}, scenario))
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


def _check(run: Generator, real: RealImages, scenario: Scenario) -> None:
    """That a finished run was trained on images that the classifiers of the scenario have."""
    if not run.data_hash:
        return
    fraction, fraction_seed, _ = run.key
    data, whole = run.config.data, real.image_set
    if fraction < 1:
        whole = keep_fraction(whole, data.splits, fraction, fraction_seed)
    if whole.content_hash != run.data_hash:
        raise DataError(
            f"the images of data={data.name} are not those that {run.folder.name} was trained "
            "on, so nothing can be said of leaks; put these back, or give --data-path"
        )
    trained_on = whole.select(data.splits, data.classes)
    allowed = real.draw(TRAIN, scenario, fraction_seed)
    check_no_leak(run.folder.name, trained_on, real, allowed, scenario)


def _assemble(by_class: dict[str, Generator], scenario: Scenario) -> GeneratorSet:
    first = next(iter(by_class.values()))
    _, fraction_seed, seed = first.key
    return GeneratorSet(
        name=_name(by_class),
        scenario=scenario,
        fraction_seed=fraction_seed,
        seed=seed,
        discriminator=first.config.discriminator,
        folders={name: str(run.folder) for name, run in by_class.items()},
        weights={name: run.weights for name, run in by_class.items()},
    )


def _name(by_class: dict[str, Generator]) -> str:
    """Of networks and loss, and 8 hex digits of all settings but seed and data.

    Of the epochs only how many images they are: ten times as many of a tenth are the same training.
    """
    parts = []
    for class_name, run in by_class.items():
        settings = dataclasses.asdict(run.config)
        for key in (*_NOT_SHAPING, "data"):
            del settings[key]
        settings["epochs"] = round(run.config.epochs * run.config.data.fraction, 6)
        parts.append([class_name, settings])
    digits = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    config = next(iter(by_class.values())).config
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


def network_name(config: DiscriminatorConfig) -> str:
    """The discriminator's name and 8 hex digits of its settings."""
    settings = json.dumps(dataclasses.asdict(config), sort_keys=True)
    return f"{config.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def starting_network(
    generators: GeneratorSet, real: RealImages, seed: int, *, trained: bool
) -> OnDiscriminator:
    """The network that a classifier begins with: the discriminator of the generators' run, or where
    not ``trained`` one like it with weights drawn from ``seed``, which are those that the run of
    this seed began with. The last layer is drawn from ``seed`` either way.

    Raises: ConfigError where there are several runs, or the discriminator is a plug-in's that gives
    no features; RunFolderError where the run has its discriminator no more.
    """
    classes: Classes | None = None
    weights: dict[str, Any] | None = None
    if trained:
        if len(generators.runs) > 1:
            raise ConfigError(
                f"the arm discriminator takes the discriminator of one run, and "
                f"{' and '.join(generators.runs[:2])} have one each; give a run with "
                "generator.conditional=true"
            )
        source = generators.source(next(iter(generators.folders)))
        if source.conditional:
            classes = Classes(source.class_names, source.shares)
        weights = _read_weights(source.path / CHECKPOINT)
    network = build_discriminator(
        generators.discriminator,
        real.image_set.size,
        real.image_set.channels,
        weights_rng(seed, "discriminator"),
        classes,
    )
    if not isinstance(network, Discriminator):
        raise ConfigError(
            f"discriminator={generators.discriminator.name} cannot be trained as a classifier: it "
            "must be a lungan.models.layers.Discriminator, which has features"
        )
    if weights is not None:
        network.load_state_dict(weights)
    return OnDiscriminator(network, real.num_classes, seed)


def _read_weights(checkpoint: Path) -> dict[str, Any]:
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights: dict[str, Any] = saved["state"]["discriminator"]
    except Exception as error:
        raise RunFolderError(
            f"the arm discriminator needs {checkpoint}, which cannot be read "
            f"({type(error).__name__}); train the run again, or leave the arm out"
        ) from error
    return weights
