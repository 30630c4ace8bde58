"""The pixel audit: generated images that are a training image, moved, brightened or blurred.

An encoder can be blind to what a copy changed: one that learned to see brightness takes a brighter
copy for another image. Here images are compared by the correlation of their pixels, which no
brightness or contrast changes, in a few principal components, which hold little noise and little of
what blur takes away; over mirroring, small shifts, rotations and crops.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lungan.scores.comparison import Rows
from lungan.scores.distances import Features
from lungan.scores.encoders import hash_of

NAME = "pixels"
"""What stands in the place of an encoder's name in keys."""
VERSION = 1
"""Raised when the same images would give other similarities."""

LARGEST_SIZE = 32
"""Larger images are averaged down to at most so many pixels: a copy's gist is coarse."""
MOST_COMPONENTS = 64
BATCH = 256

SHIFTS = (-2 / 28, -1 / 28, 0.0, 1 / 28, 2 / 28)
"""Along each axis, as shares of the image's side."""
DEGREES = (-10.0, -5.0, 5.0, 10.0)
SCALES = (0.86, 0.93, 1.07, 1.15)


class View(NamedTuple):
    """scale: below 1 magnifies. across, down: shifts, as shares of the image's side."""

    mirrored: bool = False
    degrees: float = 0.0
    scale: float = 1.0
    across: float = 0.0
    down: float = 0.0


VIEWS = tuple(
    View(mirrored, *movement)
    for mirrored in (False, True)
    for movement in (
        *((0.0, 1.0, across, down) for across, down in itertools.product(SHIFTS, SHIFTS)),
        *((degrees, 1.0, 0.0, 0.0) for degrees in DEGREES),
        *((0.0, scale, 0.0, 0.0) for scale in SCALES),
    )
)
"""The 66 ways in which an image is laid over the training images."""

DESCRIPTION: dict[str, Any] = {
    "weights_hash": hash_of(NAME, VERSION),
    "feature_dim": MOST_COMPONENTS,
    "num_classes": 0,
    "notes": [
        f"no network: correlation of pixels in {len(VIEWS)} views (mirrored, shifted, turned, "
        "cropped), at most as high for 99 % of held-out images"
    ],
}
"""What stands for the audit among the encoders of a result."""

KEY = "near_copies"


class PixelAudit:
    """How far images are from their most similar training image, in whatever view is nearest.

    training: (T, C, H, W) uint8, T at least 2, read in batches of 256; 64 floats are kept of each.
    """

    def __init__(self, training: NDArray[np.uint8]) -> None:
        width = _normalize(next(_small(training[:1]))).shape[1]
        total, squares = torch.zeros(width).double(), torch.zeros(width, width).double()
        for batch in _small(training):
            normalized = _normalize(batch).double()
            total += normalized.sum(dim=0)
            squares += normalized.T @ normalized
        mean = total / len(training)
        self._mean = mean.float()
        values, vectors = torch.linalg.eigh(squares / len(training) - torch.outer(mean, mean))
        kept = min(MOST_COMPONENTS, len(training) - 1)
        values, vectors = values[-kept:], vectors[:, -kept:]
        weights = values.clamp(min=0).sqrt()
        # Components with next to no variance hold rounding only.
        inverse = torch.where(weights > 1e-5 * weights.max(), 1 / weights, 0.0)
        self._components = torch.where(weights.max() > 0, vectors * inverse, 0.0).float()
        self._training = torch.cat(
            [self._features(_normalize(batch)) for batch in _small(training)]
        )

    def nearest(self, images: NDArray[np.uint8]) -> tuple[Features, Rows]:
        """Of images (N, C, H, W) uint8: 1 minus the greatest cosine, from 0 to 2, and the index of
        the training image that has it; both (N,)."""
        similarity, index = [], []
        for batch in _small(images):
            best, nearest = torch.full((len(batch),), -1.0), torch.zeros(len(batch)).long()
            for view in VIEWS:
                features = self._features(_normalize(_move(batch, view)))
                cosine, found = (features @ self._training.T).max(dim=1)
                nearest = torch.where(cosine > best, found, nearest)
                best = torch.where(cosine > best, cosine, best)
            similarity.append(best)
            index.append(nearest)
        return 1 - torch.cat(similarity).double().numpy(), torch.cat(index).numpy()

    def _features(self, normalized: Tensor) -> Tensor:
        """Unit vectors (B, 64) of normalized pixels; 0 for an image without contrast."""
        found = (normalized - self._mean) @ self._components
        found = torch.where(normalized.any(dim=1, keepdim=True), found, 0.0)
        return F.normalize(found, dim=1)


def _small(images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Batches (B, C, S, S) float32 of images averaged down to at most 32 pixels."""
    size = images.shape[-1] // math.ceil(images.shape[-1] / LARGEST_SIZE)
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).float()
        yield batch if size == images.shape[-1] else F.adaptive_avg_pool2d(batch, size)


def _normalize(images: Tensor) -> Tensor:
    """(B, C * S * S) with mean 0 and norm 1, so that brightness and contrast do not count."""
    flat = images.flatten(1)
    centered = flat - flat.mean(dim=1, keepdim=True)
    norm = centered.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-3, centered / norm, 0.0)


def _move(images: Tensor, view: View) -> Tensor:
    moved = images
    if view._replace(mirrored=False) != View():
        angle = math.radians(view.degrees)
        cosine, sine = math.cos(angle) * view.scale, math.sin(angle) * view.scale
        # affine_grid's coordinates run from -1 to 1 over the image.
        rows = [[cosine, -sine, 2 * view.across], [sine, cosine, 2 * view.down]]
        matrix = torch.tensor(rows).expand(len(images), 2, 3)
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved.flip(3) if view.mirrored else moved
