"""DCGAN generator and discriminator for any size that stages allows and 1 or 3 channels.

Source: Radford, Metz & Chintala 2016, in the form of TensorFlow's DCGAN tutorial (5x5 kernels,
leaky ReLU on both sides, dropout in the discriminator), which they equal at 28x28x1.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from lungan.config.training import DcganDiscriminatorConfig, LeakyGeneratorConfig, stages
from lungan.models.activation import leaky_relu
from lungan.models.conditioning import ClassProjection, batch_norm, normalized
from lungan.models.dropout import RandomBits, leaky_dropout, survivors_scale
from lungan.models.layers import (
    BatchNorm,
    DownConvolution,
    TransposedConvolution,
    UpConvolution,
    dense,
    glorot_uniform,
)


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
        num_stages, base_size = stages(image_size)
        self.latent_dim = config.latent_dim
        self.leaky_slope = config.leaky_slope
        self.base_size = base_size
        widths = [min(config.width * 2**k, config.max_width) for k in range(num_stages, -1, -1)]
        num_features = base_size**2 * widths[0]
        self.projection = nn.Linear(config.latent_dim, num_features, bias=False)
        glorot_uniform(self.projection.weight, rng)
        self.projection_norm = self._norm(config, num_features, num_classes)
        convolutions = [TransposedConvolution(widths[0], widths[1], rng)]
        convolutions += [UpConvolution(*pair, rng) for pair in itertools.pairwise(widths[1:])]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList([self._norm(config, width, num_classes) for width in widths[1:]])
        self.to_images = UpConvolution(widths[-1], channels, rng)

    @staticmethod
    def _norm(config: LeakyGeneratorConfig, channels: int, num_classes: int | None) -> BatchNorm:
        momentum, epsilon = config.batch_norm_momentum, config.batch_norm_epsilon
        return batch_norm(channels, momentum, epsilon, num_classes)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64, of a conditional generator."""
        features = normalized(self.projection_norm, self.projection(latents), labels)
        features = leaky_relu(features, self.leaky_slope)
        # Features are laid out (height, width, channel), as in Keras: channels-last, no copy.
        side = self.base_size
        features = features.view(len(latents), side, side, -1).permute(0, 3, 1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = normalized(norm, convolution(features), labels)
            features = leaky_relu(features, self.leaky_slope)
        return torch.tanh(self.to_images(features))


class DcganDiscriminator(nn.Module):
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
        widths = [channels]
        widths += [min(config.width * 2**k, config.max_width) for k in range(num_stages)]
        self.convolutions = nn.ModuleList(
            [DownConvolution(*pair, rng) for pair in itertools.pairwise(widths)]
        )
        num_features = base_size**2 * widths[-1]
        self.hidden = None
        if config.hidden_width:
            self.hidden = dense(num_features, config.hidden_width, rng)
            num_features = config.hidden_width
        self.linear = dense(num_features, 1, rng)
        self.classes = (
            None if num_classes is None else ClassProjection(num_features, num_classes, rng)
        )

    def forward(
        self, images: Tensor, bits: RandomBits | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """bits: where dropout masks come from; None turns dropout off.

        labels: (N,) int64, of a conditional discriminator.
        """
        features = images.flip(2, 3)  # as DownConvolution wants them
        for convolution in self.convolutions:
            if bits is None or self.dropout == 0:
                features = leaky_relu(convolution(features), self.leaky_slope)
            else:
                # scale * leaky_relu(x) = leaky_relu(scale * x)
                features = convolution(features, survivors_scale(self.dropout))
                features = leaky_dropout(features, self.leaky_slope, self.dropout, bits)
        features = features.permute(0, 2, 3, 1).flatten(1)
        if self.hidden is not None:
            features = leaky_relu(self.hidden(features), self.leaky_slope)
        logits: Tensor = self.linear(features).squeeze(1)
        if self.classes is not None:
            assert labels is not None, "a conditional discriminator needs labels"
            logits = logits + self.classes(features, labels)
        return logits
