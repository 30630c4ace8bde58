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
    centered = draws[:NUM_DRAWS] * 2 - 1
    if config.brightness:
        images = brightened(images, centered[0] * config.brightness * chosen[0])
    if config.saturation and images.shape[1] == 3:
        images = saturated(images, 1 + centered[1] * config.saturation * chosen[1])
    if config.contrast:
        images = contrasted(images, 1 + centered[2] * config.contrast * chosen[2])
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


def brightened(images: Tensor, added: Tensor) -> Tensor:
    """``added`` (N,) to every pixel."""
    return images + _per_image(added, images)


def saturated(images: Tensor, factors: Tensor) -> Tensor:
    """Distance from the pixel's own grey times ``factors`` (N,)."""
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * _per_image(factors, images)


def contrasted(images: Tensor, factors: Tensor) -> Tensor:
    """Distance from the image's mean times ``factors`` (N,)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * _per_image(factors, images)


def translated(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels moved down by ``rows`` (N,) and right by ``columns``; what comes in is zero."""
    height, width = images.shape[-2:]
    # Products with matrices of zeros and ones: on a CPU ten times as fast as indexing's gradient.
    down = _shift(rows, height).to(images.dtype)
    right = _shift(columns, width).to(images.dtype).transpose(1, 2)
    return down[:, None] @ images @ right[:, None]


def cut_out(images: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """Zero in a square of ``side`` (N,) pixels whose corner (N,) may lie outside the image."""
    inside = _between(top, side, images.shape[-2])[:, :, None] & _between(
        left, side, images.shape[-1]
    ).unsqueeze(1)
    return images.masked_fill(inside[:, None], 0)


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


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.dtype)[:, None, None, None]


def _shift(offsets: Tensor, size: int) -> Tensor:
    """(N, size, size): ones where row is column plus offset."""
    position = torch.arange(size, device=offsets.device)
    return position[:, None] == position + offsets[:, None, None]


def _between(first: Tensor, length: Tensor, size: int) -> Tensor:
    """(N, size): from ``first`` on, ``length`` positions."""
    position = torch.arange(size, device=first.device)
    start = first[:, None]
    return (position >= start) & (position < start + length[:, None])
