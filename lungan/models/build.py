"""Networks by name. A saved config names a network, it never is code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lungan.config import DiscriminatorConfig, GeneratorConfig, num_stages
from lungan.errors import ConfigError
from lungan.models.conditioning import Classes
from lungan.models.dcgan import DcganDiscriminator, DcganGenerator
from lungan.models.resnet import ResnetDiscriminator, ResnetGenerator
from lungan.models.spectral import normalize_spectrally

Builder = Callable[[Any, int, int, int, torch.Generator, int | None], nn.Module]

GENERATORS: dict[str, Builder] = {"dcgan": DcganGenerator, "resnet": ResnetGenerator}
DISCRIMINATORS: dict[str, Builder] = {"dcgan": DcganDiscriminator, "resnet": ResnetDiscriminator}


def build_generator(
    config: GeneratorConfig,
    image_size: int,
    channels: int,
    rng: torch.Generator | None = None,
    classes: Classes | None = None,
) -> nn.Module:
    """A generator in training mode, (N, ``.latent_dim``) -> (N, channels, size, size) in [-1, 1].

    rng: a CPU generator that the weights are drawn from; None is one with seed 0.
    classes: of a conditional generator, which then also takes labels (N,), and has ``.classes``.

    Raises: ConfigError for an unknown name or a size that the stages cannot make, or where
    ``classes`` are missing.
    """
    if config.conditional and (classes is None or len(classes) < 2):
        names = ", ".join(classes.names) if classes else "none"
        raise ConfigError(
            "generator.conditional=true needs images of at least two classes, got "
            f"{names}; choose more by data.classes, or generator.conditional=false"
        )
    if not config.conditional:
        classes = None
    network = _build("generator", GENERATORS, config, image_size, channels, rng, classes)
    network.classes = classes  # type: ignore[assignment]
    return network


def build_discriminator(
    config: DiscriminatorConfig,
    image_size: int,
    channels: int,
    rng: torch.Generator | None = None,
    classes: Classes | None = None,
) -> nn.Module:
    """A discriminator, (N, channels, size, size) in [-1, 1] -> logits (N,).

    classes: of a conditional one, which judges images beside their labels (N,).
    rng and Raises: as ``build_generator``.
    """
    if rng is None:
        rng = torch.Generator().manual_seed(0)
    network = _build("discriminator", DISCRIMINATORS, config, image_size, channels, rng, classes)
    if config.spectral_norm:
        normalize_spectrally(network, rng)
    return network


def _build(
    group: str,
    registry: dict[str, Builder],
    config: GeneratorConfig | DiscriminatorConfig,
    image_size: int,
    channels: int,
    rng: torch.Generator | None,
    classes: Classes | None,
) -> nn.Module:
    if config.name not in registry:
        raise ConfigError(
            f"{group}.name must be one of {', '.join(sorted(registry))}, got {config.name}"
        )
    stages = num_stages(image_size)
    if stages is None:
        raise ConfigError(
            f"data.size must be 7 or 8 times a power of two for {group}={config.name}, "
            f"got {image_size}"
        )
    if rng is None:
        rng = torch.Generator().manual_seed(0)
    num_classes = None if classes is None else len(classes)
    base_size = image_size // 2**stages
    network = registry[config.name](config, stages, base_size, channels, rng, num_classes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
