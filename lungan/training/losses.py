"""Adversarial losses: functions of logits alone, computed in float32."""

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
        return verdicts.detach().float().sign().mean()


def bce_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy, real and fake each a mean of their own, added.

    Source: Goodfellow et al. 2014, eq. 1.
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def bce_generator_loss(fake_logits: Tensor) -> Tensor:
    """The non-saturating loss. Source: Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake_logits.float()).mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logits beyond 1 and -1 are right enough. Source: Lim & Ye 2017, arXiv:1705.02894."""
    return F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()


def lsgan_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the squared distance of real logits from 1 and of fake ones from -1.

    Source: Mao et al. 2017, arXiv:1611.04076, eq. 8 with a = -1, b = 1.
    """
    real, fake = real_logits.float(), fake_logits.float()
    return ((real - 1).square().mean() + (fake + 1).square().mean()) / 2


def lsgan_generator_loss(fake_logits: Tensor) -> Tensor:
    """Half the squared distance from 0. Source: as the discriminator's, c = 0."""
    return fake_logits.float().square().mean() / 2


def wasserstein_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Source: Arjovsky et al. 2017, arXiv:1701.07875, eq. 2, as a loss."""
    return fake_logits.float().mean() - real_logits.float().mean()


def mean_generator_loss(fake_logits: Tensor) -> Tensor:
    """Minus the mean logit: the generator's side of hinge and Wasserstein losses."""
    return -fake_logits.float().mean()


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of each real logit's lead over the fake one that it is paired with.

    Source: Jolicoeur-Martineau 2019, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441, eq. 2.
    """
    return bce_generator_loss(real_logits.float() - fake_logits.float())


def bce(_: LossConfig) -> AdversarialLoss:
    """The non-saturating loss of the first GANs."""
    return AdversarialLoss(discriminator=bce_discriminator_loss, generator=bce_generator_loss)


def hinge(_: LossConfig) -> AdversarialLoss:
    """The hinge loss."""
    return AdversarialLoss(discriminator=hinge_discriminator_loss, generator=mean_generator_loss)


def lsgan(_: LossConfig) -> AdversarialLoss:
    """Least squares."""
    return AdversarialLoss(discriminator=lsgan_discriminator_loss, generator=lsgan_generator_loss)


def wgan_gp(_: LossConfig) -> AdversarialLoss:
    """Wasserstein's; what bounds the gradient is set by the config."""
    return AdversarialLoss(
        discriminator=wasserstein_discriminator_loss, generator=mean_generator_loss, centered=False
    )


def relativistic(_: LossConfig) -> AdversarialLoss:
    """Of pairs."""
    return AdversarialLoss(
        discriminator=relativistic_discriminator_loss,
        generator=bce_generator_loss,
        relativistic=True,
        centered=False,
    )


def build_loss(config: LossConfig) -> AdversarialLoss:
    """The pair of losses that ``loss.name`` asks for.

    Raises: ConfigError for an unknown name.
    """
    loss: AdversarialLoss = registry.builder("loss", config.name)(config)
    return loss
