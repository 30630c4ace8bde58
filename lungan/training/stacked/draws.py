"""The random numbers of R runs: each run's own, as it would draw them alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from lungan.training.augment import NUM_CHANGES, NUM_DRAWS
from lungan.training.randomness import DropoutBits, latents, uniforms

CPU = torch.device("cpu")
NUM_THREADS = 8


class Draws:
    """Latents of the step after are drawn by other threads meanwhile: normal numbers for dozens of
    runs take a CPU longer than a GPU needs for a step of them."""

    def __init__(self, seeds: Sequence[int], latent_dim: int, device: torch.device) -> None:
        self._seeds = seeds
        self._latent_dim = latent_dim
        self._device = device
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="latents")
        self._ahead: dict[tuple[int, int, int], list[Future[Tensor]]] = {}

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def latents(self, step: int, count: int, update: int) -> Tensor:
        """(R, count, latent_dim) float32."""
        futures = self._ahead.pop((step, count, update), None)
        if futures is None:
            futures = self._draw(step, count, update)
            self._ahead.clear()
        self._ahead[step + 1, count, update] = self._draw(step + 1, count, update)
        drawn = torch.stack([future.result() for future in futures])
        return self._sent(drawn)

    def dropout_bits(self, step: int, draw: int) -> list[DropoutBits]:
        return [DropoutBits(seed, step, draw, self._device) for seed in self._seeds]

    def augmentation(self, step: int, update: int, count: int) -> Tensor:
        """Uniforms for the changes of ``count`` images a run, runs one after another."""
        index = (step, update, 0)
        shape = (NUM_DRAWS + NUM_CHANGES, count)
        each = [uniforms(seed, "augment", index, shape, CPU) for seed in self._seeds]
        return self._sent(torch.cat(each, dim=1))

    def _draw(self, step: int, count: int, update: int) -> list[Future[Tensor]]:
        return [
            self._threads.submit(latents, seed, step, count, self._latent_dim, CPU, update)
            for seed in self._seeds
        ]

    def _sent(self, drawn: Tensor) -> Tensor:
        if self._device.type == "cuda":
            return drawn.pin_memory().to(self._device, non_blocking=True)
        return drawn
