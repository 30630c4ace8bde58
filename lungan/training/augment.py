"""Random changes of the images that the discriminator sees, which gradients pass through.

Sources: Zhao et al. 2020, arXiv:2006.10738 (DiffAugment); Karras et al. 2020, arXiv:2006.06676, for
changes made with a probability that follows overfitting.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lungan import registry
from lungan.config import AugmentConfig
from lungan.config.training import AdaptiveConfig, DiffAugmentConfig

NUM_CHANGES = 5
NUM_DRAWS = 7

Uniforms = Callable[[int, int], Tensor]
"""Rows and columns to uniform float32 of that shape, in [0, 1)."""


def augmented(
    config: AugmentConfig, images: Tensor, probability: Tensor, uniforms: Uniforms
) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], changed as ``config`` asks for and ``uniforms`` decide.

    probability: of each change, for each image by itself; 0-d, on the device of the images.

    Where anything is changed the result is float32, and can leave [-1, 1] where brightness or
    contrast rise.
    """
    change = registry.builder("augment", config.name)
    result: Tensor = change(config, images, probability, uniforms)
    return result


def unchanged(_config: AugmentConfig, images: Tensor, _probability: Tensor, _: Uniforms) -> Tensor:
    """The images as they are."""
    return images


def diffaugment(
    config: DiffAugmentConfig, images: Tensor, probability: Tensor, uniforms: Uniforms
) -> Tensor:
    """Images with all that the config asks for, each change with ``probability``."""
    draws = uniforms(NUM_DRAWS + NUM_CHANGES, len(images))
    images = images.float()
    chosen = draws[NUM_DRAWS:] < probability
    amounts = ((draws[:3] * 2 - 1) * chosen[:3])[..., None, None, None]  # from -1 to 1
    if config.brightness:
        images = images + amounts[0] * config.brightness
    if config.saturation and images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (1 + amounts[1] * config.saturation)
    if config.contrast:
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + (images - mean) * (1 + amounts[2] * config.contrast)
    size = images.shape[-1]
    if config.translation:
        longest = round(config.translation * size)
        shifts = torch.floor(draws[3:5] * (2 * longest + 1)) - longest
        rows, columns = (shifts * chosen[3]).long()
        images = translated(images, rows, columns)
    side = round(config.cutout * size)
    if side:
        corners = torch.floor(draws[5:7] * (size + 1 - side % 2)).long() - side // 2
        images = cut_out(images, corners[0], corners[1], chosen[4] * side)
    return images


def translated(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels moved down by ``rows`` (N,) and right by ``columns``; what comes in is zero."""
    height, width = images.shape[-2:]
    # Products with matrices of zeros and ones: on a CPU ten times as fast as indexing's gradient.
    down = _shift(rows, height).to(images.dtype)
    right = _shift(columns, width).to(images.dtype).transpose(1, 2)
    return down[:, None] @ images @ right[:, None]


def cut_out(images: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """Zero in a square of ``side`` (N,) pixels whose corner (N,) may lie outside the image."""
    rows = _between(top, side, images.shape[-2])
    columns = _between(left, side, images.shape[-1])
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def initial_probability(config: AugmentConfig, device: torch.device) -> Tensor:
    """0 where it adapts, else 1."""
    return torch.full((), 0.0 if isinstance(config, AdaptiveConfig) else 1.0, device=device)


def adjusted(
    probability: Tensor, config: AugmentConfig, overfitting: Tensor, num_images: int
) -> Tensor:
    """The probability after a batch whose overfitting signal was ``overfitting``.

    Source: Karras et al. 2020, arXiv:2006.06676, section 3, at every batch instead of every four.
    """
    if not isinstance(config, AdaptiveConfig):
        return probability
    change = torch.sign(overfitting - config.target) * (num_images / config.adjust_images)
    return (probability + change).clamp(0, 1)


def _shift(offsets: Tensor, size: int) -> Tensor:
    """(N, size, size): ones where row is column plus offset."""
    position = torch.arange(size, device=offsets.device)
    return position[:, None] == position + offsets[:, None, None]


def _between(first: Tensor, length: Tensor, size: int) -> Tensor:
    """(N, size): from ``first`` on, ``length`` positions."""
    position = torch.arange(size, device=first.device)
    start = first[:, None]
    return (position >= start) & (position < start + length[:, None])
