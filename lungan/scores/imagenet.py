"""Two ImageNet classifiers as feature extractors: InceptionV3 and EfficientNet-Lite2.

Inception is torchvision's ``inception_v3`` with ``IMAGENET1K_V1``: 2048 pool features, 1000 logits.
Its numbers are not those of the TensorFlow graph of 2015 that pytorch-fid and torch-fidelity use.
EfficientNet-Lite2 (1280 features, 1000 logits) comes with its weights as a package, so that it
needs no download. Its numbers compare with no one's Inception figures.

Sources: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision"; Tan and
Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (the Lite
variant has no squeeze-and-excitation and clipped activations).
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lungan.classifiers.network import in_channels_last
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.device import native_dtype
from lungan.models.sampling import to_floats
from lungan.scores.encoders import Encoder
from lungan.scores.weights import (
    INCEPTION_HASH,
    find_efficientnet,
    find_inception,
    load_into,
    read_tensors,
)

INCEPTION_SIZE = 299
EFFICIENTNET_SIZE = 260

# More images at once leave the cores' caches: slower on a CPU, no faster on a GPU.
_MAX_BATCH_SIZE = {"cpu": 32, "cuda": 256}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_inception(config: ScoreConfig, _: ImageSet, device: torch.device) -> Encoder:
    """In float32 or bfloat16, as ``score.inception_precision`` says or ``device`` computes in.

    Raises: WeightsError where there are no weights or they are not InceptionV3's.
    """
    dtype = _DTYPES.get(config.inception_precision) or native_dtype(device)
    return load_inception(*find_inception(config.inception_weights), device, dtype)


def build_efficientnet_lite2(_: ScoreConfig, __: ImageSet, device: torch.device) -> Encoder:
    """Raises: WeightsError where the package is missing or its file is damaged."""
    return load_efficientnet(*find_efficientnet(), device)


# The runs of a sweep are scored with one network, read and folded once.
@functools.lru_cache(maxsize=1)
def load_inception(path: Path, sha256: str, device: torch.device, dtype: torch.dtype) -> Encoder:
    """torchvision's own network with the weights of ``path``, whose hash is ``sha256``.

    The auxiliary classifier, which only training uses, is left out. ``transform_input`` is off:
    ``for_inception`` holds it.

    Raises: WeightsError where the file's keys or shapes are not InceptionV3's.
    """
    from lungan.classifiers.vision import torchvision

    precision = next(name for name, one in _DTYPES.items() if one == dtype)
    notes = ["torchvision's inception_v3", f"computed in {precision}"]
    if not sha256.startswith(INCEPTION_HASH):
        notes.append(f"weights are not torchvision's {INCEPTION_HASH}, but {sha256[:8]}")
    # On the meta device nothing is drawn or allocated only to be overwritten.
    with torch.device("meta"):
        network = torchvision.models.inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=False
        )
    tensors = {k: v for k, v in read_tensors(path).items() if not k.startswith("AuxLogits.")}
    load_into(network, tensors, path)
    fold_batch_norm(network)
    children = dict(network.named_children())
    before_pool = itertools.takewhile(lambda name: name != "avgpool", children)
    trunk = nn.Sequential(*(children[name] for name in before_pool))
    # The three channels of a grey image are equal after preprocessing too, so that the first
    # convolution may see one: its kernels summed over the channels.
    grey = copy.deepcopy(trunk[0])
    kernels = grey.get_parameter("conv.weight")
    kernels.data = kernels.sum(dim=1, keepdim=True)
    folded = FoldedNetwork(for_inception, trunk, children["fc"], dtype, grey)
    return _encoder("inception", sha256, notes, folded, 2048, device)


@functools.lru_cache(maxsize=1)
def load_efficientnet(path: Path, sha256: str, device: torch.device) -> Encoder:
    """The package's network with its weights, in float32 on every device.

    In bf16 its clipped, depthwise layers lose too much.

    Raises: WeightsError where keys or shapes do not fit.
    """
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):
        network = EfficientNet.from_name("efficientnet-lite2")
    load_into(network, read_tensors(path), path)
    fold_batch_norm(network)
    children = dict(network.named_children())
    clip = children["_swish"]
    trunk = nn.Sequential(
        *(children["_conv_stem"], clip),
        *children["_blocks"].children(),
        *(children["_conv_head"], clip),
    )
    folded = FoldedNetwork(for_efficientnet, trunk, children["_fc"])
    notes = ["EfficientNet-Lite2, compares with itself only", "computed in fp32"]
    return _encoder("efficientnet_lite2", sha256, notes, folded, 1280, device)


def _encoder(
    name: str,
    sha256: str,
    notes: list[str],
    network: nn.Module,
    feature_dim: int,
    device: torch.device,
) -> Encoder:
    return Encoder(
        name=name,
        weights_hash=sha256,
        feature_dim=feature_dim,
        num_classes=1000,
        notes=tuple(notes),
        network=network.to(device),
        device=device,
        max_batch_size=_MAX_BATCH_SIZE[device.type],
    )


def for_inception(images: Tensor) -> Tensor:
    """images: (B, C, H, W) uint8 -> (B, C, 299, 299) float32 in [-1, 1].

    Straight to 299, bilinear and antialiased: torchvision's own preset resizes to 342 and cuts the
    rim off, which on a radiograph is part of the picture. ImageNet's normalization followed by
    ``transform_input`` is this one line for every channel: ((x - m) / s) * (s / 0.5) + (m - 0.5) /
    0.5 = 2 x - 1.
    """
    return to_floats(_resize(images, INCEPTION_SIZE))


def for_efficientnet(images: Tensor) -> Tensor:
    """images: (B, C, H, W) uint8, red first -> (B, 3, 260, 260) float32 in [-0.99, 1]."""
    return ((_resize(images, EFFICIENTNET_SIZE) - 127) / 128).expand(-1, 3, -1, -1)


def _resize(images: Tensor, size: int) -> Tensor:
    return F.interpolate(
        images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )


class FoldedNetwork(nn.Module):
    """uint8 images -> (features, logits), both float32, with batch norm in the convolutions.

    Memory is channels-last. ``trunk``, all that stands before the average pool, computes in
    ``dtype``; pooling and ``classifier`` in float32. ``grey``: the trunk's first layer for images
    of one channel; None where ``preprocess`` gives three whatever it gets.
    """

    def __init__(
        self,
        preprocess: Callable[[Tensor], Tensor],
        trunk: nn.Sequential,
        classifier: nn.Module,
        dtype: torch.dtype = torch.float32,
        grey: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.trunk = in_channels_last(trunk.to(dtype))
        self.grey = None if grey is None else in_channels_last(grey.to(dtype))
        self.classifier = classifier
        self.dtype = dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.preprocess(images).to(dtype=self.dtype, memory_format=torch.channels_last)
        first = self.trunk[0]
        if inputs.shape[1] == 1 and self.grey is not None:
            first = self.grey
        features = self.trunk[1:](first(inputs)).float().mean(dim=(2, 3))
        return features, self.classifier(features)


def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm into the convolution that it stands behind, in place."""
    for module in network.modules():
        for (name, layer), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
