"""What one training step tells."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """Float32 scalars on the training device, of before the update (the last one, where the
    discriminator has several). Logits are means over the batch, gradient norms Euclidean.

    overfitting: from -1 to 1, see ``losses.AdversarialLoss``. penalty: the gradient penalties and
    LeCam's, weighted, in the discriminator's gradient but not in its loss; zero without any."""

    loss_generator: Tensor
    loss_discriminator: Tensor
    logit_real: Tensor
    logit_fake: Tensor
    overfitting: Tensor
    penalty: Tensor
    grad_norm_generator: Tensor
    grad_norm_discriminator: Tensor

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def of(cls, values: Tensor) -> StepOutcome:
        """values: (8,), as ``stacked`` gives them."""
        return cls(**dict(zip(cls.names(), values.unbind(), strict=True)))

    def stacked(self) -> Tensor:
        """(8,), in the order of ``names``; (8, R) of R runs."""
        return torch.stack([getattr(self, name) for name in self.names()])


class Step(Protocol):
    """One training step: both networks' updates from one batch."""

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> StepOutcome:
        """images: (N, C, H, W) uint8. labels: (N,) int64, of a conditional generator."""
        ...
