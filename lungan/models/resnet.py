"""Residual generator and discriminator: pre-activation blocks, enlarging before convolving.

Source: Miyato et al. 2018, arXiv:1802.05957, appendix B.4; identity mappings: He et al. 2016,
arXiv:1603.05027; nearest neighbours before a convolution: Odena et al. 2016, Distill.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.config.training import StagedDiscriminatorConfig, StagedGeneratorConfig, stages
from lungan.models.activation import leaky_relu
from lungan.models.conditioning import ClassProjection, batch_norm, normalized
from lungan.models.convolution import convolution
from lungan.models.dropout import RandomBits
from lungan.models.layers import glorot_uniform


def doubled(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) by nearest neighbours."""
    return F.interpolate(features, scale_factor=2, mode="nearest")


class Convolution(nn.Module):
    """3x3 or 1x1 convolution that keeps height and width."""

    def __init__(
        self, in_channels: int, out_channels: int, rng: torch.Generator, size: int = 3
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        glorot_uniform(self.weight, rng)

    def forward(self, features: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2
        return convolution(features, self.weight, self.bias, stride=1, padding=padding)


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
        momentum, epsilon = config.batch_norm_momentum, config.batch_norm_epsilon
        self.norms = nn.ModuleList(
            [
                batch_norm(channels, momentum, epsilon, num_classes)
                for channels in (in_channels, out_channels)
            ]
        )
        self.enlarged = Convolution(in_channels, out_channels, rng)
        self.refined = Convolution(out_channels, out_channels, rng)
        self.shortcut = Convolution(in_channels, out_channels, rng, size=1)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        change: Tensor = F.relu_(normalized(self.norms[0], features, labels))
        change = self.enlarged(doubled(change))
        change = self.refined(F.relu_(normalized(self.norms[1], change, labels)))
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
        num_stages, base_size = stages(image_size)
        self.latent_dim = config.latent_dim
        self.base_size = base_size
        doublings = range(num_stages - 1, -1, -1)
        widths = [min(config.width * 2**k, config.max_width) for k in doublings]
        widths.insert(0, widths[0])
        self.projection = nn.Linear(config.latent_dim, base_size**2 * widths[0])
        glorot_uniform(self.projection.weight, rng)
        nn.init.zeros_(self.projection.bias)
        self.blocks = nn.ModuleList(
            [UpBlock(*pair, config, num_classes, rng) for pair in itertools.pairwise(widths)]
        )
        self.norm = batch_norm(
            widths[-1], config.batch_norm_momentum, config.batch_norm_epsilon, num_classes
        )
        self.to_images = Convolution(widths[-1], channels, rng)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64, of a conditional generator."""
        side = self.base_size
        features = self.projection(latents).view(len(latents), side, side, -1).permute(0, 3, 1, 2)
        for block in self.blocks:
            features = block(features, labels)
        features = F.relu_(normalized(self.norm, features, labels))
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
        change: Tensor = (
            features if self.of_images else leaky_relu(features, self.leaky_slope, inplace=False)
        )
        change = self.second(leaky_relu(self.first(change), self.leaky_slope))
        if self.halves:
            change, features = F.avg_pool2d(change, 2), F.avg_pool2d(features, 2)
        shortcut: Tensor = self.shortcut(features)
        return change + shortcut


class ResnetDiscriminator(nn.Module):
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
        widths = [min(config.width * 2**k, config.max_width) for k in range(num_stages)]
        blocks = [DownBlock(channels, widths[0], config, rng, halves=True, of_images=True)]
        blocks += [
            DownBlock(*pair, config, rng, halves=True, of_images=False)
            for pair in itertools.pairwise(widths)
        ]
        blocks += [DownBlock(widths[-1], widths[-1], config, rng, halves=False, of_images=False)]
        self.blocks = nn.ModuleList(blocks)
        self.linear = nn.Linear(widths[-1], 1)
        glorot_uniform(self.linear.weight, rng)
        nn.init.zeros_(self.linear.bias)
        self.classes = (
            None if num_classes is None else ClassProjection(widths[-1], num_classes, rng)
        )

    def forward(
        self, images: Tensor, bits: RandomBits | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """bits: as in other discriminators; there is no dropout here."""
        del bits
        features = images
        for block in self.blocks:
            features = block(features)
        features = leaky_relu(features, self.leaky_slope)
        # Summed as in the source, but over the side: as large at 7x7 as at 8x8 positions.
        pooled = features.sum((2, 3)) * self.scale
        logits: Tensor = self.linear(pooled).squeeze(1)
        if self.classes is not None:
            assert labels is not None, "a conditional discriminator needs labels"
            logits = logits + self.classes(pooled, labels)
        return logits
