"""All randomness of a run: pure functions of (seed, stream, index).

Nothing here has a state that a checkpoint would have to keep: step 1000 draws the same numbers
whether or not the process that runs it also ran step 999.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from lungan.models.operations import RandomBits


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


class StepInputs:
    """All that changes from one step to the next but the weights: images, labels, random numbers,
    and the share of a batch in LeCam's means.

    hold: give them in tensors that stay where they are, since a CUDA graph reads these addresses.
    ``begin`` then writes the step's values into all that was asked for before under the same key,
    and what is asked for the first time must not be asked for while a graph is recorded.
    """

    def __init__(self, seed: int, device: torch.device, *, hold: bool = False) -> None:
        self._seed, self._device, self._hold = seed, device, hold
        self._step = 0
        self._key: Hashable = None
        self._given: dict[Hashable, Tensor] = {}
        self._held: dict[Hashable, dict[Hashable, tuple[Tensor, Callable[[], Tensor]]]] = {}

    def begin(self, key: Hashable, step: int) -> None:
        """What is asked for from here on is for one kind of work, with a key, of this step."""
        self._key, self._step = key, step
        self._bits = functools.cache(lambda draw: DropoutBits(self._seed, step, draw, self._device))
        for tensor, draw in self._held.get(key, {}).values():
            tensor.copy_(draw(), non_blocking=True)

    def given(self, name: str, tensor: Tensor) -> Tensor:
        """The step's images or labels."""
        if not self._hold:
            return tensor
        held = self._given.setdefault((self._key, name), torch.empty_like(tensor))
        return held.copy_(tensor, non_blocking=True)

    def latents(self, count: int, latent_dim: int, update: int) -> Tensor:
        """(count, latent_dim) float32."""
        return self._drawn(
            ("latents", count, update),
            lambda: latents(self._seed, self._step, count, latent_dim, self._device, update),
        )

    def uniforms(self, name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        """Float32 in [0, 1). index: within the step."""
        return self._drawn(
            (name, index, shape),
            lambda: uniforms(self._seed, name, (self._step, *index), shape, self._device),
        )

    def number(self, name: str, of_step: Callable[[int], float]) -> Tensor:
        """0-d float32."""
        return self._drawn(name, lambda: torch.full((), of_step(self._step), device=self._device))

    def dropout_bits(self, draw: int) -> RandomBits:
        """draw: which of the step's masks. What is given may be overwritten."""
        if not self._hold:
            return DropoutBits(self._seed, self._step, draw, self._device)
        calls = itertools.count()

        def bits(count: int) -> Tensor:
            return self._drawn((draw, next(calls)), lambda: self._bits(draw)(count)).clone()

        return bits

    def _drawn(self, key: Hashable, draw: Callable[[], Tensor]) -> Tensor:
        if not self._hold:
            return draw()
        held = self._held.setdefault(self._key, {})
        if key not in held:
            held[key] = (draw(), draw)
        return held[key][0]


def _normal(rng: np.random.Generator, count: int, latent_dim: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((count, latent_dim), dtype=np.float32))


def _sent(draws: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    if device.type == "cuda":
        return draws.pin_memory().to(device, non_blocking=True)
    return draws
