"""Gradients of gradient penalties, by the convolutions' own second derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.config import presets
from lungan.models import layers
from lungan.models.build import build_discriminator
from lungan.models.operations import convolution, no_kernel_gradients
from lungan.training.regularizers import gradient_penalties

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


def test_equal_those_of_pytorchs_own_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    network = discriminator("dcgan")
    found = penalty_gradients(network, low=False)
    monkeypatch.setattr(layers, "convolution", F.conv2d)
    assert relative_error(found, penalty_gradients(network, low=False)) < 1e-5


@pytest.mark.parametrize(("name", "limit"), [("dcgan", 0.05), ("fastgan", 0.06), ("resnet", 0.05)])
def test_bfloat16_changes_less_than_another_batch(name: str, limit: float) -> None:
    network = discriminator(name)
    wanted = penalty_gradients(network, low=False)
    error = relative_error(penalty_gradients(network, low=True), wanted)
    assert 0 < error < limit
    assert 3 * error < relative_error(penalty_gradients(network, low=False, batch=1), wanted)


def test_kernels_get_gradients_again_after_a_failure_inside() -> None:
    with pytest.raises(ZeroDivisionError), no_kernel_gradients():
        raise ZeroDivisionError
    weight = torch.randn(4, 4, 3, 3, requires_grad=True)
    torch.autograd.backward(convolution(torch.randn(1, 4, 8, 8), weight, None, 1, 1).sum())
    assert weight.grad is not None
