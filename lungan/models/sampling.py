"""Images from a generator, in blocks that follow from seed, class and position alone.

Scores, ``lungan.generate`` and utility studies all sample here: one seed gives the same images.
Pixels are floats in [-1, 1] for networks, and 0 to 255 in files.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from lungan.errors import DataError
from lungan.models.build import Classes

BLOCK_SIZE = 64
"""Images are always made so many at once: another batch size would round some pixels otherwise."""


def to_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8, or floats from 0 to 255, as floats in [-1, 1]."""
    return (images.float() / 127.5 - 1).to(dtype)


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] as uint8, rounded; what lies outside is clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network is in evaluation mode inside, and in the mode that it had after."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def draw_latents(
    latent_dim: int, seed: int, label: int | None, block: int, truncation: float | None = None
) -> NDArray[np.float32]:
    """Latents (BLOCK_SIZE, latent_dim) of one block of one class's endless sequence.

    truncation: latents from a normal distribution cut off at so many standard deviations, which
    trades variety for likeness. Source: Brock et al. 2019, arXiv:1809.11096, section 3.1.
    """
    key = (0 if label is None else label + 1, block)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    shape = (BLOCK_SIZE, latent_dim)
    if truncation is None:
        return rng.standard_normal(shape, dtype=np.float32)
    # One draw a number, by the inverse of the distribution, and so the same for every cut.
    below = ndtr(-truncation)
    latents = ndtri(below + rng.random(shape) * (1 - 2 * below))
    return np.asarray(latents, dtype=np.float32)


def sample_block(
    generator: nn.Module,
    seed: int,
    label: int | None,
    block: int,
    device: torch.device,
    truncation: float | None = None,
) -> Tensor:
    """Images (BLOCK_SIZE, C, H, W) uint8 on ``device``, where the generator is too, in evaluation
    mode.

    label: of a conditional generator, else None.

    Raises: DataError where the generator gives NaN or infinite pixels.
    """
    latent_dim = generator.latent_dim
    assert isinstance(latent_dim, int)
    latents = torch.from_numpy(draw_latents(latent_dim, seed, label, block, truncation)).to(device)
    labels = [] if label is None else [torch.full((BLOCK_SIZE,), label, device=device)]
    with torch.inference_mode():
        images: Tensor = generator(latents, *labels)
    if not torch.isfinite(images).all():
        raise DataError("the generator gives NaN or infinite pixels; train it again")
    return to_uint8(images)


def sample_images(generator: nn.Module, num_images: int, seed: int, device: torch.device) -> Tensor:
    """Images (num_images, C, H, W) uint8 on ``device``, as ``lungan.generate`` makes them.

    A conditional generator's classes follow one another, each with its share in the images that
    it was trained on. The generator is used in evaluation mode and left in the mode and on the
    device where it was found.

    Raises: DataError where the generator gives NaN or infinite pixels.
    """
    classes = getattr(generator, "classes", None)
    counts: dict[int | None, int] = {None: num_images}
    if isinstance(classes, Classes):
        counts = dict(enumerate(divide(num_images, classes.shares)))
    home = next(iter(generator.parameters())).device
    generator.to(device)
    try:
        with evaluating(generator):
            made = [
                sample_block(generator, seed, label, start // BLOCK_SIZE, device)[: count - start]
                for label, count in counts.items()
                for start in range(0, count, BLOCK_SIZE)
            ]
    finally:
        generator.to(home)
    return torch.cat(made)


def divide(num_images: int, shares: Sequence[float]) -> list[int]:
    """``num_images`` over classes by their shares, the largest remainders rounded up."""
    total = math.fsum(shares)
    exact = [num_images * share / total for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: num_images - sum(counts)]:
        counts[index] += 1
    return counts
