"""Which generated images lie nearer to a training image than unseen real ones do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lungan.config import ScoreConfig, presets
from lungan.data import build as data
from lungan.errors import ConfigError, DataError
from lungan.generation.source import Source
from lungan.scores import encoders
from lungan.scores.distances import Features
from lungan.scores.encoders import Encoder, encode_real
from lungan.scores.evaluate import RealSide, choose_real
from lungan.scores.memorization import limit_of, too_few_for_limit
from lungan.scores.near_copies import PixelAudit
from lungan.scores.prdc import nearest


class Rejection:
    """What tells a near copy of a training image, in the encoder's features and in pixels.

    limits: the distances to the nearest training image, in features and in pixels, that one in a
    hundred unseen real images falls below. caveat: why they are rough, where they are.
    """

    def __init__(self, encoder: Encoder, real: RealSide, batch_size: int) -> None:
        reference = encode_real(real.reference, encoder, batch_size)
        self.encoder = encoder
        self.num_held_out = len(real.held_out)
        self.caveat = too_few_for_limit(self.num_held_out)
        self._batch_size = batch_size
        self._training = reference.features[real.distinct].astype(np.float64)
        self._audit = PixelAudit(real.reference.images[real.distinct])
        self.limits = [limit_of(distances) for distances in self.measure(real.held_out.images)]

    def measure(self, images: NDArray[np.uint8]) -> tuple[Features, Features]:
        """Of images (N, C, H, W): the distances to their nearest training image, both (N,)."""
        features = self.encoder.encode(images, self._batch_size).features
        in_features, _ = nearest(features.astype(np.float64), self._training)
        in_pixels, _ = self._audit.nearest(images)
        return in_features, in_pixels

    def judge(self, images: NDArray[np.uint8]) -> Iterator[tuple[float, float] | None]:
        """Of each image (C, H, W): its distance to the nearest training image in features and its
        similarity to the most similar one in pixels; None for a near copy."""
        for in_features, in_pixels in zip(*self.measure(images), strict=True):
            is_near_copy = in_features < self.limits[0] or in_pixels < self.limits[1]
            yield None if is_near_copy else (in_features, 1 - in_pixels)


def build_rejection(source: Source, device: torch.device) -> Rejection:
    """Read the data that the run was trained on, and see how near unseen images come to it.

    Raises: ConfigError where only a generator's file is known, where no encoder can be had or no
    real images were held out; DataError where the data is no longer what it was.
    """
    if source.config is None or source.summary is None:
        raise ConfigError(
            "--reject-memorized needs the images that were trained on, which a generator's file "
            "does not name; give the run folder"
        )
    config: ScoreConfig = source.config.score
    if not config.encoders:
        config = presets.load("score", "standard")
    image_set = data.load(source.config.data)
    if image_set.content_hash != source.summary["data_hash"]:
        raise DataError(
            f"the images of data={source.config.data.name} are not those that {source.name} was "
            "trained on; put these back to use --reject-memorized"
        )
    real = choose_real(image_set, source.config.data.splits, source.config.data.classes)
    if len(real.distinct) < 2:
        raise DataError("--reject-memorized needs at least 2 different training images, got 1")
    if not len(real.held_out):
        raise ConfigError(
            f"--reject-memorized needs real images that {source.name} was not trained on, of the "
            "same classes, and its data has none; keep a split out by data.splits"
        )
    found, reasons = encoders.resolve(config)
    if not found:
        raise ConfigError(f"--reject-memorized needs an encoder: {'; '.join(reasons.values())}")
    # The in-domain encoder tells these images apart best; scores.md says why.
    name = "domain" if "domain" in found else found[0]
    encoder = encoders.build(name, config, image_set, device)
    return Rejection(encoder, real, config.batch_size)
