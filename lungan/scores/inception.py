"""torchvision's InceptionV3 as a feature extractor: 2048 pool features and 1000 ImageNet logits.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision"; network
and weights are torchvision's ``inception_v3`` with ``IMAGENET1K_V1``. Its numbers are not those of
the TensorFlow graph of 2015 that pytorch-fid and torch-fidelity use.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lungan.classifiers.network import in_channels_last
from lungan.classifiers.vision import torchvision
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.device import native_dtype
from lungan.models.pixels import to_floats
from lungan.scores.encoders import NetworkEncoder, precision_note
from lungan.scores.inception_weights import PUBLISHED_HASH, InceptionWeights, find_weights
from lungan.scores.weights import load_into, read_tensors

NAME = "inception"
SIZE = 299
FEATURE_DIM = 2048
NUM_CLASSES = 1000

# More images at once leave the cores' caches: slower on a CPU, no faster on a GPU.
_MAX_BATCH_SIZE = {"cpu": 32, "cuda": 256}


def build_inception(config: ScoreConfig, _: ImageSet, device: torch.device) -> NetworkEncoder:
    """Raises: WeightsError."""
    return load_encoder(find_weights(config.inception_weights), device, config.inception_precision)


# The runs of a sweep are scored with one network, read and folded once.
@functools.lru_cache(maxsize=1)
def load_encoder(
    weights: InceptionWeights, device: torch.device, precision: str = "auto"
) -> NetworkEncoder:
    """The encoder with these weights.

    precision: ``fp32``, ``bf16``, or ``auto``: bf16 where ``device`` computes in it natively.

    Raises: WeightsError where the file's keys or shapes are not InceptionV3's.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16}
    dtype = named.get(precision) or native_dtype(device)
    network = FoldedInception(load_network(weights.path), dtype)
    return NetworkEncoder(
        name=NAME,
        weights_hash=weights.hash,
        feature_dim=FEATURE_DIM,
        num_classes=NUM_CLASSES,
        notes=_notes(weights, dtype),
        network=network.to(device),
        device=device,
        max_batch_size=_MAX_BATCH_SIZE[device.type],
    )


def load_network(path: Path) -> nn.Module:
    """torchvision's own network with the weights of ``path``, in evaluation mode.

    The auxiliary classifier, which only training uses, is left out. ``transform_input`` is off:
    ``preprocess`` holds it.

    Raises: WeightsError where the file's keys or shapes are not InceptionV3's.
    """
    tensors = {
        name: value
        for name, value in read_tensors(path).items()
        if not name.startswith("AuxLogits.")
    }
    # On the meta device nothing is drawn or allocated only to be overwritten.
    with torch.device("meta"):
        network: nn.Module = torchvision.models.inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=False
        )
    load_into(network, tensors, path)
    return network.eval().requires_grad_(False)


def preprocess(images: Tensor) -> Tensor:
    """images: (B, C, H, W) uint8 -> (B, C, 299, 299) float32 in [-1, 1].

    Straight to 299, bilinear and antialiased: torchvision's own preset resizes to 342 and cuts the
    rim off, which on a radiograph is part of the picture. ImageNet's normalization followed by
    ``transform_input`` is this one line for every channel: ((x - m) / s) * (s / 0.5) + (m - 0.5) /
    0.5 = 2 x - 1.
    """
    resized = F.interpolate(
        images.float(), size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
    )
    return to_floats(resized)


class FoldedInception(nn.Module):
    """uint8 images -> (features, logits), both float32, through an Inception3 that is folded.

    Batch norm goes into the convolutions, memory is channels-last, the trunk computes in ``dtype``,
    pooling and the classifier in float32. The given network is consumed.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        fold_batch_norm(network)
        self.trunk = _trunk(network)
        first = self.trunk[0].get_submodule("conv")
        assert isinstance(first, nn.Conv2d)
        # The three channels of a grey image are equal after preprocessing too, so that the first
        # convolution may see one: its kernels summed over the channels.
        self.grey = _summed_over_channels(first)
        for module in (self.trunk, self.grey):
            in_channels_last(module.to(dtype))
        self.classifier = network.get_submodule("fc")
        self.dtype = dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        inputs = preprocess(images).to(dtype=self.dtype, memory_format=torch.channels_last)
        first = self.grey if images.shape[1] == 1 else self.trunk[0]
        features = self.trunk[1:](first(inputs)).float().mean(dim=(2, 3))
        return features, self.classifier(features)


def fold_batch_norm(network: nn.Module) -> None:
    """Fold every ``conv`` and ``bn`` pair of torchvision's BasicConv2d, in place."""
    for module in network.modules():
        if isinstance(module, torchvision.models.inception.BasicConv2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()


def _trunk(network: nn.Module) -> nn.Sequential:
    """All that stands before the average pool, in the order of torchvision's forward."""
    names = [name for name, _ in network.named_children()]
    return nn.Sequential(*(network.get_submodule(name) for name in names[: names.index("avgpool")]))


def _summed_over_channels(convolution: nn.Conv2d) -> nn.Module:
    assert convolution.bias is not None
    grey = nn.Conv2d(1, convolution.out_channels, 3, stride=2)
    grey.weight = nn.Parameter(convolution.weight.sum(dim=1, keepdim=True), requires_grad=False)
    grey.bias = nn.Parameter(convolution.bias.clone(), requires_grad=False)
    return nn.Sequential(grey, nn.ReLU(inplace=True))


def _notes(weights: InceptionWeights, dtype: torch.dtype) -> tuple[str, ...]:
    notes = ["torchvision's inception_v3", precision_note(dtype)]
    if not weights.hash.startswith(PUBLISHED_HASH):
        notes.append(f"weights are not torchvision's {PUBLISHED_HASH}, but {weights.hash[:8]}")
    return tuple(notes)
