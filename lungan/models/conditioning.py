"""Classes in the networks: one generator for all of them, and a discriminator that is told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.models.layers import BatchNorm, glorot_uniform


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a conditional generator, in the order of its labels, and the share of the
    training images that each has."""

    names: tuple[str, ...]
    shares: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.names)


class ConditionalBatchNorm(BatchNorm):
    """Batch normalization with a gain and a shift of each class, which start at none.

    Source: de Vries et al. 2017, arXiv:1707.00683; Dumoulin et al. 2017, arXiv:1610.07629.
    """

    def __init__(self, channels: int, momentum: float, epsilon: float, num_classes: int) -> None:
        super().__init__(channels, momentum, epsilon)
        self.gains = nn.Parameter(torch.zeros(num_classes, channels))
        self.shifts = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64."""
        assert labels is not None, "a conditional generator needs labels"
        normalized = super().forward(features)
        shape = (len(features), -1) + (1,) * (features.ndim - 2)
        gains = 1 + F.embedding(labels, self.gains).view(shape)
        shifts = F.embedding(labels, self.shifts).view(shape)
        return torch.addcmul(shifts.to(normalized.dtype), normalized, gains.to(normalized.dtype))


def batch_norm(
    channels: int, momentum: float, epsilon: float, num_classes: int | None
) -> BatchNorm:
    """Conditional where there are classes."""
    if num_classes is None:
        return BatchNorm(channels, momentum, epsilon)
    return ConditionalBatchNorm(channels, momentum, epsilon, num_classes)


def normalized(norm: nn.Module, features: Tensor, labels: Tensor | None) -> Tensor:
    """``features`` through ``norm``, which may be conditional or not."""
    result: Tensor = norm(features) if labels is None else norm(features, labels)
    return result


class ClassProjection(nn.Module):
    """How well features (N, F) fit their class: (N,), to be added to the logits.

    Source: Miyato & Koyama 2018, arXiv:1802.05637, eq. 3.
    """

    def __init__(self, num_features: int, num_classes: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        glorot_uniform(self.weight, rng)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return (F.embedding(labels, self.weight) * features).sum(1)
