"""What one training step tells."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """Float32 scalars on the training device, of before the update (the last one, where the
    discriminator has several). Logits are means over the batch, gradient norms Euclidean."""

    loss_generator: Tensor
    loss_discriminator: Tensor
    logit_real: Tensor
    logit_fake: Tensor
    grad_norm_generator: Tensor
    grad_norm_discriminator: Tensor

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls))
