"""Two encoders without weights, for what blur and smoothing take away: spectrum and local contrast.

A network that learned to overlook small changes, or that saw images of at most 64 pixels, gives
soft images good scores. These two see texture and little else, so every score in their features,
with its floor, says whether detail is as real images have it; they say nothing of anatomy.

The radial spectrum as a measure of generated images: Durall et al. 2020, "Watch your
Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to Reproduce Spectral
Distributions".
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.scores.encoders import Encoder, hash_of

VERSION = 1
"""Raised when the same images would give other features."""

SMALLEST_SIZE = 16
"""Of fewer pixels there are too few windows and frequencies to speak of texture."""
MOST_RINGS = 32
WINDOWS = (3, 7)
"""Sides, in pixels, of the windows of local contrast."""
GRID = 4
"""Local contrast is averaged in GRID x GRID parts: a lung's is not a shoulder's."""

ROUNDING = 1 / 12
"""Variance that rounding to whole grey levels adds; it keeps logarithms of flat images finite."""


def build_spectrum(_: ScoreConfig, image_set: ImageSet, device: torch.device) -> Encoder:
    """Log power at each spatial frequency. Raises: DataError for images below 16 pixels."""
    network = RadialSpectrum(*image_set.images.shape[2:])
    rings = network.num_rings
    note = f"no network: log power in {rings} rings of frequencies up to Nyquist's, and beyond"
    return _encoder("spectrum", image_set, rings + 1, network, note, device)


def build_contrast(_: ScoreConfig, image_set: ImageSet, device: torch.device) -> Encoder:
    """Log local contrast, by place. Raises: DataError for images below 16 pixels."""
    sides = " and ".join(map(str, WINDOWS))
    note = f"no network: log local contrast in windows of {sides} pixels, in {GRID} x {GRID} parts"
    feature_dim = len(WINDOWS) * GRID**2
    return _encoder("contrast", image_set, feature_dim, LocalContrast(), note, device)


class RadialSpectrum(nn.Module):
    """(B, C, H, W) uint8 -> log power (B, rings + 1) float32 and no logits (B, 0).

    A feature is the natural logarithm of the mean power, in squared grey levels a pixel, of one
    ring of frequencies; the last is of those in the corners, beyond Nyquist's along the axes, where
    checkerboards stand. Images are grey, about their mean, under a Hann window: without it the step
    from one border to the other has power at all frequencies and hides what blur takes away.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.num_rings = min(min(height, width) // 2, MOST_RINGS)
        down, across = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
        radius = torch.hypot(down[:, None], across[None])  # in cycles a pixel, Nyquist's is 0.5
        # The mean is gone, so frequency 0 joins the first ring, which it is the least part of.
        ring = (radius * 2 * self.num_rings).ceil().long().sub(1).clamp(0, self.num_rings)
        member = F.one_hot(ring.flatten(), self.num_rings + 1).float()
        window = torch.outer(
            torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False)
        )
        self.window: Tensor
        self.register_buffer("window", window / window.square().mean().sqrt())
        self.mean_of_ring: Tensor
        self.register_buffer("mean_of_ring", member / member.sum(dim=0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        grey = images.float().mean(dim=1)
        centered = (grey - grey.mean(dim=(1, 2), keepdim=True)) * self.window
        power = torch.fft.fft2(centered, norm="ortho").abs().square().flatten(1)
        return (power @ self.mean_of_ring + ROUNDING).log(), power[:, :0]


def spectra(real: NDArray[np.float32], generated: NDArray[np.float32]) -> dict[str, list[float]]:
    """What a figure of radial spectra needs, from the features (N, rings + 1) of both sides.

    Each list has the log power of the rings up to Nyquist's frequency, lowest first: the mean of
    the generated images, the mean of the real ones, and the ends of the band in which 95 % of the
    real images lie, ring by ring.
    """
    low, high = np.percentile(real, [2.5, 97.5], axis=0)
    curves = {
        "generated_mean": generated.mean(axis=0, dtype=np.float64),
        "real_mean": real.mean(axis=0, dtype=np.float64),
        "real_low": low,
        "real_high": high,
    }
    return {name: curve[:-1].round(4).tolist() for name, curve in curves.items()}


class LocalContrast(nn.Module):
    """(B, C, H, W) uint8 -> log contrast (B, windows * parts) float32 and no logits (B, 0).

    A feature is half the logarithm of the variance of grey levels within one size of window, mean
    over the windows of one part of the image.
    """

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        grey = images.float().mean(dim=1, keepdim=True)
        # About the image's mean, so that a difference of squares keeps its digits.
        grey = grey - grey.mean(dim=(2, 3), keepdim=True)
        features = []
        for side in WINDOWS:
            mean = F.avg_pool2d(grey, side, stride=1)
            variance = (F.avg_pool2d(grey.square(), side, stride=1) - mean.square()).clamp_min(0)
            contrast = (variance + ROUNDING).log() / 2
            features.append(F.adaptive_avg_pool2d(contrast, GRID).flatten(1))
        return torch.cat(features, dim=1), features[0][:, :0]


def _encoder(
    name: str,
    image_set: ImageSet,
    feature_dim: int,
    network: nn.Module,
    note: str,
    device: torch.device,
) -> Encoder:
    height, width = image_set.images.shape[2:]
    if min(height, width) < SMALLEST_SIZE:
        raise DataError(
            f"{name} needs images of at least {SMALLEST_SIZE} pixels a side, got {height}x{width}; "
            "leave it out of score.encoders"
        )
    return Encoder(
        name=name,
        weights_hash=hash_of(name, VERSION),
        feature_dim=feature_dim,
        num_classes=0,
        notes=(note,),
        network=network.to(device),
        device=device,
    )
