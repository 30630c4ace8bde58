"""Stacked networks beside the modules that they stand for, in float64: equal but for rounding."""

from __future__ import annotations

import pytest
import torch

from lungan.config import presets
from lungan.models.build import build_discriminator
from lungan.training.stacked.networks import StackedDiscriminator, StackedWeights

NUM_RUNS, NUM = 3, 5


@pytest.mark.parametrize("hidden_width", [0, 24])
def test_each_discriminator_gives_its_modules_logits_and_gradients(hidden_width: int) -> None:
    config = presets.load("discriminator", "dcgan")
    config.width, config.max_width, config.hidden_width = 8, 32, hidden_width
    rng = torch.Generator().manual_seed(0)
    modules = [build_discriminator(config, 28, 1, rng).double() for _ in range(NUM_RUNS)]
    weights = StackedWeights(modules)
    images = torch.randn(NUM_RUNS, NUM, 28, 28, generator=rng, dtype=torch.float64)
    stacked = StackedDiscriminator(config, modules[0])
    logits = stacked(weights.parameters, images.transpose(0, 1), None)
    gradients = torch.autograd.grad(logits.sum(), list(weights.parameters.values()))
    for run, module in enumerate(modules):
        alone = module(images[run].unsqueeze(1))
        torch.testing.assert_close(logits[run], alone, rtol=0, atol=1e-13)
        wanted = torch.autograd.grad(alone.sum(), list(module.parameters()))
        for gradient, theirs in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient[run], theirs, rtol=0, atol=1e-13)
