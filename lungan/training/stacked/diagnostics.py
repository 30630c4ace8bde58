"""Samples of all runs, and what tells early that one goes wrong, taken once an epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from lungan.config import AdaptiveConfig, RunConfig
from lungan.training.stacked.networks import StackedDiscriminator, StackedGenerator
from lungan.training.stacked.state import StackedState
from lungan.training.stacked.step import to_batches
from lungan.training.stepping import to_floats


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
    told = {"sample_diversity": diversity(samples)}
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


def diversity(samples: Tensor) -> Tensor:
    """As ``training.diagnostics.diversity``, of (R, N, C, H, W): (R,)."""
    flat = samples.flatten(2).double()
    mode = "donot_use_mm_for_euclid_dist"  # which would lose digits of what is alike
    total = torch.cdist(flat, flat, compute_mode=mode).sum((1, 2))
    num = samples.shape[1]
    distance: Tensor = total / (num * (num - 1)) / flat.shape[2] ** 0.5
    return distance
