"""Gradients of gradient penalties in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lungan.config import presets
from lungan.models.build import build_discriminator
from lungan.training.losses import gradient_penalties

Gradients = list[Tensor]


def discriminator(name: str) -> nn.Module:
    config = presets.load("discriminator", name)
    config.width = 16
    if name == "dcgan":
        config.hidden_width = 16
    return build_discriminator(config, 28, 1)


def penalty_gradients(network: nn.Module, *, low: bool, batch: int = 0) -> Gradients:
    config = presets.load("loss", "relativistic")
    config.gradient_penalty = 10.0
    rng = torch.Generator().manual_seed(batch)
    real, fake = torch.randn(2, 8, 1, 28, 28, generator=rng)

    def logits_of(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits: Tensor = network(images)
        return logits.float()

    mixing = torch.rand(8, generator=rng)
    penalty = gradient_penalties(config, logits_of, real, fake, mixing)
    found = torch.autograd.grad(penalty, list(network.parameters()), materialize_grads=True)
    return list(found)


def relative_error(found: Gradients, wanted: Gradients) -> float:
    flat_found, flat_wanted = (torch.cat([g.flatten() for g in gs]) for gs in (found, wanted))
    return float((flat_found - flat_wanted).norm() / flat_wanted.norm())


@pytest.mark.parametrize(("name", "limit"), [("dcgan", 0.05), ("fastgan", 0.06), ("resnet", 0.05)])
def test_bfloat16_changes_less_than_another_batch(name: str, limit: float) -> None:
    network = discriminator(name)
    wanted = penalty_gradients(network, low=False)
    error = relative_error(penalty_gradients(network, low=True), wanted)
    assert 0 < error < limit
    assert 3 * error < relative_error(penalty_gradients(network, low=False, batch=1), wanted)
