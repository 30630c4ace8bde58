"""The embedded data set: procedural chest radiographs, so that everything runs with no download."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
from numpy.typing import NDArray

from lungan import memory
from lungan.config.data import PhantomConfig
from lungan.data.cache import Arrays, load_or_make
from lungan.data.images import SPLITS, ImageSet
from lungan.data.phantom.drawing import DRAWING_VERSION, draw_images
from lungan.data.phantom.factors import (
    CLASS_NAMES,
    FACTOR_DTYPE,
    NORMAL,
    PNEUMONIA,
    Factors,
    draw_factors,
)

log = logging.getLogger(__name__)

# PneumoniaMNIST's numbers of images and, of these, pneumonia: the phantom keeps their shares.
_REAL_TRAIN, _REAL_TRAIN_PNEUMONIA = 4708, 3494
_REAL_VAL, _REAL_VAL_PNEUMONIA = 524, 389
_REAL_TEST, _REAL_TEST_PNEUMONIA = 624, 390


def load_phantom(config: PhantomConfig, *, progress: bool = True) -> ImageSet:  # noqa: ARG001
    """All splits and classes of the phantom, drawn once and then read from the cache.

    Raises: ConfigError for more images than there is memory for.
    """
    num_images = config.num_images + config.num_test
    memory.check(
        num_images * (config.size**2 + FACTOR_DTYPE.itemsize),
        f"data.num_images={config.num_images} and data.num_test={config.num_test} at "
        f"data.size={config.size}",
        "choose fewer or smaller images",
    )
    arrays = load_or_make(_cache_key(config), {"images", "labels", "splits"}, lambda: _draw(config))
    return ImageSet(
        images=arrays["images"],
        labels=arrays["labels"],
        splits=arrays["splits"],
        class_names=CLASS_NAMES,
        split_names=SPLITS,
        source="lungan's phantom: drawn, of no patient",
    )


def phantom_factors(config: PhantomConfig) -> tuple[Factors, NDArray[np.int64]]:
    """The known factors (N,) and the splits (N,) of the images that ``load_phantom`` gives.

    ``config.size`` changes neither: a seed gives the same children at any size.
    """
    rng = np.random.default_rng(config.seed)
    num_train = round(config.num_images * _REAL_TRAIN / (_REAL_TRAIN + _REAL_VAL))
    counts = (
        (num_train, _REAL_TRAIN_PNEUMONIA / _REAL_TRAIN),
        (config.num_images - num_train, _REAL_VAL_PNEUMONIA / _REAL_VAL),
        (config.num_test, _REAL_TEST_PNEUMONIA / _REAL_TEST),
    )
    labels = []
    for num_images, share in counts:
        split_labels = np.full(num_images, NORMAL, dtype=np.int64)
        split_labels[: round(num_images * share)] = PNEUMONIA
        labels.append(rng.permutation(split_labels))
    splits = np.repeat(np.arange(len(counts)), [num_images for num_images, _ in counts])
    return draw_factors(rng, np.concatenate(labels)), splits.astype(np.int64)


def _draw(config: PhantomConfig) -> Arrays:
    factors, splits = phantom_factors(config)
    log.info("drawing %d phantom radiographs at %d pixels, once", len(factors), config.size)
    images = draw_images(factors, config.size)
    return {"images": images, "labels": factors["label"].copy(), "splits": splits}


def _cache_key(config: PhantomConfig) -> str:
    # Not the whole config: which classes a run picks changes no image.
    content = (DRAWING_VERSION, config.size, config.num_images, config.num_test, config.seed)
    return f"phantom-{config.size}-{hashlib.sha256(repr(content).encode()).hexdigest()[:32]}"
