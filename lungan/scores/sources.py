"""Images to score from anywhere: a folder of image files or an .npz, at their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungan.data.decode import quiet
from lungan.data.folder import read_layout
from lungan.data.images import SPLITS, ImageSet
from lungan.data.npz import NO_SPLIT, read_parts
from lungan.data.scale import FittedImage, fit, read_image, scale_images
from lungan.errors import DataError

Shape = tuple[int, int, int]
"""Channels, height and width of an image before it is fitted."""

ONLY_SPLIT = ("all",)
WAY_OUT = "--size crops to the centre square and resizes, --channels 1 makes all grey"


def read_images(path: Path, size: int | None = None, channels: int | None = None) -> ImageSet:
    """All images of ``path``, with the classes and splits that its folders or keys name.

    Without ``size`` and ``channels`` they must be square and alike, and stay as they are; else
    they are cropped, resized and converted as for training.

    Raises: DataError where there are none, one cannot be read, or they are not alike.
    """
    if path.is_dir():
        return _read_folder(path, size, channels)
    if path.suffix == ".npz" or not path.exists():
        return _read_npz(path, size, channels)
    raise DataError(
        f"{path} must be a folder of images, an .npz, a generator's .safetensors or a run folder"
    )


def choose_splits(images: ImageSet) -> tuple[str, ...]:
    """The splits to take for trained on where nobody says: all but a test split."""
    present = [images.split_names[number] for number in np.unique(images.splits)]
    return tuple(name for name in present if name != "test" or len(present) == 1)


def _read_folder(root: Path, size: int | None, channels: int | None) -> ImageSet:
    layout = read_layout(root)
    images: list[FittedImage] = []
    with quiet():
        for path in layout.paths:
            image = read_image(path, size, channels)
            if isinstance(image, str):
                raise DataError(f"{path} cannot be used: {image}")
            images.append(image)
            first, shape = (
                (each.pixels.shape[0], each.height, each.width) for each in (images[0], image)
            )
            _check_alike(first, shape, path, size, channels)
    splits = layout.splits or (0,) * len(images)
    return ImageSet(
        images=scale_images(images).images,
        labels=np.array(layout.labels, dtype=np.int64),
        splits=np.array(splits, dtype=np.int64),
        class_names=layout.class_names,
        split_names=SPLITS if layout.splits else ONLY_SPLIT,
        source=f"folder of {len(images)} images",
    )


def _read_npz(path: Path, size: int | None, channels: int | None) -> ImageSet:
    parts = read_parts(path)
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    splits: list[int] = []
    first: Shape | None = None
    has_labels = all(part_labels is not None for _, part_labels in parts.values())
    for split, (part, part_labels) in parts.items():
        for pixels in part:
            shape = (pixels.ndim if pixels.ndim == 3 else 1, *pixels.shape[:2])
            first = first or shape
            _check_alike(first, shape, path, size, channels)
            images.append(fit(pixels, size or pixels.shape[0], channels))
        splits += [0 if split == NO_SPLIT else SPLITS.index(split)] * len(part)
        labels.append(
            part_labels
            if has_labels and part_labels is not None
            else np.zeros(len(part), dtype=np.int64)
        )
    if not images:
        raise DataError(f"{path} holds no images")
    numbers, index = np.unique(np.concatenate(labels), return_inverse=True)
    return ImageSet(
        images=np.stack(images),
        labels=index.astype(np.int64),
        splits=np.array(splits, dtype=np.int64),
        class_names=tuple(map(str, numbers)) if has_labels else ("all",),
        split_names=ONLY_SPLIT if NO_SPLIT in parts else SPLITS,
        source=f"{path.name} ({len(images)} images)",
    )


def _check_alike(
    first: Shape, shape: Shape, path: Path, size: int | None, channels: int | None
) -> None:
    if size is None and (shape[1] != shape[2] or shape[1] != first[1]):
        raise DataError(
            f"images must be square and of one size, the first is {_words(first)} and one in "
            f"{path} {_words(shape)}; {WAY_OUT}"
        )
    if channels is None and shape[0] != first[0]:
        raise DataError(
            f"images must all be grey or all in color, the first is {_words(first)} and one in "
            f"{path} {_words(shape)}; {WAY_OUT}"
        )


def _words(shape: Shape) -> str:
    return f"{shape[1]}x{shape[2]} {'color' if shape[0] == 3 else 'grey'}"
