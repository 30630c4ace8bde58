"""All randomness of a run: pure functions of (seed, stream, index).

Nothing here has a state that a checkpoint would have to keep: step 1000 draws the same numbers
whether or not the process that runs it also ran step 999.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stream(seed: int, name: str, *index: int) -> np.random.Generator:
    """An independent random generator for each (seed, name, index)."""
    key = (zlib.crc32(name.encode()), *index)
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))


def weights_rng(seed: int, network: str) -> torch.Generator:
    """The CPU generator that a network's weights are drawn from."""
    return torch.Generator().manual_seed(int(stream(seed, f"weights/{network}").integers(2**63)))


def latents(
    seed: int,
    step: int,
    count: int,
    latent_dim: int,
    device: torch.device,
    update: int = 0,
) -> Tensor:
    """Standard normal latents (count, latent_dim) float32, the same on every device.

    update: which update of the step they are for.
    """
    return _sent(_normal(stream(seed, "latents", step, update), count, latent_dim), device)


def uniforms(
    seed: int, name: str, index: tuple[int, ...], shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Uniform float32 of ``shape`` in [0, 1), the same on every device."""
    draws = stream(seed, name, *index).random(shape, dtype=np.float32)
    return _sent(torch.from_numpy(draws), device)


def fixed_latents(seed: int, count: int, latent_dim: int) -> Tensor:
    """The latents (count, latent_dim) float32 that a run's sample grids are made from, on CPU."""
    return _normal(stream(seed, "fixed_latents"), count, latent_dim)


def permutation(seed: int, epoch: int, num_images: int, device: torch.device) -> Tensor:
    """The order (num_images,) int64 in which an epoch visits the images."""
    order = stream(seed, "permutation", epoch).permutation(num_images)
    return _sent(torch.from_numpy(order), device)


def fixed_labels(seed: int, count: int, class_shares: Sequence[float]) -> Tensor:
    """The labels (count,) int64, in order, of the fixed latents: drawn by ``class_shares``."""
    shares = np.asarray(class_shares)
    draws = stream(seed, "fixed_labels").choice(len(shares), count, p=shares / shares.sum())
    return torch.from_numpy(np.sort(draws))


class DropoutBits:
    """Random bits for one forward pass: every call gives new ones, from (seed, step, update)."""

    def __init__(self, seed: int, step: int, update: int, device: torch.device) -> None:
        self._device = device
        self._rng = stream(seed, "dropout", step, update)
        if device.type != "cpu":
            device_seed = int(self._rng.integers(2**63))
            self._device_rng = torch.Generator(device).manual_seed(device_seed)

    def __call__(self, count: int) -> Tensor:
        """Uniform int16 (count,)."""
        if self._device.type != "cpu":
            empty = torch.empty(count, dtype=torch.int16, device=self._device)
            return empty.random_(-32768, 32768, generator=self._device_rng)
        words = self._rng.bit_generator.random_raw(-(-count // 4))
        return torch.from_numpy(words.view(np.int16)[:count])


def _normal(rng: np.random.Generator, count: int, latent_dim: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((count, latent_dim), dtype=np.float32))


def _sent(draws: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    if device.type == "cuda":
        return draws.pin_memory().to(device, non_blocking=True)
    return draws
