"""The classifiers of a utility study, by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.errors import ConfigError
from lungan.models.pixels import to_floats
from lungan.scores.domain_network import DomainNetwork, working_size
from lungan.scores.encoding import in_channels_last

CLASSIFIERS = ("small", "resnet18")


class Resnet18(nn.Module):
    """torchvision's ResNet-18, untrained, with the 3x3 stem that small images need.

    As the small network it sees images averaged down to at most 64 pixels.
    Source: He et al. 2016, arXiv:1512.03385; the stem as in their CIFAR networks.
    """

    def __init__(self, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        from lungan.scores.vision import torchvision

        self.working_size = working_size(image_size)
        self.inner = torchvision.models.resnet18(weights=None, num_classes=num_classes)
        self.inner.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.inner.maxpool = nn.Identity()

    def preprocess(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) uint8 -> (B, C, S, S) float32 in [-1, 1]."""
        if images.shape[2:] != (self.working_size, self.working_size):
            images = F.adaptive_avg_pool2d(images.float(), self.working_size)
        return to_floats(images)

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.inner(inputs)
        return logits, logits.float()


Classifier = DomainNetwork | Resnet18


def build_classifier(
    name: str, image_size: int, channels: int, num_classes: int, seed: int
) -> Classifier:
    """With weights drawn from ``seed``; torch's global random state is left as it was.

    Raises: ConfigError for an unknown name.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(f"--classifier must be one of {', '.join(CLASSIFIERS)}, got {name}")
    kind = DomainNetwork if name == "small" else Resnet18
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the GPUs, which are not forked here.
        torch.default_generator.manual_seed(seed)
        network: Classifier = kind(image_size, channels, num_classes)
    in_channels_last(network)
    return network
