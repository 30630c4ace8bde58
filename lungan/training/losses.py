"""Adversarial losses, which are functions of float32 logits alone, and the penalties on gradients
and logits that are added to the discriminator's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lungan import registry
from lungan.config import LossConfig

Logits = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits (N,), each image by itself."""


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


def squared_gradients(logits_of: Logits, images: Tensor) -> Tensor:
    """Squared length (N,) of each logit's gradient with respect to its image.

    It can be differentiated with respect to the weights.
    """
    images = images.detach().requires_grad_()
    logits = logits_of(images)
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.flatten(1).square().sum(1)


def zero_centered_penalty(logits_of: Logits, images: Tensor) -> Tensor:
    """Half the mean squared gradient: R1 at real images, R2 at fake ones, without the weight.

    Source: Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406, eq. 9 and 10.
    """
    return squared_gradients(logits_of, images).mean() / 2


def one_centered_penalty(
    logits_of: Logits, real_images: Tensor, fake_images: Tensor, mixing: Tensor
) -> Tensor:
    """Mean squared distance from 1 of the gradient's length, ``mixing`` (N,) of the way from fake
    to real images.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """
    images = torch.lerp(fake_images, real_images, mixing[:, None, None, None])
    # A gradient of exactly zero has no direction to grow in; the root's slope there is infinite.
    lengths = squared_gradients(logits_of, images).clamp_min(1e-12).sqrt()
    penalty: Tensor = (lengths - 1).square().mean()
    return penalty


def gradient_penalties(
    config: LossConfig,
    logits_of: Logits,
    real_images: Tensor,
    fake_images: Tensor,
    mixing: Tensor,
) -> Tensor:
    """The sum of the gradient penalties that ``config`` has, weighted for the steps without them.

    Source of the rare steps: Karras et al. 2020, arXiv:1912.04958, appendix B.
    """
    total: Tensor = torch.zeros((), device=real_images.device)
    if config.r1 and config.r1 == config.r2:
        # The mean over both halves of one batch is half the sum of both means.
        both = torch.cat([real_images, fake_images])
        total = total + 2 * config.r1 * zero_centered_penalty(logits_of, both)
    else:
        if config.r1:
            total = total + config.r1 * zero_centered_penalty(logits_of, real_images)
        if config.r2:
            total = total + config.r2 * zero_centered_penalty(logits_of, fake_images)
    if config.gradient_penalty:
        total = total + config.gradient_penalty * one_centered_penalty(
            logits_of, real_images, fake_images, mixing
        )
    weighted: Tensor = total * config.penalty_every_steps
    return weighted


def has_gradient_penalty(config: LossConfig, step: int) -> bool:
    """Whether step number ``step``, from 0, is one with gradient penalties."""
    some = config.r1 or config.r2 or config.gradient_penalty
    return bool(some) and step % config.penalty_every_steps == 0


def lecam_penalty(real_logits: Tensor, fake_logits: Tensor, means: Tensor) -> Tensor:
    """Mean squared distance of logits from the other side's running mean.

    means: (2,), of real and of fake logits.

    Source: Tseng et al. 2021, arXiv:2104.03310, R_LC.
    """
    of_real, of_fake = means.detach()
    real_part: Tensor = (real_logits - of_fake).square().mean()
    fake_part: Tensor = (fake_logits - of_real).square().mean()
    return real_part + fake_part


def running_means(
    means: Tensor, real_logits: Tensor, fake_logits: Tensor, share: float | Tensor
) -> Tensor:
    """The running means (2,) with ``share`` of one more batch's in them."""
    new = torch.stack([real_logits.detach().mean(), fake_logits.detach().mean()])
    return torch.lerp(means, new, share)


def share_of_batch(decay: float, step: int) -> float:
    """What batch number ``step``, from 0, is of the running means.

    Plain means of all batches until these are as many as ``decay`` remembers, so that nothing of
    the zeros at the start is left in them.
    """
    return max(1 - decay, 1 / (step + 1))
