"""What every encoder is: a network that turns uint8 images into features and logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lungan.device import has_native_bf16
from lungan.errors import DataError, WeightsError


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


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it natively, else float32.

    Emulated bfloat16 is slower than float32 and buys nothing.
    """
    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def in_channels_last(network: nn.Module) -> nn.Module:
    """The network with its kernels laid out as CPU and GPU convolve fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def precision_note(dtype: torch.dtype) -> str:
    return "computed in bf16" if dtype == torch.bfloat16 else "computed in fp32"


def _check_images(images: NDArray[np.uint8] | Tensor) -> None:
    shape = tuple(images.shape)
    if str(images.dtype) not in ("uint8", "torch.uint8"):
        raise DataError(f"images to encode must be uint8 from 0 to 255, got {images.dtype}")
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        raise DataError(f"images to encode must be (N, 1 or 3, H, W) with N >= 1, got {shape}")
