"""A discriminator as a classifier's network: the one of a generator's run, or an untrained one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from lungan.classifiers.network import OnDiscriminator
from lungan.config import DiscriminatorConfig
from lungan.errors import ConfigError, RunFolderError
from lungan.models.build import Classes, build_discriminator
from lungan.models.layers import Discriminator
from lungan.runs.folder import CHECKPOINT
from lungan.training.randomness import weights_rng
from lungan.utility.generators import GeneratorSet
from lungan.utility.images import RealImages


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
        source, *others = {source.name: source for source in generators.by_class.values()}.values()
        if others:
            raise ConfigError(
                f"the arm discriminator takes the discriminator of one run, and {source.name} and "
                f"{others[0].name} have one each; give a run with generator.conditional=true"
            )
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
