"""data=npz: images from an .npz with MedMNIST's keys, or ``images`` and ``labels``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungan.config.data import NpzConfig
from lungan.data.cache import Arrays, read_arrays
from lungan.data.images import (
    ONLY_CLASS,
    ONLY_SPLIT,
    SPLITS,
    Facts,
    ImageSet,
    check_memory,
    check_shares,
    draw_splits,
    place_of,
    say_path,
)
from lungan.data.scale import fit
from lungan.errors import DataError
from lungan.files import at_home

Part = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (N, H, W) or (N, H, W, 3), H = W, and labels (N,) or None."""


def load_npz(config: NpzConfig, *, progress: bool = True) -> ImageSet:  # noqa: ARG001
    """The images of ``config.path``, in their order, split after split.

    Classes are named by their labels' numbers; without labels there is one, ``all``.

    Raises: DataError for a file that cannot be used, never unpickling; ConfigError for shares of
    a split where the file has splits.
    """
    path = at_home(config.path)
    if not path.is_file() or path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(f"data.path must be an .npz file, {say_path(path)}")
    parts = read_parts(path, config.labels != "none", config.label_column)
    image_set = read_npz(path, config.size, config.channels, parts)
    val, test = config.val_fraction, config.test_fraction
    if image_set.split_names == SPLITS:
        check_shares(path, val, test)
        return image_set
    ((images, _),) = parts.values()
    return draw_splits(image_set, [place_of(image) for image in images], val, test)


def read_npz(
    path: Path,
    size: int | None = None,
    channels: int | None = None,
    parts: dict[str, Part] | None = None,
) -> ImageSet:
    """The images of ``path`` by its own splits; one split, ``all``, where it has none.

    size, channels: None keeps the images' own. parts: of ``read_parts``, where they were read.

    Raises: DataError for a file that cannot be used.
    """
    parts = read_parts(path) if parts is None else parts
    counts = [len(images) for images, _ in parts.values()]
    if not sum(counts):
        raise DataError(f"{path} holds no images")
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for images, _ in parts.values():
        sizes[f"{images.shape[2]}x{images.shape[1]}"] += len(images)
        modes[f"8-bit {'grey' if images.ndim == 3 else 'in color'}"] += len(images)
    if (size is None and len(sizes) > 1) or (channels is None and len(modes) > 1):
        raise DataError(
            f"images of {path} must be alike and are {', '.join((*sizes, *modes))}; "
            "--size crops and resizes, --channels 1 makes all grey"
        )
    side = size or images.shape[1]
    channels = channels or (1 if images.ndim == 3 else 3)
    check_memory(sum(counts), channels, side, path)
    labels, class_names = _number_classes(path, parts)
    split_names = ONLY_SPLIT if tuple(parts) == ONLY_SPLIT else SPLITS
    return ImageSet(
        images=np.stack(
            [fit(one, side, channels) for images, _ in parts.values() for one in images]
        ),
        labels=labels,
        splits=np.repeat([split_names.index(name) for name in parts], counts),
        class_names=class_names,
        split_names=split_names,
        source=f"{path.name} ({sum(counts)} images), at {side}x{side}",
        facts=Facts(sizes=dict(sizes), modes=dict(modes)),
    )


def read_parts(
    path: Path, with_labels: bool = True, label_column: int | None = None
) -> dict[str, Part]:
    """Images and labels by split; all by that of ``ONLY_SPLIT`` where the file has none.

    label_column: which of several labels an image.

    Raises: DataError for a file that is missing or damaged, or arrays of a wrong kind.
    """
    arrays = read_arrays(path)
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
    return {
        split: read_part(path, arrays, prefix, with_labels, label_column)
        for split, prefix in prefixes.items()
    }


def read_part(
    path: Path,
    arrays: Arrays,
    prefix: str = "",
    with_labels: bool = True,
    label_column: int | None = None,
) -> Part:
    """The images ``<prefix>images`` and their labels. Raises: DataError for a wrong kind."""
    key = f"{prefix}images"
    if key not in arrays:
        raise DataError(f"{path} has {prefix}labels but no {key}")
    images = arrays[key]
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: {key} must be uint8 from 0 to 255, got {images.dtype}; "
            "scale all of them by one range first"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise DataError(
            f"{path}: {key} must be (N, H, W), (N, H, W, 1) or (N, H, W, 3), got {images.shape}"
        )
    if images.shape[1] != images.shape[2] or images.shape[1] == 0:
        raise DataError(f"{path}: {key} must be square, got {images.shape[1]}x{images.shape[2]}")
    key = f"{prefix}labels"
    if key not in arrays or not with_labels:
        return images, None
    labels = arrays[key]
    if labels.ndim == 2 and labels.shape[1] > 1:
        columns = labels.shape[1]
        if label_column is None or label_column >= columns:
            given = "" if label_column is None else f", got data.label_column={label_column}"
            raise DataError(
                f"{path}: {key} has {columns} labels an image: choose one by data.label_column="
                f"0 to {columns - 1}, or data.labels=none{given}"
            )
        labels = labels[:, label_column]
    if labels.dtype.kind not in "iub":
        raise DataError(
            f"{path}: {key} must be integers, got {labels.dtype}; number the "
            "classes by numpy.unique(labels, return_inverse=True)[1]"
        )
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            f"{path}: {key} must be one number an image, ({len(images)},) or ({len(images)}, 1), "
            f"got {labels.shape}"
        )
    if len(labels) and (labels.min() < 0 or labels.max() > np.iinfo(np.int64).max):
        raise DataError(f"{path}: {key} must be from 0, got {labels.min()}")
    return images, labels.reshape(-1).astype(np.int64)


def _number_classes(
    path: Path, parts: dict[str, Part]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    given = [labels for _, labels in parts.values() if labels is not None]
    if not given:
        num_images = sum(len(images) for images, _ in parts.values())
        return np.zeros(num_images, dtype=np.int64), (ONLY_CLASS,)
    if len(given) != len(parts):
        missing = next(split for split, (_, labels) in parts.items() if labels is None)
        raise DataError(f"{path} lacks {missing}_labels; every split must have labels, or none")
    values, labels = np.unique(np.concatenate(given), return_inverse=True)
    return labels.reshape(-1).astype(np.int64), tuple(str(value) for value in values)
