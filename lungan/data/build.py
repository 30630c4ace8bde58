"""From a data config, by the reader that is registered for it, or from a path, to images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungan import registry
from lungan.config.data import DataConfig, FilesConfig
from lungan.data import inspect
from lungan.data.images import ImageSet, keep_fraction
from lungan.errors import DataError

log = logging.getLogger(__name__)


def load(
    config: DataConfig, *, progress: bool = True, say: Callable[[str], None] | None = None
) -> ImageSet:
    """All splits and classes of the data; ``ImageSet.select`` chooses what a GAN trains on.

    With ``data.fraction`` below 1, what is left out of ``data.splits`` is in a split of its own.
    progress: show bars where stderr is a terminal. say: takes the lines of ``inspect.describe``;
    without it only warnings go to the log, at every call.

    Raises: DataError where the data cannot be had or used, ConfigError for an unknown name.
    """
    image_set: ImageSet = registry.builder("data", config.name)(config, progress=progress)
    if (shade := image_set.images.min()) == image_set.images.max():
        way_out = "; data.scale=range takes black and white from the values of the files"
        raise DataError(
            f"all {len(image_set)} images are of one shade, {shade} of 0 to 255, and show nothing"
            f"{way_out if isinstance(config, FilesConfig) else ''}"
        )
    if config.fraction != 1:
        image_set = keep_fraction(image_set, config.splits, config.fraction, config.fraction_seed)
    if say is None:
        for warning in image_set.facts.warnings:
            log.warning("warning: %s", warning)
    else:
        for line in inspect.describe(image_set, config):
            say(line)
    return image_set


def read_images(
    path: Path,
    size: int | None = None,
    channels: int | None = None,
    on_bad_image: str = "error",
) -> ImageSet:
    """All images of a folder or an .npz, with the classes and splits that folders or keys name.

    Without ``size`` and ``channels`` they must be square and alike, and stay as they are; else
    they are cropped, resized and converted as for training.

    Raises: DataError where there are none, one cannot be read, or they are not alike.
    """
    from lungan.data.cache import read_arrays
    from lungan.data.npz import fit_arrays

    if path.suffix == ".npz" or not path.exists():
        return fit_arrays(read_arrays(path), path, size, channels)[0]
    if not path.is_dir():
        raise DataError(
            f"{path} must be a folder of images, an .npz, a generator's .safetensors or a run "
            "folder"
        )
    from lungan.data.folder import read_layout
    from lungan.data.listing import decode_files
    from lungan.data.scale import Wanted

    image_set, _, _ = decode_files(read_layout(path), Wanted(size, channels), on_bad_image)
    return image_set


def read_array(
    images: Any, name: str, size: int | None = None, channels: int | None = None
) -> ImageSet:
    """Images that are in memory, of one class and one split.

    images: uint8, square, (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels; a numpy
    array or a torch tensor on any device. name: what errors call them. size, channels: as of
    ``read_images``.

    Raises: DataError for arrays of a wrong kind.
    """
    from lungan.data.npz import fit_arrays

    array = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = np.moveaxis(array, 1, 3)
    return fit_arrays({"images": array}, Path(name), size, channels)[0]
