"""Which encoders a scoring uses, why another can't be had, and building them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lungan import registry
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, DataError, WeightsError
from lungan.scores.inception_weights import find_weights

__all__ = ["Encoded", "Encoder", "build", "resolve"]


AUTOMATIC = ("inception", "domain")
"""What ``auto`` stands for, as far as they can be had."""


def resolve(config: ScoreConfig) -> tuple[list[str], dict[str, str]]:
    """The names of the encoders to use, and the reason for each wanted one that can't be had.

    ``auto`` is Inception and the in-domain encoder. Weights may be downloaded here, so that what a
    run will lack is known before it trains.

    Raises: WeightsError where ``score.inception_weights`` is given and cannot be used, or Inception
    is required and cannot be had; ConfigError where it is required and not asked for.
    """
    wanted = [
        name for given in config.encoders for name in (AUTOMATIC if given == "auto" else [given])
    ]
    if config.require_inception and "inception" not in wanted:
        raise ConfigError(
            "score.require_inception=true needs auto or inception in score.encoders, got "
            f"{config.encoders}"
        )
    names: list[str] = []
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(wanted):
        reason = _missing(name, config)
        if reason is None:
            names.append(name)
        else:
            reasons[name] = reason
    return names, reasons


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


def _missing(name: str, config: ScoreConfig) -> str | None:
    """Why this encoder cannot be had, or None."""
    if name == "inception":
        try:
            find_weights(config.inception_weights)
        except WeightsError as error:
            # A file that was named and cannot be used is a mistake, not a lack.
            if config.require_inception or config.inception_weights is not None:
                raise
            return str(error)
    elif name == "efficientnet_lite2":
        from lungan.scores import efficientnet

        if missing := efficientnet.missing_packages():
            return efficientnet.missing_reason(missing)
    return None


@dataclass(frozen=True)
class Encoded:
    """features: (N, D) float32. logits: (N, K) float32, before softmax."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]


class Encoder(Protocol):
    """A fixed network in whose features and classes images are compared.

    weights_hash: SHA-256 (64 hex digits) of the weights, which tells two encoders apart.
    notes: what a reader of its scores should know, such as precision and own accuracy.
    """

    @property
    def name(self) -> str: ...
    @property
    def weights_hash(self) -> str: ...
    @property
    def feature_dim(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def encode(
        self,
        images: NDArray[np.uint8] | Tensor,
        batch_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> Encoded:
        """Features and logits of images: (N, C, H, W) uint8 on any device, C 1 or 3, N at least 1.

        progress: called after every batch with the number of images in it, as tqdm's ``update``.

        Raises: DataError for images of another dtype or shape.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class NetworkEncoder:
    """An Encoder around ``network``: (B, C, H, W) uint8 -> (features, logits) on ``device``.

    max_batch_size: beyond it, a larger batch takes memory and gains no speed.
    """

    name: str
    weights_hash: str
    feature_dim: int
    num_classes: int
    notes: tuple[str, ...]
    network: nn.Module
    device: torch.device
    max_batch_size: int

    def encode(
        self,
        images: NDArray[np.uint8] | Tensor,
        batch_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> Encoded:
        """See ``Encoder.encode``.

        Raises: WeightsError where the network gives non-finite numbers.
        """
        _check_images(images)
        pixels = torch.as_tensor(images)
        # Kept on the device until all are done, so that no batch waits for the one before.
        features = torch.empty((len(pixels), self.feature_dim), device=self.device)
        logits = torch.empty((len(pixels), self.num_classes), device=self.device)
        step = min(batch_size, self.max_batch_size)
        with torch.inference_mode():
            for start in range(0, len(pixels), step):
                batch = pixels[start : start + step].to(self.device)
                end = start + len(batch)
                features[start:end], logits[start:end] = self.network(batch)
                if progress is not None:
                    progress(len(batch))
        encoded = Encoded(features.cpu().numpy(), logits.cpu().numpy())
        if not (np.isfinite(encoded.features).all() and np.isfinite(encoded.logits).all()):
            raise WeightsError(
                f"the {self.name} encoder gives non-finite features: its weights are damaged "
                f"(hash {self.weights_hash[:8]})"
            )
        return encoded


def precision_note(dtype: torch.dtype) -> str:
    return "computed in bf16" if dtype == torch.bfloat16 else "computed in fp32"


def _check_images(images: NDArray[np.uint8] | Tensor) -> None:
    shape = tuple(images.shape)
    if str(images.dtype) not in ("uint8", "torch.uint8"):
        raise DataError(f"images to encode must be uint8 from 0 to 255, got {images.dtype}")
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        raise DataError(f"images to encode must be (N, 1 or 3, H, W) with N >= 1, got {shape}")
