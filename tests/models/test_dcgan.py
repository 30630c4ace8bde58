"""The DCGAN networks: counts, shapes, conventions. Equality with Keras: test_keras_parity.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lungan.config.training import DcganDiscriminatorConfig, LeakyGeneratorConfig
from lungan.errors import ConfigError
from lungan.models.build import build_discriminator, build_generator
from lungan.models.layers import BatchNorm, DownConvolution, UpConvolution, glorot_uniform


def generator_config(name: str = "dcgan", width: int = 64) -> LeakyGeneratorConfig:
    return LeakyGeneratorConfig(
        name=name,
        latent_dim=100,
        width=width,
        max_width=256,
        leaky_slope=0.3,
        batch_norm_momentum=0.01,
        batch_norm_epsilon=1e-3,
    )


def discriminator_config(
    name: str = "dcgan", width: int = 64, hidden_width: int = 0
) -> DcganDiscriminatorConfig:
    return DcganDiscriminatorConfig(
        name=name,
        width=width,
        max_width=256,
        leaky_slope=0.3,
        dropout=0.3,
        hidden_width=hidden_width,
    )


def count(tensors: object) -> int:
    return sum(tensor.numel() for tensor in tensors)  # type: ignore[attr-defined]


def test_parameters_at_28_are_the_reports() -> None:
    generator = build_generator(generator_config(), 28, 1)
    discriminator = build_discriminator(discriminator_config(), 28, 1)
    assert count(generator.parameters()) == 2_305_472
    assert count(generator.parameters()) + count(generator.buffers()) == 2_330_944
    assert count(discriminator.parameters()) == 212_865


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64, 128])
def test_every_size_and_channel_count(size: int, channels: int) -> None:
    generator = build_generator(generator_config(width=8), size, channels)
    discriminator = build_discriminator(discriminator_config(width=8), size, channels)
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
    generator = build_generator(generator_config(), 128, 1)
    shapes = [tuple(p.shape[:2]) for p in generator.parameters() if p.ndim == 4]
    assert shapes == [(256, 256), (256, 256), (256, 128), (128, 64), (64, 1)]
    discriminator = build_discriminator(discriminator_config(), 128, 1)
    shapes = [tuple(p.shape[:2]) for p in discriminator.parameters() if p.ndim == 4]
    assert shapes == [(64, 1), (128, 64), (256, 128), (256, 256)]


def test_discriminator_treats_images_one_by_one() -> None:
    discriminator = build_discriminator(discriminator_config(), 28, 1)
    images = torch.randn(6, 1, 28, 28)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(discriminator(images), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hidden_width", [0, 32])
def test_only_a_hidden_layer_sees_how_far_places_fit_together(hidden_width: int) -> None:
    discriminator = build_discriminator(discriminator_config(hidden_width=hidden_width), 28, 1)
    rng = torch.Generator().manual_seed(0)
    left, right = torch.zeros(2, 4, 1, 28, 28)
    left[..., :7] = torch.rand(4, 1, 28, 7, generator=rng)
    right[..., -7:] = torch.rand(4, 1, 28, 7, generator=rng)
    with torch.no_grad():
        none, one, other, both = map(discriminator, (0 * left, left, right, left + right))
    # Zero where the logit is a sum of what is seen on the left and of what is seen on the right.
    interaction = (both - one - other + none).abs().mean()
    spread = (one - none).abs().mean()
    if hidden_width:
        assert interaction > 0.05 * spread
    else:
        assert interaction < 1e-5 * spread


def test_same_generator_gives_the_same_weights() -> None:
    def weights(seed: int) -> Tensor:
        network = build_generator(generator_config(), 28, 1, torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_glorot_limits_are_keras() -> None:
    weight = torch.empty(128, 64, 5, 5)
    glorot_uniform(weight, torch.Generator().manual_seed(0))
    limit = (6 / (25 * (128 + 64))) ** 0.5
    assert 0.999 * limit < weight.abs().max() <= limit
    assert weight.std() == pytest.approx(limit / 3**0.5, rel=0.01)


def test_batch_norm_keeps_the_biased_variance() -> None:
    norm = BatchNorm(2, momentum=0.25, epsilon=1e-3)
    features = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    normalized = norm(features)
    # Batch mean (2, 2), biased variance (1, 4).
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(norm.running_variance, torch.tensor([1.0, 1.75]))
    expected = torch.tensor([[-1, -1], [1, 1]]) * torch.tensor([1 / 1.001, 4 / 4.001]).sqrt()
    torch.testing.assert_close(normalized, expected)


def test_batch_norm_takes_a_single_image() -> None:
    norm = BatchNorm(3, momentum=0.01, epsilon=1e-3)
    torch.testing.assert_close(norm(torch.randn(1, 3)), torch.zeros(1, 3), rtol=0, atol=1e-5)


def test_up_convolution_is_the_adjoint_of_down_convolution() -> None:
    rng = torch.Generator().manual_seed(0)
    up = UpConvolution(4, 3, rng).double()
    down = DownConvolution(3, 4, rng).double()
    down.weight = nn.Parameter(up.weight.detach().flip(2, 3))
    low, high = torch.randn(2, 4, 7, 7).double(), torch.randn(2, 3, 14, 14).double()
    torch.testing.assert_close(
        (up(low) * high).sum(), (low * down(high.flip(2, 3)).flip(2, 3)).sum()
    )


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"generator\.name must be one of dcgan, fastgan, resnet, got vae"
    ):
        build_generator(generator_config(name="vae"), 28, 1)
    with pytest.raises(
        ConfigError, match=r"discriminator\.name must be one of dcgan, fastgan, resnet, got vae"
    ):
        build_discriminator(discriminator_config(name="vae"), 28, 1)
    with pytest.raises(ConfigError, match=r"data\.size must be 7 or 8 times .* got 30"):
        build_generator(generator_config(), 30, 1)
