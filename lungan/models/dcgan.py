"""DCGAN generator and discriminator for any size that stages allows and 1 or 3 channels.

Source: Radford, Metz & Chintala 2016, in the form of TensorFlow's DCGAN tutorial (5x5 kernels,
leaky ReLU on both sides, dropout in the discriminator), which they equal at 28x28x1.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.config.training import DcganDiscriminatorConfig, LeakyGeneratorConfig, stages, widths
from lungan.models.layers import (
    Discriminator,
    DownConvolution,
    TransposedConvolution,
    UpConvolution,
    batch_norm,
    dense,
    unflattened,
)
from lungan.models.operations import RandomBits, leaky_dropout, survivors_scale


class DcganGenerator(nn.Module):
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
        self.leaky_slope = config.leaky_slope
        first, *others = widths(config, num_stages + 1)[::-1]
        num_features = self.base_size**2 * first
        self.projection = dense(config.latent_dim, num_features, rng, bias=False)
        self.projection_norm = batch_norm(num_features, config, num_classes)
        convolutions = [TransposedConvolution(first, others[0], rng)]
        convolutions += [UpConvolution(*pair, rng) for pair in itertools.pairwise(others)]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList([batch_norm(width, config, num_classes) for width in others])
        self.to_images = UpConvolution(others[-1], channels, rng)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64, of a conditional generator."""
        features = self.projection_norm(self.projection(latents), labels)
        features = unflattened(F.leaky_relu_(features, self.leaky_slope), self.base_size)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.leaky_relu_(norm(convolution(features), labels), self.leaky_slope)
        return torch.tanh(self.to_images(features))


class DcganDiscriminator(Discriminator):
    """Images (N, channels, size, size) in [-1, 1] to logits (N,) of being real.

    No layer mixes the images of a batch. Weights belong to features turned by 180 degrees.
    """

    def __init__(
        self,
        config: DcganDiscriminatorConfig,
        image_size: int,
        channels: int,
        rng: torch.Generator,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        num_stages, base_size = stages(image_size)
        self.leaky_slope = config.leaky_slope
        self.dropout = config.dropout
        all_channels = [channels, *widths(config, num_stages)]
        self.convolutions = nn.ModuleList(
            [DownConvolution(*pair, rng) for pair in itertools.pairwise(all_channels)]
        )
        num_features = base_size**2 * all_channels[-1]
        self.hidden = None
        if config.hidden_width:
            self.hidden = dense(num_features, config.hidden_width, rng)
            num_features = config.hidden_width
        self.end_in(num_features, num_classes, rng)

    def features(self, images: Tensor, bits: RandomBits | None = None) -> Tensor:
        features = images.flip(2, 3)  # as DownConvolution wants them
        for convolution in self.convolutions:
            if bits is None or self.dropout == 0:
                features = F.leaky_relu_(convolution(features), self.leaky_slope)
            else:
                # scale * leaky_relu(x) = leaky_relu(scale * x)
                features = convolution(features, survivors_scale(self.dropout))
                features = leaky_dropout(features, self.leaky_slope, self.dropout, bits)
        features = features.permute(0, 2, 3, 1).flatten(1)
        if self.hidden is not None:
            features = F.leaky_relu_(self.hidden(features), self.leaky_slope)
        return features
