"""Images from a generator, by seed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lungan.errors import DataError
from lungan.models.conditioning import Classes
from lungan.models.modes import evaluating
from lungan.models.pixels import to_uint8


def sample_generator(
    generator: nn.Module,
    num_images: int,
    seed: int,
    batch_size: int,
    device: torch.device,
    labels: NDArray[np.int64] | None = None,
) -> Tensor:
    """``num_images`` images (N, C, H, W) uint8 on ``device``, from standard normal latents.

    The latents depend on ``seed`` only, not on batch size or device; pixels can still differ by
    one level where a device or batch size rounds otherwise. The generator is used in evaluation
    mode and left in the mode and on the device where it was found.

    labels: (num_images,) of a conditional generator; None draws them by the classes' shares in
    the images that it was trained on.

    Raises: DataError where the generator gives NaN or infinite pixels.
    """
    latent_dim = generator.latent_dim
    assert isinstance(latent_dim, int)
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(num_images, latent_dim, generator=rng)
    classes = getattr(generator, "classes", None)
    if isinstance(classes, Classes) and labels is None:
        shares = torch.tensor(classes.shares, dtype=torch.float64)
        labels = torch.multinomial(shares, num_images, replacement=True, generator=rng).numpy()
    home = next(iter(generator.parameters())).device
    generator.to(device)
    batches = []
    finite = torch.ones((), dtype=torch.bool, device=device)
    try:
        with torch.inference_mode(), evaluating(generator):
            for start in range(0, num_images, batch_size):
                batch = slice(start, start + batch_size)
                asked = () if labels is None else (torch.from_numpy(labels[batch]).to(device),)
                images = generator(latents[batch].to(device), *asked)
                finite &= torch.isfinite(images).all()
                batches.append(to_uint8(images))
            made = torch.cat(batches)
    finally:
        generator.to(home)
    if not finite:  # the only wait for the device
        raise DataError("the generator gives NaN or infinite pixels")
    return made
