"""Layers in Keras' conventions: SAME padding, glorot-uniform kernels, biased batch statistics."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.models.convolution import block_kernel, convolution, from_blocks

KERNEL_SIZE = 5


def glorot_uniform(weight: Tensor, rng: torch.Generator) -> None:
    """Fill ``weight`` in place; its first two dimensions are channels, the rest the kernel.

    Source: Glorot & Bengio 2010, eq. 16, with fans counted as Keras does (channels x kernel).
    """
    receptive_field = math.prod(weight.shape[2:])
    limit = math.sqrt(6 / (receptive_field * (weight.shape[0] + weight.shape[1])))
    with torch.no_grad():
        weight.uniform_(-limit, limit, generator=rng)


def dense(in_features: int, out_features: int, rng: torch.Generator) -> nn.Linear:
    """A linear layer with a glorot-uniform weight and a bias of zero."""
    layer = nn.Linear(in_features, out_features)
    glorot_uniform(layer.weight, rng)
    nn.init.zeros_(layer.bias)
    return layer


class BatchNorm(nn.Module):
    """Batch normalization whose running variance takes the biased batch variance, as Keras'.

    Serves (N, C) and (N, C, H, W). momentum: the new batch's share in the running statistics.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, momentum: float, epsilon: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                features,
                self.running_mean,
                self.running_variance,
                self.weight,
                self.bias,
                eps=self.epsilon,
            )
        # Without running statistics given, a batch of one image is allowed, as in Keras.
        normalized, mean, inverse_std = torch.native_batch_norm(
            features, self.weight, self.bias, None, None, True, 0.0, self.epsilon
        )
        with torch.no_grad():
            variance = inverse_std.pow(-2).sub_(self.epsilon)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance, self.momentum)
        return normalized


class DownConvolution(nn.Module):
    """5x5 convolution with stride 2: (N, C, 2H, 2W) -> (N, C', H, W).

    On images turned by 180 degrees, with a kernel turned likewise, it is Keras' SAME convolution,
    which pads one before and two after: turned, two before and one after, and of two after the
    last is never read. So no padded copy of the features has to be made.
    """

    def __init__(self, in_channels: int, out_channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, KERNEL_SIZE, KERNEL_SIZE))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        glorot_uniform(self.weight, rng)

    def forward(self, features: Tensor, scale: float = 1.0) -> Tensor:
        """scale: of the result, put into the kernel, which is smaller."""
        return convolution(features, self.weight * scale, self.bias * scale, stride=2, padding=2)


class TransposedConvolution(nn.Module):
    """5x5 transposed convolution without bias, stride 1, SAME padding.

    weight: (in, out, 5, 5) as in ``nn.ConvTranspose2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, KERNEL_SIZE, KERNEL_SIZE))
        glorot_uniform(self.weight, rng)

    def forward(self, features: Tensor) -> Tensor:
        # With stride 1 it is a convolution with the kernel turned by 180 degrees.
        turned = self.weight.flip(2, 3).transpose(0, 1)
        return convolution(features, turned, None, stride=1, padding=2)


class UpConvolution(TransposedConvolution):
    """The same with stride 2: (N, C, H, W) -> (N, C', 2H, 2W)."""

    def forward(self, features: Tensor) -> Tensor:
        # SAME crops one row and column before and two after.
        kernel = block_kernel(self.weight, before=1)
        return from_blocks(convolution(features, kernel, None, stride=1, padding=1))
