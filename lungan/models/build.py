"""Networks by name. A saved config names a network, it never is code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lungan import registry
from lungan.config import DiscriminatorConfig, GeneratorConfig
from lungan.errors import ConfigError
from lungan.models.layers import normalize_spectrally


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a conditional generator, in the order of its labels, and the share of the
    training images that each has."""

    names: tuple[str, ...]
    shares: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.names)


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

    Raises: ConfigError for an unknown name or a size that the network cannot make, or where
    ``classes`` are missing.
    """
    if config.conditional and (classes is None or len(classes) < 2):
        names = ", ".join(classes.names) if classes else "none"
        raise ConfigError(
            "generator.conditional=true needs images of at least two classes, got "
            f"{names}; choose more by data.classes, or generator.conditional=false"
        )
    rng = rng or torch.Generator().manual_seed(0)
    classes = classes if config.conditional else None
    network = _build("generator", config, image_size, channels, rng, classes)
    network.latent_dim = config.latent_dim
    network.classes = classes
    return network  # type: ignore[no-any-return]


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
    rng = rng or torch.Generator().manual_seed(0)
    network = _build("discriminator", config, image_size, channels, rng, classes)
    if config.spectral_norm:
        normalize_spectrally(network, rng)
    return network  # type: ignore[no-any-return]


def _build(
    group: str,
    config: GeneratorConfig | DiscriminatorConfig,
    image_size: int,
    channels: int,
    rng: torch.Generator,
    classes: Classes | None,
) -> Any:
    build = registry.builder(group, config.name)
    num_classes = None if classes is None else len(classes)
    network = build(config, image_size, channels, rng, num_classes)
    return network.to(memory_format=torch.channels_last)
