"""Encoders: networks in whose features images are compared, by name, and the features they give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from lungan import registry
from lungan.config import ScoreConfig
from lungan.data.cache import read_arrays
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, DataError, WeightsError
from lungan.files import cache_folder, cached
from lungan.scores import catalogue
from lungan.scores.weights import find_efficientnet, find_inception

VERSION = 2
"""Part of every key of the cache: raised when the same images would give other numbers."""

AUTOMATIC = ("inception", "domain")
"""What ``auto`` stands for, as far as they can be had."""


@dataclass(frozen=True)
class Encoded:
    """features: (N, D) float32. logits: (N, K) float32, before softmax."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A fixed network in whose features and classes images are compared.

    weights_hash: SHA-256 (64 hex digits) of the weights, which tells two encoders apart.
    notes: what a reader of its scores should know, such as precision and own accuracy.
    network: (B, C, H, W) uint8 on ``device`` -> (features, logits), (B, feature_dim) and
    (B, num_classes). max_batch_size: beyond it, a larger batch takes memory and gains no speed.
    """

    name: str
    weights_hash: str
    feature_dim: int
    num_classes: int
    notes: tuple[str, ...]
    network: nn.Module
    device: torch.device
    max_batch_size: int = 256

    def encode(self, images: NDArray[np.uint8] | Tensor, batch_size: int) -> Encoded:
        """Features and logits of images: (N, C, H, W) uint8 on any device, C 1 or 3, N at least 1.

        Raises: DataError for images of another dtype or shape, WeightsError where the network gives
        non-finite numbers.
        """
        shape = tuple(images.shape)
        if str(images.dtype) not in ("uint8", "torch.uint8"):
            raise DataError(f"images to encode must be uint8 from 0 to 255, got {images.dtype}")
        if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
            raise DataError(f"images to encode must be (N, 1 or 3, H, W) with N >= 1, got {shape}")
        pixels = torch.as_tensor(images)
        # Kept on the device until all are done, so that no batch waits for the one before.
        features = torch.empty((len(pixels), self.feature_dim), device=self.device)
        logits = torch.empty((len(pixels), self.num_classes), device=self.device)
        step = min(batch_size, self.max_batch_size)
        starts = tqdm(
            range(0, len(pixels), step), f"images in {self.name}", leave=False, disable=None
        )
        with torch.inference_mode():
            for start in starts:
                part = slice(start, start + step)
                features[part], logits[part] = self.network(pixels[part].to(self.device))
        encoded = Encoded(features.cpu().numpy(), logits.cpu().numpy())
        if not (np.isfinite(encoded.features).all() and np.isfinite(encoded.logits).all()):
            raise WeightsError(
                f"the {self.name} encoder gives non-finite features: its weights are damaged "
                f"(hash {self.weights_hash[:8]})"
            )
        return encoded


def resolve(config: ScoreConfig) -> tuple[list[str], dict[str, str]]:
    """The names of the encoders to use, and the reason for each wanted one that can't be had.

    ``auto`` is Inception and the in-domain encoder. Weights may be downloaded here, so that what a
    run will lack is known before it trains.

    Raises: WeightsError where ``score.inception_weights`` is given and cannot be used, or Inception
    is required and cannot be had; ConfigError where it is required and not asked for, or where a
    score of ``score.extra`` has the name of one of lungan's own.
    """
    for name in filter(catalogue.is_own, config.extra):
        raise ConfigError(
            f"score.extra={name} has the name of a score of lungan's own; register the plug-in's "
            "score under another name"
        )
    wanted = [
        name for given in config.encoders for name in (AUTOMATIC if given == "auto" else [given])
    ]
    if config.require_inception and "inception" not in wanted:
        raise ConfigError(
            "score.require_inception=true needs auto or inception in score.encoders, got "
            f"{config.encoders}"
        )
    reasons: dict[str, str] = {}
    for name in wanted:
        try:
            if name == "inception":
                find_inception(config.inception_weights)
            elif name == "efficientnet_lite2":
                find_efficientnet()
        except WeightsError as error:
            # A file that was named and cannot be used is a mistake, not a lack.
            named = config.require_inception or config.inception_weights is not None
            if name == "inception" and named:
                raise
            reasons[name] = str(error)
    return [name for name in dict.fromkeys(wanted) if name not in reasons], reasons


def build(name: str, config: ScoreConfig, image_set: ImageSet, device: torch.device) -> Encoder:
    """The encoder of this name. The in-domain one is trained on ``image_set`` or read from cache.

    image_set: all splits and classes, whatever the generator trained on.

    Raises: WeightsError where weights cannot be had, DataError where the in-domain encoder is at
    chance, ConfigError for an unknown name.
    """
    encoder: Encoder = registry.builder("encoder", name)(config, image_set, device)
    return encoder


def build_all(
    names: Sequence[str], config: ScoreConfig, image_set: ImageSet, device: torch.device
) -> tuple[list[Encoder], dict[str, str]]:
    """The encoders of these names, and the reason for each that these images leave unfit.

    Raises: WeightsError, ConfigError as ``build`` does.
    """
    built: list[Encoder] = []
    reasons: dict[str, str] = {}
    for name in names:
        try:
            built.append(build(name, config, image_set, device))
        except DataError as error:
            reasons[name] = str(error)
    return built, reasons


def hash_of(*parts: Any) -> str:
    """Hash (64 hex digits) of plain values."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


def key_of(images: ImageSet, encoder: Encoder) -> str:
    """Hash (64 hex digits) of the images and of the encoder with its precision."""
    return hash_of(images.content_hash, encoder.name, encoder.weights_hash, *encoder.notes)


def encode_real(images: ImageSet, encoder: Encoder, batch_size: int) -> Encoded:
    """Features and logits of all images, from the cache where they are there."""
    return cached(
        cache_folder() / "features" / f"{encoder.name}-{key_of(images, encoder)}.npz",
        lambda path: Encoded(**read_arrays(path)),
        lambda: encoder.encode(images.images, batch_size),
        lambda file, found: np.savez(file, features=found.features, logits=found.logits),
    )
