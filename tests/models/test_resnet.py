from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lungan.config import presets
from lungan.config.training import StagedDiscriminatorConfig, StagedGeneratorConfig
from lungan.models.build import build_discriminator, build_generator
from lungan.models.resnet import DownBlock, UpBlock


def generator_config(width: int = 8) -> StagedGeneratorConfig:
    config: StagedGeneratorConfig = presets.load("generator", "resnet")
    config.width = width
    return config


def discriminator_config(width: int = 8) -> StagedDiscriminatorConfig:
    config: StagedDiscriminatorConfig = presets.load("discriminator", "resnet")
    config.width = width
    return config


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64, 128])
def test_every_size_and_channel_count(size: int, channels: int) -> None:
    generator = build_generator(generator_config(), size, channels)
    discriminator = build_discriminator(discriminator_config(), size, channels)
    images = generator(torch.randn(3, 100))
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    logits = discriminator(images)
    assert logits.shape == (3,)
    logits.sum().backward()
    for parameter in [*generator.parameters(), *discriminator.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_widths_follow_the_stages() -> None:
    generator = build_generator(generator_config(32), 64, 1)
    outputs = [block.refined.weight.shape[0] for block in generator.blocks]  # type: ignore[union-attr]
    assert outputs == [128, 64, 32]
    discriminator = build_discriminator(discriminator_config(32), 128, 1)
    outputs = [block.second.weight.shape[0] for block in discriminator.blocks]  # type: ignore[union-attr]
    assert outputs == [32, 64, 128, 256, 256]


def test_discriminator_treats_images_one_by_one() -> None:
    discriminator = build_discriminator(discriminator_config(), 28, 1)
    images = torch.randn(5, 1, 28, 28)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(discriminator(images), alone, rtol=1e-4, atol=1e-5)


def test_without_a_change_a_block_resizes_by_its_shortcut() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 6, 6)
    up = UpBlock(8, 16, generator_config(), None, rng)
    down = DownBlock(8, 16, discriminator_config(), rng, halves=True, of_images=False)
    torch.nn.init.zeros_(up.refined.weight)
    torch.nn.init.zeros_(down.second.weight)
    nearest = F.interpolate(F.conv2d(features, up.shortcut.weight), scale_factor=2)
    torch.testing.assert_close(up(features, None), nearest)
    pooled = F.avg_pool2d(F.conv2d(features, down.shortcut.weight), 2)
    torch.testing.assert_close(down(features), pooled)


def test_logits_start_at_a_moderate_size() -> None:
    for size in (28, 64):
        discriminator = build_discriminator(discriminator_config(32), size, 1)
        logits = discriminator(torch.randn(64, 1, size, size))
        assert 0.01 < float(logits.detach().abs().mean()) < 10
