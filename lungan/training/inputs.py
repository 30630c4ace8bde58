"""All that changes from one step to the next but the weights: images, random numbers, shares."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from lungan.models.dropout import RandomBits
from lungan.training.randomness import DropoutBits, latents, uniforms


class Inputs:
    """Drawn when asked for, from the run's seed and the step."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self.step = 0

    def begin(self, _: Hashable, step: int) -> None:
        """What is asked for from here on is for one piece of work, with a key, of this step."""
        self.step = step

    def given(self, _: str, tensor: Tensor) -> Tensor:
        return tensor

    def latents(self, count: int, latent_dim: int, update: int) -> Tensor:
        """(count, latent_dim) float32."""
        return latents(self.seed, self.step, count, latent_dim, self.device, update)

    def uniforms(self, name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        """Float32 in [0, 1). index: within the step."""
        return uniforms(self.seed, name, (self.step, *index), shape, self.device)

    def dropout_bits(self, draw: int) -> RandomBits:
        """draw: which of the step's masks."""
        return DropoutBits(self.seed, self.step, draw, self.device)

    def number(self, _: str, of_step: Callable[[int], float]) -> float | Tensor:
        return of_step(self.step)


class HeldInputs(Inputs):
    """The same values, in tensors that stay where they are: a CUDA graph reads these addresses.

    ``begin`` writes the step's values into all that was asked for before under the same key. What
    is asked for the first time must not be asked for while a graph is recorded.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        super().__init__(seed, device)
        self._held_by_key: dict[Hashable, dict[Hashable, _Held]] = {}
        self._held: dict[Hashable, _Held] = {}

    def begin(self, key: Hashable, step: int) -> None:
        super().begin(key, step)
        self._held = self._held_by_key.setdefault(key, {})
        for held in self._held.values():
            held.renew()

    def given(self, name: str, tensor: Tensor) -> Tensor:
        held = self._held.setdefault(name, _Given(tensor))
        assert isinstance(held, _Given)
        return held.tensor.copy_(tensor, non_blocking=True)

    def latents(self, count: int, latent_dim: int, update: int) -> Tensor:
        key = ("latents", count, update)
        return self._drawn(key, lambda: Inputs.latents(self, count, latent_dim, update))

    def uniforms(self, name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        key = (name, index, shape)
        return self._drawn(key, lambda: Inputs.uniforms(self, name, index, shape))

    def dropout_bits(self, draw: int) -> RandomBits:
        held = self._held.get(draw)
        if held is None:
            held = self._held[draw] = _Bits(lambda: Inputs.dropout_bits(self, draw))
        assert isinstance(held, _Bits)
        return held.from_the_first()

    def number(self, name: str, of_step: Callable[[int], float]) -> Tensor:
        return self._drawn(name, lambda: torch.full((), of_step(self.step), device=self.device))

    def _drawn(self, key: Hashable, draw: Callable[[], Tensor]) -> Tensor:
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Drawn(draw)
        assert isinstance(held, _Drawn)
        return held.tensor


class _Given:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = torch.empty_like(tensor)

    def renew(self) -> None:
        """It comes anew with every step."""


class _Drawn:
    def __init__(self, draw: Callable[[], Tensor]) -> None:
        self._draw = draw
        self.tensor = draw()

    def renew(self) -> None:
        self.tensor.copy_(self._draw(), non_blocking=True)


class _Bits:
    """The bits of one forward pass, a tensor for each call; what is given may be overwritten."""

    def __init__(self, begin: Callable[[], RandomBits]) -> None:
        self._begin = begin
        self._source = begin()
        self._tensors: list[Tensor] = []
        self._calls = 0

    def renew(self) -> None:
        self._source = self._begin()
        for tensor in self._tensors:
            tensor.copy_(self._source(len(tensor)))

    def from_the_first(self) -> RandomBits:
        self._calls = 0
        return self

    def __call__(self, count: int) -> Tensor:
        if self._calls == len(self._tensors):
            self._tensors.append(self._source(count))
        tensor = self._tensors[self._calls]
        self._calls += 1
        assert len(tensor) == count, "the layers of a network do not change"
        return tensor.clone()


_Held = _Given | _Drawn | _Bits
