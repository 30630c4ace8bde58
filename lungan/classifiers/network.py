"""The networks that are trained as classifiers, for utility studies and the in-domain encoder."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.models.layers import Discriminator, dense
from lungan.models.sampling import to_floats

FEATURE_DIM = 128

Network = TypeVar("Network", bound=nn.Module)

_WIDTHS = (32, 64, 128)
_LARGEST_SIZE = 64
_LARGEST_SIZE_OF_FULL_STEM = 36


class Classifier(nn.Module, ABC):
    """uint8 images (B, C, H, W) -> features (B, D) and logits (B, K), both float32."""

    def preprocess(self, images: Tensor) -> Tensor:
        """images: uint8 -> float32 in [-1, 1], as ``classify`` takes them."""
        return to_floats(images)

    @abstractmethod
    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits. inputs: as ``preprocess`` gives them."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classify(self.preprocess(images))


class _AtWorkingSize(Classifier):
    """Larger images are averaged down to at most 64 pixels, so that every size costs about the
    same, and no detail finer than ``working_size`` is seen."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.working_size = working_size(image_size)

    def preprocess(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) uint8 -> (B, C, S, S) float32 in [-1, 1], S the working size."""
        if images.shape[2:] != (self.working_size, self.working_size):
            images = F.adaptive_avg_pool2d(images.float(), self.working_size)
        return super().preprocess(images)


class SmallNetwork(_AtWorkingSize):
    """Six convolutions with residual sums.

    Above a working size of 36 pixels the first convolution has stride 2.
    """

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__(image_size)
        stride = 1 if self.working_size <= _LARGEST_SIZE_OF_FULL_STEM else 2
        layers: list[nn.Module] = []
        num_inputs = channels
        for width in _WIDTHS:
            layers += [_convolution(num_inputs, width, stride), Residual(width)]
            num_inputs, stride = width, 2
        self.trunk = nn.Sequential(*layers)
        self.classifier = nn.Linear(FEATURE_DIM, num_classes)

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(inputs).float().mean(dim=(2, 3))
        return features, self.classifier(features)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = _convolution(width, width, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        changes: Tensor = self.inner(inputs)
        return inputs + changes


def working_size(image_size: int) -> int:
    """The size that the network sees: ``image_size`` over the least factor that makes it <= 64."""
    return image_size // math.ceil(image_size / _LARGEST_SIZE)


def _convolution(num_inputs: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_inputs, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


class Resnet18(_AtWorkingSize):
    """torchvision's ResNet-18, untrained, with the 3x3 stem that small images need.

    Source: He et al. 2016, arXiv:1512.03385; the stem as in their CIFAR networks.
    """

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__(image_size)
        from lungan.classifiers.vision import torchvision

        self.inner = torchvision.models.resnet18(weights=None, num_classes=num_classes)
        self.inner.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.inner.maxpool = nn.Identity()

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        *trunk, head = self.inner.children()
        features = nn.Sequential(*trunk)(inputs).flatten(1)
        return features.float(), head(features).float()


class OnDiscriminator(Classifier):
    """A discriminator without its last layer and dropout, and a new last layer, drawn from
    ``seed``. It sees images at their full size.

    Source: after Radford et al. 2016, arXiv:1511.06434, section 5, who leave the features as they
    are.
    """

    def __init__(self, discriminator: Discriminator, num_classes: int, seed: int) -> None:
        super().__init__()
        self.discriminator = discriminator
        rng = torch.Generator().manual_seed(seed)
        self.classifier = dense(discriminator.linear.in_features, num_classes, rng)

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.discriminator.features(inputs).float()
        return features, self.classifier(features)


CLASSIFIERS = {"small": SmallNetwork, "resnet18": Resnet18}


def build_classifier(
    name: str, image_size: int, channels: int, num_classes: int, seed: int
) -> Classifier:
    """A new ``CLASSIFIERS[name]``, its weights drawn from ``seed``; torch's global random state is
    left as it was."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the GPUs, which are not forked here.
        torch.default_generator.manual_seed(seed)
        network: Classifier = CLASSIFIERS[name](image_size, channels, num_classes)
    return in_channels_last(network)


def in_channels_last(network: Network) -> Network:
    """The network with its kernels laid out as CPU and GPU convolve fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
