"""Which runs can be trained side by side: what stands in one's way, and who fits with whom."""

from __future__ import annotations

import dataclasses

from lungan import registry
from lungan.config import RunConfig

BUILT_IN_ONLY = ("generator", "discriminator", "loss", "optimizer", "augment")
"""Groups whose choices are written anew for stacks."""

AVERAGE_KEYS = ("ema_half_life_images", "ema_ramp_up")


def obstacle(config: RunConfig) -> str | None:
    """The setting, as on the command line, that a stack cannot do; None where it can."""
    loss = config.loss
    plugins = registry.used_by((group, getattr(config, group).name) for group in BUILT_IN_ONLY)
    for key, plugin in plugins.items():
        return f"{key} of plug-in {plugin.name}"
    found = {
        f"generator={config.generator.name}": config.generator.name != "dcgan",
        f"discriminator={config.discriminator.name}": config.discriminator.name != "dcgan",
        "generator.conditional=true": config.generator.conditional,
        "discriminator.spectral_norm=true": config.discriminator.spectral_norm,
        f"loss.r1={loss.r1:g}": loss.r1 > 0,
        f"loss.r2={loss.r2:g}": loss.r2 > 0,
        f"loss.gradient_penalty={loss.gradient_penalty:g}": loss.gradient_penalty > 0,
        f"loss.micro_batches={loss.micro_batches}": loss.micro_batches > 1,
    }
    return next((text for text, stands in found.items() if stands), None)


def shape(config: RunConfig, data_hash: str, device: str, precision: str) -> str:
    """Equal for runs that can be trained side by side.

    Each has its own seed, epochs, optimizer, schedule and average of the generator's weights.
    data_hash: of all images, held-out ones too.
    """
    generator = dataclasses.asdict(config.generator)
    for key in AVERAGE_KEYS:
        del generator[key]
    shared = (
        (data_hash, config.data.splits, config.data.classes),
        (device, precision, config.threads, config.batch_size),
        generator,
        *(dataclasses.asdict(group) for group in (config.discriminator, config.loss)),
        dataclasses.asdict(config.augment),
    )
    return repr(shared)
