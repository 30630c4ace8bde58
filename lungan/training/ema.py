"""Exponential moving average of a generator's weights, with a half-life in images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def decay(num_images: int, images_seen: int, half_life_images: float, ramp_up: float) -> float:
    """The share of the average that a batch of ``num_images`` leaves of it.

    images_seen: with this batch. The half-life is at most ``ramp_up`` times these, so that the
    average is never mostly the weights of the beginning.

    Source: Karras et al. 2022, arXiv:2206.00364 (edm), training loop; half-lives in images from
    Karras et al. 2019, arXiv:1912.04958.
    """
    half_life = min(half_life_images, images_seen * ramp_up)
    return float(0.5 ** (num_images / half_life))


class ExponentialMovingAverage:
    """A copy of a network whose weights follow its own slowly; buffers are copied as they are."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """Keep ``decay`` of the average and take the rest from ``network``."""
        averages, weights = _weights(self.network), _weights(network)
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)

    @torch.no_grad()
    def drift(self, network: nn.Module) -> Tensor:
        """Distance of the average from the weights, relative to their length."""
        averages, weights = _weights(self.network), _weights(network)
        differences = torch._foreach_sub(averages, weights)
        length = torch.nn.utils.get_total_norm(weights)
        return torch.nn.utils.get_total_norm(differences) / length


def _weights(network: nn.Module) -> list[Tensor]:
    return list(network.parameters())
