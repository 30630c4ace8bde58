"""Generator and discriminator for a few hundred images of 64 pixels and more.

Source: Liu et al. 2021, arXiv:2101.04775 (FastGAN): nearest neighbours before a convolution,
skip-layer excitation, by which a small map scales the channels of a large one, and a discriminator
of halving blocks with two ways. Other than there, activations are leaky ReLUs, as gated linear
units are slow on CPUs, no noise is injected, and the discriminator has no decoder, no
normalization, so that it judges images one by one, and a dense layer that sees the whole image.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.config.training import FastganDiscriminatorConfig, LeakyGeneratorConfig, stages, widths
from lungan.models.layers import (
    Convolution,
    Discriminator,
    DownConvolution,
    batch_norm,
    dense,
    doubled,
    unflattened,
)
from lungan.models.operations import RandomBits

EXCITATION_SIDE = 4
"""Rows and columns that skip-layer excitation pools a map to."""
STAGES_BETWEEN = 3
"""How often a map doubles between the two that skip-layer excitation connects."""


class NormedBlock(nn.Module):
    """3x3 convolution, batch norm, leaky ReLU: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: LeakyGeneratorConfig,
        num_classes: int | None,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.leaky_slope = config.leaky_slope
        self.convolution = Convolution(in_channels, out_channels, rng)
        self.norm = batch_norm(out_channels, config, num_classes)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        return F.leaky_relu_(self.norm(self.convolution(features), labels), self.leaky_slope)


class Excitation(nn.Module):
    """A factor from 0 to 1 for every channel of a large map, (N, C', 1, 1), from a small map."""

    def __init__(self, in_channels: int, out_channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.hidden = dense(in_channels * EXCITATION_SIDE**2, out_channels, rng)
        self.linear = dense(out_channels, out_channels, rng)

    def forward(self, small: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(small, EXCITATION_SIDE).flatten(1)
        factors = torch.sigmoid(self.linear(F.silu(self.hidden(pooled))))
        return factors[:, :, None, None]


class FastganGenerator(nn.Module):
    """Latents (N, latent_dim) to images (N, channels, size, size) in [-1, 1]."""

    def __init__(
        self,
        config: LeakyGeneratorConfig,
        image_size: int,
        channels: int,
        rng: torch.Generator,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        num_stages, self.base_size = stages(image_size)
        falling = widths(config, num_stages + 1)[::-1]
        num_features = self.base_size**2 * falling[0]
        self.projection = dense(config.latent_dim, num_features, rng, bias=False)
        self.base = NormedBlock(falling[0], falling[0], config, num_classes, rng)
        self.enlarged = nn.ModuleList(
            [NormedBlock(*pair, config, num_classes, rng) for pair in itertools.pairwise(falling)]
        )
        self.refined = nn.ModuleList(
            [NormedBlock(width, width, config, num_classes, rng) for width in falling[1:-1]]
        )
        connected = zip(falling, falling[STAGES_BETWEEN:], strict=False)
        self.excitations = nn.ModuleList([Excitation(*pair, rng) for pair in connected])
        self.to_images = Convolution(falling[-1], channels, rng)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64, of a conditional generator."""
        features = self.base(unflattened(self.projection(latents), self.base_size), labels)
        maps = [features]
        for stage, enlarged in enumerate(self.enlarged):
            features = enlarged(doubled(features), labels)
            if stage < len(self.refined):
                features = self.refined[stage](features, labels)
            if stage + 1 >= STAGES_BETWEEN:
                before = stage + 1 - STAGES_BETWEEN
                features = features * self.excitations[before](maps[before])
            maps.append(features)
        return torch.tanh(self.to_images(features))


class HalvingBlock(nn.Module):
    """(N, C, 2H, 2W) -> (N, C', H, W): two convolutions beside a mean of 2x2 pixels."""

    def __init__(
        self, in_channels: int, out_channels: int, leaky_slope: float, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.leaky_slope = leaky_slope
        self.halving = DownConvolution(in_channels, out_channels, rng)
        self.refining = Convolution(out_channels, out_channels, rng)
        self.direct = Convolution(in_channels, out_channels, rng, size=1)

    def forward(self, features: Tensor) -> Tensor:
        change = self.refining(F.leaky_relu_(self.halving(features), self.leaky_slope))
        direct = self.direct(F.avg_pool2d(features, 2))
        return F.leaky_relu_(change + direct, self.leaky_slope)


class FastganDiscriminator(Discriminator):
    """Images (N, channels, size, size) in [-1, 1] to logits (N,). No layer mixes the images."""

    def __init__(
        self,
        config: FastganDiscriminatorConfig,
        image_size: int,
        channels: int,
        rng: torch.Generator,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        num_stages, base_size = stages(image_size)
        self.leaky_slope = config.leaky_slope
        rising = widths(config, num_stages)
        self.first = DownConvolution(channels, rising[0], rng)
        self.blocks = nn.ModuleList(
            [HalvingBlock(*pair, config.leaky_slope, rng) for pair in itertools.pairwise(rising)]
        )
        self.hidden = dense(base_size**2 * rising[-1], config.hidden_width, rng)
        self.end_in(config.hidden_width, num_classes, rng)

    def features(self, images: Tensor, bits: RandomBits | None = None) -> Tensor:
        del bits  # there is no dropout here
        features = F.leaky_relu_(self.first(images), self.leaky_slope)
        for block in self.blocks:
            features = block(features)
        features = features.permute(0, 2, 3, 1).flatten(1)
        return F.leaky_relu_(self.hidden(features), self.leaky_slope)
