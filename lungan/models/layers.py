"""Layers in Keras' conventions: SAME padding, glorot-uniform kernels, biased batch statistics."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lungan.config.training import StagedGeneratorConfig
from lungan.models.operations import RandomBits, block_kernel, from_blocks

KERNEL_SIZE = 5


def glorot_uniform(weight: Tensor, rng: torch.Generator) -> None:
    """Fill ``weight`` in place; its first two dimensions are channels, the rest the kernel.

    Source: Glorot & Bengio 2010, eq. 16, with fans counted as Keras does (channels x kernel).
    """
    receptive_field = math.prod(weight.shape[2:])
    limit = math.sqrt(6 / (receptive_field * (weight.shape[0] + weight.shape[1])))
    with torch.no_grad():
        weight.uniform_(-limit, limit, generator=rng)


def dense(
    in_features: int, out_features: int, rng: torch.Generator, bias: bool = True
) -> nn.Linear:
    """A linear layer with a glorot-uniform weight and a bias of zero."""
    layer = nn.Linear(in_features, out_features, bias)
    glorot_uniform(layer.weight, rng)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def unflattened(features: Tensor, side: int) -> Tensor:
    """(N, side * side * C) to (N, C, side, side), channels-last without a copy, as in Keras."""
    return features.view(len(features), side, side, -1).permute(0, 3, 1, 2)


def doubled(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) by nearest neighbours."""
    return F.interpolate(features, scale_factor=2, mode="nearest")


class BatchNorm(nn.Module):
    """Batch normalization whose running variance takes the biased batch variance, as Keras'.

    Serves (N, C) and (N, C, H, W). momentum: the new batch's share in the running statistics.
    num_classes: None, or for a gain and a shift of each class besides, which start at none.

    Source of the latter: de Vries et al. 2017, arXiv:1707.00683; Dumoulin et al. 2017,
    arXiv:1610.07629.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(
        self, channels: int, momentum: float, epsilon: float, num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))
        if num_classes is not None:
            self.gains = nn.Parameter(torch.zeros(num_classes, channels))
            self.shifts = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels: (N,) int64, where there are classes."""
        normalized = self._normalized(features)
        if self.num_classes is None:
            return normalized
        assert labels is not None, "a conditional generator needs labels"
        shape = (len(features), -1) + (1,) * (features.ndim - 2)
        gains = 1 + F.embedding(labels, self.gains).view(shape)
        shifts = F.embedding(labels, self.shifts).view(shape)
        return torch.addcmul(shifts.to(normalized.dtype), normalized, gains.to(normalized.dtype))

    def _normalized(self, features: Tensor) -> Tensor:
        statistics = (self.running_mean, self.running_variance)
        if not self.training:
            return F.batch_norm(features, *statistics, self.weight, self.bias, eps=self.epsilon)
        # Without running statistics given, a batch of one image is allowed, as in Keras.
        normalized, mean, inverse_std = torch.native_batch_norm(
            features, self.weight, self.bias, None, None, True, 0.0, self.epsilon
        )
        with torch.no_grad():
            variance = inverse_std.pow(-2).sub_(self.epsilon)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance, self.momentum)
        return normalized


def batch_norm(channels: int, config: StagedGeneratorConfig, num_classes: int | None) -> BatchNorm:
    return BatchNorm(channels, config.batch_norm_momentum, config.batch_norm_epsilon, num_classes)


class Convolution(nn.Module):
    """Convolution of an odd ``size``, 3x3 or 1x1, that keeps height and width."""

    def __init__(
        self, in_channels: int, out_channels: int, rng: torch.Generator, size: int = 3
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        glorot_uniform(self.weight, rng)

    def forward(self, features: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2
        return F.conv2d(features, self.weight, self.bias, padding=padding)


class DownConvolution(Convolution):
    """5x5 convolution with stride 2: (N, C, 2H, 2W) -> (N, C', H, W).

    On images turned by 180 degrees, with a kernel turned likewise, it is Keras' SAME convolution,
    which pads one before and two after: turned, two before and one after, and of two after the
    last is never read. So no padded copy of the features has to be made.
    """

    def __init__(self, in_channels: int, out_channels: int, rng: torch.Generator) -> None:
        super().__init__(in_channels, out_channels, rng, KERNEL_SIZE)

    def forward(self, features: Tensor, scale: float = 1.0) -> Tensor:
        """scale: of the result, put into the kernel, which is smaller."""
        return F.conv2d(features, self.weight * scale, self.bias * scale, stride=2, padding=2)


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
        return F.conv2d(features, turned, padding=2)


class UpConvolution(TransposedConvolution):
    """The same with stride 2: (N, C, H, W) -> (N, C', 2H, 2W)."""

    def forward(self, features: Tensor) -> Tensor:
        return from_blocks(F.conv2d(features, block_kernel(self.weight), padding=1))


class ClassProjection(nn.Module):
    """How well features (N, F) fit their class: (N,), to be added to the logits.

    Source: Miyato & Koyama 2018, arXiv:1802.05637, eq. 3.
    """

    def __init__(self, num_features: int, num_classes: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        glorot_uniform(self.weight, rng)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return (F.embedding(labels, self.weight) * features).sum(1)


class Discriminator(nn.Module):
    """Features of every image by itself and a linear layer, to which the fit to a class is added
    where there are classes."""

    def features(self, images: Tensor, bits: RandomBits | None = None) -> Tensor:
        """Images (N, channels, size, size) in [-1, 1] to (N, num_features).

        bits: where dropout masks come from; None turns dropout off.
        """
        raise NotImplementedError

    def forward(
        self, images: Tensor, bits: RandomBits | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Logits (N,) of being real; bits: as ``features``. labels: (N,) int64, of a conditional
        discriminator."""
        features = self.features(images, bits)
        logits: Tensor = self.linear(features).squeeze(1)
        if self.classes is None:
            return logits
        assert labels is not None, "a conditional discriminator needs labels"
        fit: Tensor = self.classes(features, labels)
        return logits + fit

    def end_in(self, num_features: int, num_classes: int | None, rng: torch.Generator) -> None:
        """Make the last layers, which take ``num_features``."""
        self.linear = dense(num_features, 1, rng)
        self.classes = None
        if num_classes is not None:
            self.classes = ClassProjection(num_features, num_classes, rng)


class SpectralNorm(nn.Module):
    """What stands between a weight and its use: the weight over an estimate of its largest
    singular value, as a matrix (first dimension, the rest), better by a power iteration at each
    use in training.

    Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1.
    """

    left: Tensor

    def __init__(self, weight: Tensor, rng: torch.Generator) -> None:
        super().__init__()
        left = F.normalize(torch.randn(len(weight), generator=rng), dim=0)
        self.register_buffer("left", left.to(weight.dtype))
        with torch.no_grad():
            for _ in range(10):  # a good estimate from the first step on
                self._iterate(weight.flatten(1))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self._iterate(matrix)
            # A copy, which the next iteration leaves alone: gradients still need it.
            left = self.left.clone()
            right = F.normalize(matrix.detach().mT @ left, dim=0)
            return weight / (left @ (matrix @ right))

    def _iterate(self, matrix: Tensor) -> None:
        right = F.normalize(matrix.mT @ self.left, dim=0)
        self.left.copy_(F.normalize(matrix @ right, dim=0))


def normalize_spectrally(network: nn.Module, rng: torch.Generator) -> None:
    """Put every weight of ``network`` with two or more dimensions under spectral normalization."""
    for module in list(network.modules()):
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim >= 2:
            parametrize.register_parametrization(module, "weight", SpectralNorm(weight, rng))
