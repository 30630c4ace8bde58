"""Spectral normalization: kernels divided by their largest singular value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SpectralNorm(nn.Module):
    """What stands between a weight and its use: the weight over an estimate of its largest
    singular value, as a matrix (first dimension, the rest), better by a power iteration at each
    use in training.

    Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1.
    """

    left: Tensor

    def __init__(self, weight: Tensor, rng: torch.Generator) -> None:
        super().__init__()
        left = F.normalize(torch.randn(len(weight), generator=rng), dim=0)
        self.register_buffer("left", left.to(weight.dtype))
        with torch.no_grad():
            for _ in range(10):  # a good estimate from the first step on
                self._iterate(weight.flatten(1))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self._iterate(matrix)
            # A copy, which the next iteration leaves alone: gradients still need it.
            left = self.left.clone()
            right = F.normalize(matrix.detach().mT @ left, dim=0)
            return weight / (left @ (matrix @ right))

    def _iterate(self, matrix: Tensor) -> None:
        right = F.normalize(matrix.mT @ self.left, dim=0)
        self.left.copy_(F.normalize(matrix @ right, dim=0))


def normalize_spectrally(network: nn.Module, rng: torch.Generator) -> None:
    """Put every weight of ``network`` with two or more dimensions under spectral normalization."""
    for module in list(network.modules()):
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim >= 2:
            parametrize.register_parametrization(module, "weight", SpectralNorm(weight, rng))
