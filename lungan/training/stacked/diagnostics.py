"""Samples of all runs, and what tells early that one goes wrong, taken once an epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from lungan.config import AdaptiveConfig, RunConfig
from lungan.models.pixels import to_floats
from lungan.training.diagnostics import diversity
from lungan.training.stacked.networks import StackedDiscriminator, StackedGenerator
from lungan.training.stacked.state import StackedState
from lungan.training.stacked.step import to_batches


@torch.no_grad()
def sample(stack: StackedState, generator: StackedGenerator, latents: Tensor) -> Tensor:
    """Images (R, N, C, H, W) in [-1, 1] of the generators that are saved."""
    weights = stack.generator.views(stack.inference_flat)
    maps = generator(weights, stack.generator.buffers, latents, training=False)
    return to_batches(maps, len(stack))


@torch.no_grad()
def diagnose(
    stack: StackedState,
    discriminator: StackedDiscriminator,
    samples: Tensor,
    held_out: Tensor | None,
) -> dict[str, Tensor]:
    """What ``training.diagnostics.diagnose`` tells of some run, in its order: each (R,)."""
    told = {"sample_diversity": torch.stack([diversity(each) for each in samples])}
    if held_out is not None:
        images = to_floats(held_out).repeat(1, len(stack), 1, 1)
        images = images.contiguous(memory_format=torch.channels_last)
        told["logit_held_out"] = discriminator(stack.discriminator.parameters, images, None).mean(1)
    told["ema_drift"] = stack.drift()
    told["augment_probability"] = stack.augment_probability
    return told


def tells(config: RunConfig, name: str) -> bool:
    """Whether the run by itself would tell of it."""
    if name == "ema_drift":
        return config.generator.ema_half_life_images > 0
    return name != "augment_probability" or isinstance(config.augment, AdaptiveConfig)
