from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lungan.config import LossConfig
from lungan.errors import ConfigError
from lungan.training.losses import bce_discriminator_loss, bce_generator_loss, build_loss


def test_bce_at_zero_logits() -> None:
    zeros = torch.zeros(5)
    assert float(bce_discriminator_loss(zeros, zeros)) == pytest.approx(2 * math.log(2))
    assert float(bce_generator_loss(zeros)) == pytest.approx(math.log(2))


def test_bce_is_pytorchs_cross_entropy() -> None:
    real, fake = torch.randn(7), torch.randn(7)
    entropy = F.binary_cross_entropy_with_logits
    wanted = entropy(real, torch.ones(7)) + entropy(fake, torch.zeros(7))
    torch.testing.assert_close(bce_discriminator_loss(real, fake), wanted)
    torch.testing.assert_close(bce_generator_loss(fake), entropy(fake, torch.ones(7)))


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_bce_is_linear_far_out(logit: float) -> None:
    logits = torch.full((3,), logit, dtype=torch.bfloat16)
    loss = bce_discriminator_loss(logits, logits)
    assert loss.dtype == torch.float32
    assert float(loss) == 200
    assert float(bce_generator_loss(logits)) == max(-logit, 0)


def test_unknown_loss_is_refused() -> None:
    config = LossConfig(name="hinges", update="alternating", discriminator_updates=1)
    with pytest.raises(ConfigError, match=r"loss\.name must be one of .*bce.*, got hinges"):
        build_loss(config)
