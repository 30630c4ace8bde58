from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lungan import registry
from lungan.config import presets
from lungan.config.training import LeakyGeneratorConfig
from lungan.models.build import build_discriminator, build_generator
from lungan.models.fastgan import Excitation, HalvingBlock


def generator_config(width: int = 8) -> LeakyGeneratorConfig:
    config: LeakyGeneratorConfig = presets.load("generator", "fastgan")
    config.width = width
    return config


@pytest.mark.parametrize("choice", ["generator=fastgan", "discriminator=fastgan"])
def test_keeps_the_contract_of_networks(choice: str) -> None:
    registry.check(choice, width=8)


def test_widths_follow_the_stages_at_128_pixels() -> None:
    generator = build_generator(generator_config(16), 128, 1)
    outputs = [len(block.convolution.weight) for block in generator.enlarged]  # type: ignore[union-attr]
    assert outputs == [128, 64, 32, 16]
    config = presets.load("discriminator", "fastgan")
    discriminator = build_discriminator(config, 128, 1)
    outputs = [len(block.refining.weight) for block in discriminator.blocks]  # type: ignore[union-attr]
    assert outputs == [64, 128, 256]
    images = generator(torch.randn(3, 100))
    assert images.shape == (3, 1, 128, 128)
    assert discriminator(images).shape == (3,)


@pytest.mark.parametrize(("size", "connected"), [(28, 0), (32, 0), (64, 1), (128, 2)])
def test_a_small_map_excites_the_one_eight_times_as_large(size: int, connected: int) -> None:
    generator = build_generator(generator_config(), size, 1)
    excitations = list(generator.excitations)  # type: ignore[arg-type]
    assert len(excitations) == connected
    latents = torch.randn(2, 100)
    for excitation in excitations:
        before = generator(latents)
        with torch.no_grad():
            excitation.linear.bias.fill_(-5)  # factors near zero
        assert not torch.allclose(generator(latents), before, atol=1e-3)
        with torch.no_grad():
            excitation.linear.bias.zero_()
        torch.testing.assert_close(generator(latents), before)


def test_excitation_gives_a_factor_for_every_channel() -> None:
    excitation = Excitation(8, 5, torch.Generator().manual_seed(0))
    factors = excitation(torch.randn(3, 8, 7, 7))
    assert factors.shape == (3, 5, 1, 1)
    assert factors.min() > 0
    assert factors.max() < 1


def test_without_a_change_a_halving_block_is_a_mean_and_a_convolution() -> None:
    block = HalvingBlock(8, 16, 0.2, torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(block.refining.weight)
    features = torch.randn(2, 8, 6, 6)
    pooled = F.conv2d(F.avg_pool2d(features, 2), block.direct.weight)
    torch.testing.assert_close(block(features), F.leaky_relu(pooled, 0.2))


def test_discriminator_treats_images_one_by_one() -> None:
    config = presets.load("discriminator", "fastgan")
    config.width = 8
    discriminator = build_discriminator(config, 64, 1)
    images = torch.randn(4, 1, 64, 64)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(discriminator(images), alone, rtol=1e-4, atol=1e-5)
