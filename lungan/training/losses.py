"""Adversarial losses: functions of logits alone, computed in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lungan.config import LossConfig
from lungan.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialLoss:
    """A pair of losses, each a mean over the batch.

    discriminator: of (real logits (N,), fake logits (N,)).
    generator: of fake logits (N,).
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def bce_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy, real and fake each a mean of their own, added.

    Source: Goodfellow et al. 2014, eq. 1.
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def bce_generator_loss(fake_logits: Tensor) -> Tensor:
    """The non-saturating loss. Source: Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake_logits.float()).mean()


LOSSES = {
    "bce": AdversarialLoss(discriminator=bce_discriminator_loss, generator=bce_generator_loss)
}


def build_loss(config: LossConfig) -> AdversarialLoss:
    """The pair of losses that ``loss.name`` asks for.

    Raises: ConfigError for an unknown name.
    """
    if config.name not in LOSSES:
        raise ConfigError(
            f"loss.name must be one of {', '.join(sorted(LOSSES))}, got {config.name}"
        )
    return LOSSES[config.name]
