"""data=npz: images in an .npz archive, by MedMNIST's keys or by ``images`` and ``labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.config.data import NpzConfig
from lungan.data.cache import Arrays, read_arrays
from lungan.data.decode import display
from lungan.data.images import (
    ONLY_CLASS,
    ONLY_SPLIT,
    SPLITS,
    ImageSet,
    check_memory,
    check_shares,
    draw_splits,
    many,
    say_path,
)
from lungan.data.scale import check_alike, fit_image, scale_images
from lungan.errors import DataError
from lungan.files import at_home


def load_npz(config: NpzConfig, *, progress: bool = True) -> ImageSet:  # noqa: ARG001
    """The images of ``config.path``, in their order, split after split.

    Classes are named by their labels' numbers; without labels there is one, ``all``.

    Raises: DataError for a file that cannot be used, never unpickling; ConfigError for shares of
    a split where the file has splits.
    """
    path = at_home(config.path)
    if not path.is_file() or path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(f"data.path must be an .npz file, {say_path(path)}")
    arrays, with_labels = read_arrays(path), config.labels != "none"
    image_set, places = fit_arrays(
        arrays, path, config.size, config.channels, with_labels, config.label_column
    )
    if image_set.split_names == ONLY_SPLIT:
        return draw_splits(image_set, places, config.val_fraction, config.test_fraction)
    check_shares(path, config.val_fraction, config.test_fraction)
    return image_set


def fit_arrays(
    arrays: Arrays,
    path: Path,
    size: int | None = None,
    channels: int | None = None,
    with_labels: bool = True,
    label_column: int | None = None,
) -> tuple[ImageSet, list[float]]:
    """The image set of the arrays, cropped, resized and converted, and its images' ``place_of``.
    Its splits are those that the arrays' names say, or ``ONLY_SPLIT``.

    path: for messages. size, channels: None keeps the images' own. label_column: which of several
    labels an image.

    Raises: DataError for arrays that cannot be used.
    """
    prefixes = {split: f"{split}_" for split in SPLITS
                if {f"{split}_images", f"{split}_labels"} & set(arrays)}  # fmt: skip
    if "images" in arrays and prefixes:
        raise DataError(f"{path} must hold images or train_images, not both")
    if "images" in arrays:
        prefixes = {ONLY_SPLIT[0]: ""}
    if not prefixes:
        raise DataError(
            f"{path} must hold images, or train_images, val_images and test_images; "
            f"it holds {', '.join(sorted(arrays)[:10]) or 'nothing'}"
        )
    images, given = {}, {}
    for split, prefix in prefixes.items():
        if f"{prefix}images" not in arrays:
            raise DataError(f"{path} has {prefix}labels but no {prefix}images")
        images[split] = _check_images(arrays[f"{prefix}images"], f"{path}: {prefix}images")
        if with_labels and (labels := arrays.get(f"{prefix}labels")) is not None:
            name = f"{path}: {prefix}labels"
            given[split] = _check_labels(labels, len(images[split]), label_column, name)
    counts = [len(part) for part in images.values()]
    if not sum(counts):
        raise DataError(f"{path} holds no images")
    if size is not None:
        check_memory(sum(counts), channels or 1, size, path)
    fitted = {
        f"{path}: {split} image {index}": fit_image(display(image, 8), size, channels)
        for split, part in images.items()
        for index, image in enumerate(part)
    }
    check_alike(list(fitted), list(fitted.values()), size, channels)
    pixels, facts = scale_images(list(fitted.values()))
    labels = np.zeros(len(pixels), dtype=np.int64)
    class_names: tuple[str, ...] = (ONLY_CLASS,)
    if given:
        if lacking := [split for split in images if split not in given]:
            raise DataError(
                f"{path} lacks {lacking[0]}_labels; every split must have labels, or none"
            )
        values, labels = np.unique(np.concatenate([*given.values()]), return_inverse=True)
        class_names = tuple(map(str, values))
    split_names = SPLITS if ONLY_SPLIT[0] not in images else ONLY_SPLIT
    side = pixels.shape[2]
    image_set = ImageSet(
        images=pixels,
        labels=labels,
        splits=np.repeat([split_names.index(split) for split in images], counts),
        class_names=class_names,
        split_names=split_names,
        source=f"{path.name} ({many(len(pixels), 'image')}), at {side}x{side}",
        facts=facts,
    )
    return image_set, [image.place for image in fitted.values()]


def _check_images(images: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """(N, H, W) or (N, H, W, 3). Raises: DataError for another shape or dtype."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{name} must be uint8 from 0 to 255, got {images.dtype}; scale all of them by one "
            "range first"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.shape[3:] not in ((), (3,)) or images.ndim < 3:
        raise DataError(
            f"{name} must be (N, H, W), (N, H, W, 1) or (N, H, W, 3), got {images.shape}"
        )
    if images.shape[1] != images.shape[2] or images.shape[1] == 0:
        raise DataError(f"{name} must be square, got {images.shape[1]}x{images.shape[2]}")
    return images


def _check_labels(
    labels: NDArray[Any], num_images: int, column: int | None, name: str
) -> NDArray[np.int64]:
    if labels.ndim == 2 and (columns := labels.shape[1]) > 1:
        if column is None or column >= columns:
            given = "" if column is None else f", got data.label_column={column}"
            raise DataError(
                f"{name} has {columns} labels an image: choose one by data.label_column=0 to "
                f"{columns - 1}, or data.labels=none{given}"
            )
        labels = labels[:, column]
    if labels.dtype.kind not in "iub":
        raise DataError(
            f"{name} must be integers, got {labels.dtype}; number the classes by "
            "numpy.unique(labels, return_inverse=True)[1]"
        )
    if labels.shape not in ((num_images,), (num_images, 1)):
        raise DataError(
            f"{name} must be one number an image, ({num_images},) or ({num_images}, 1), got "
            f"{labels.shape}"
        )
    if len(labels) and (labels.min() < 0 or labels.max() > np.iinfo(np.int64).max):
        raise DataError(f"{name} must be from 0, got {labels.min()}")
    return labels.reshape(-1).astype(np.int64)
