"""Residual generator and discriminator: pre-activation blocks, enlarging before convolving.

Source: Miyato et al. 2018, arXiv:1802.05957, appendix B.4; identity mappings: He et al. 2016,
arXiv:1603.05027; nearest neighbours before a convolution: Odena et al. 2016, Distill.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.config.training import StagedDiscriminatorConfig, StagedGeneratorConfig, stages, widths
from lungan.models.layers import (
    Convolution,
    Discriminator,
    batch_norm,
    dense,
    doubled,
    unflattened,
)
from lungan.models.operations import RandomBits


class UpBlock(nn.Module):
    """(N, C, H, W) -> (N, C', 2H, 2W), the sum of a learned change and a 1x1 convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: StagedGeneratorConfig,
        num_classes: int | None,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [batch_norm(width, config, num_classes) for width in (in_channels, out_channels)]
        )
        self.enlarged = Convolution(in_channels, out_channels, rng)
        self.refined = Convolution(out_channels, out_channels, rng)
        self.shortcut = Convolution(in_channels, out_channels, rng, size=1)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        change: Tensor = F.relu_(self.norms[0](features, labels))
        change = self.enlarged(doubled(change))
        change = self.refined(F.relu_(self.norms[1](change, labels)))
        # A 1x1 convolution and nearest neighbours can change places, and it is smaller first.
        shortcut: Tensor = self.shortcut(features)
        return change + doubled(shortcut)


class ResnetGenerator(nn.Module):
    """Latents (N, latent_dim) to images (N, channels, size, size) in [-1, 1]."""

    def __init__(
        self,
        config: StagedGeneratorConfig,
        image_size: int,
        channels: int,
        rng: torch.Generator,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        num_stages, self.base_size = stages(image_size)
        falling = widths(config, num_stages)[::-1]
        falling.insert(0, falling[0])
        self.projection = dense(config.latent_dim, self.base_size**2 * falling[0], rng)
        self.blocks = nn.ModuleList(
            [UpBlock(*pair, config, num_classes, rng) for pair in itertools.pairwise(falling)]
        )
        self.norm = batch_norm(falling[-1], config, num_classes)
        self.to_images = Convolution(falling[-1], channels, rng)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64, of a conditional generator."""
        features = unflattened(self.projection(latents), self.base_size)
        for block in self.blocks:
            features = block(features, labels)
        features = F.relu_(self.norm(features, labels))
        return torch.tanh(self.to_images(features))


class DownBlock(nn.Module):
    """(N, C, H, W) -> (N, C', H/2, W/2), or the same size where ``halves`` is false."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: StagedDiscriminatorConfig,
        rng: torch.Generator,
        *,
        halves: bool,
        of_images: bool,
    ) -> None:
        super().__init__()
        self.leaky_slope = config.leaky_slope
        self.halves = halves
        self.of_images = of_images
        self.first = Convolution(in_channels, out_channels, rng)
        self.second = Convolution(out_channels, out_channels, rng)
        self.shortcut = Convolution(in_channels, out_channels, rng, size=1)

    def forward(self, features: Tensor) -> Tensor:
        # Images are no features yet: an activation would cut off what is dark.
        change = features if self.of_images else F.leaky_relu(features, self.leaky_slope)
        change = self.second(F.leaky_relu_(self.first(change), self.leaky_slope))
        if self.halves:
            change, features = F.avg_pool2d(change, 2), F.avg_pool2d(features, 2)
        shortcut: Tensor = self.shortcut(features)
        return change + shortcut


class ResnetDiscriminator(Discriminator):
    """Images (N, channels, size, size) in [-1, 1] to logits (N,). No layer mixes the images."""

    def __init__(
        self,
        config: StagedDiscriminatorConfig,
        image_size: int,
        channels: int,
        rng: torch.Generator,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        num_stages, base_size = stages(image_size)
        self.leaky_slope = config.leaky_slope
        self.scale = 1 / base_size
        rising = widths(config, num_stages)
        blocks = [DownBlock(channels, rising[0], config, rng, halves=True, of_images=True)]
        blocks += [
            DownBlock(*pair, config, rng, halves=True, of_images=False)
            for pair in itertools.pairwise(rising)
        ]
        blocks += [DownBlock(rising[-1], rising[-1], config, rng, halves=False, of_images=False)]
        self.blocks = nn.ModuleList(blocks)
        self.end_in(rising[-1], num_classes, rng)

    def features(self, images: Tensor, bits: RandomBits | None = None) -> Tensor:
        del bits  # there is no dropout here
        features = images
        for block in self.blocks:
            features = block(features)
        features = F.leaky_relu_(features, self.leaky_slope)
        # Summed as in the source, but over the side: as large at 7x7 as at 8x8 positions.
        return features.sum((2, 3)) * self.scale
