"""Adversarial losses: functions of float32 logits alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lungan import registry
from lungan.config import LossConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialLoss:
    """A pair of losses, each a mean over the batch.

    discriminator: of (real logits (N,), fake logits (N,)).
    generator: of fake logits (N,); of fake minus real logits where ``relativistic``.
    centered: a logit of zero means undecided, so that its sign is a verdict.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    relativistic: bool = False
    centered: bool = True

    def of_generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The generator's loss, whether or not it looks at real logits."""
        return self.generator(fake_logits - real_logits if self.relativistic else fake_logits)

    def overfitting(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Share of real images taken for real less share of those not: 1 is overfitting, 0 none.

        Where zero is no border, a real image is taken for real that beats its fake one.

        Source: Karras et al. 2020, arXiv:2006.06676, r_t of eq. 1.
        """
        verdicts = real_logits if self.centered else real_logits - fake_logits
        return verdicts.detach().sign().mean()


def cross_entropy(logits: Tensor) -> Tensor:
    """Of calling every image real, mean; of calling them generated where the logits are negated."""
    return F.softplus(-logits).mean()


def minus_mean(logits: Tensor) -> Tensor:
    return -logits.mean()


def bce(_: LossConfig) -> AdversarialLoss:
    """Binary cross-entropy, real and fake each a mean of their own, added; the generator's is the
    non-saturating one.

    Source: Goodfellow et al. 2014, eq. 1 and section 3.
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: cross_entropy(real) + cross_entropy(-fake),
        generator=cross_entropy,
    )


def hinge(_: LossConfig) -> AdversarialLoss:
    """Logits beyond 1 and -1 are right enough. Source: Lim & Ye 2017, arXiv:1705.02894."""
    return AdversarialLoss(
        discriminator=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        generator=minus_mean,
    )


def lsgan(_: LossConfig) -> AdversarialLoss:
    """Half the squared distance of real logits from 1 and of fake ones from -1; the generator's is
    half that of fake ones from 0.

    Source: Mao et al. 2017, arXiv:1611.04076, eq. 8 with a = -1, b = 1, c = 0.
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: (
            ((real - 1).square().mean() + (fake + 1).square().mean()) / 2
        ),
        generator=lambda fake: fake.square().mean() / 2,
    )


def wgan_gp(_: LossConfig) -> AdversarialLoss:
    """Wasserstein's; what bounds the gradient is set by the config.

    Source: Arjovsky et al. 2017, arXiv:1701.07875, eq. 2, as a loss.
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: fake.mean() - real.mean(),
        generator=minus_mean,
        centered=False,
    )


def relativistic(_: LossConfig) -> AdversarialLoss:
    """Cross-entropy of each real logit's lead over the fake one that it is paired with.

    Source: Jolicoeur-Martineau 2019, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, eq. 2.
    """
    return AdversarialLoss(
        discriminator=lambda real, fake: cross_entropy(real - fake),
        generator=cross_entropy,
        relativistic=True,
        centered=False,
    )


def build_loss(config: LossConfig) -> AdversarialLoss:
    """The pair of losses that ``loss.name`` asks for.

    Raises: ConfigError for an unknown name.
    """
    loss: AdversarialLoss = registry.builder("loss", config.name)(config)
    return loss
