"""Networks by name. A saved config names a network, it never is code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lungan.config import DiscriminatorConfig, GeneratorConfig, num_stages
from lungan.errors import ConfigError
from lungan.models.dcgan import DcganDiscriminator, DcganGenerator

Builder = Callable[[Any, int, int, int, torch.Generator], nn.Module]

GENERATORS: dict[str, Builder] = {"dcgan": DcganGenerator}
DISCRIMINATORS: dict[str, Builder] = {"dcgan": DcganDiscriminator}


def build_generator(
    config: GeneratorConfig, image_size: int, channels: int, rng: torch.Generator | None = None
) -> nn.Module:
    """A generator in training mode, (N, ``.latent_dim``) -> (N, channels, size, size) in [-1, 1].

    rng: a CPU generator that the weights are drawn from; None is one with seed 0.

    Raises: ConfigError for an unknown name or a size that the stages cannot make.
    """
    return _build("generator", GENERATORS, config, image_size, channels, rng)


def build_discriminator(
    config: DiscriminatorConfig, image_size: int, channels: int, rng: torch.Generator | None = None
) -> nn.Module:
    """A discriminator, (N, channels, size, size) in [-1, 1] -> logits (N,).

    rng and Raises: as ``build_generator``.
    """
    return _build("discriminator", DISCRIMINATORS, config, image_size, channels, rng)


def _build(
    group: str,
    registry: dict[str, Builder],
    config: GeneratorConfig | DiscriminatorConfig,
    image_size: int,
    channels: int,
    rng: torch.Generator | None,
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
    network = registry[config.name](config, stages, image_size // 2**stages, channels, rng)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
