"""data=npz: images from an .npz with MedMNIST's keys, or ``images`` and ``labels``."""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan import memory
from lungan.config.data import NpzConfig
from lungan.data.images import (
    ONLY_CLASS,
    ONLY_SPLIT,
    SPLITS,
    Facts,
    ImageSet,
    partition,
    place_of,
    say_empty,
    say_path,
)
from lungan.data.scale import fit
from lungan.data.stored import ANY_BYTES, MAX_RATIO
from lungan.errors import ConfigError, DataError
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
        if val or test:
            raise ConfigError(
                "data.val_fraction and data.test_fraction must be 0 where the file has splits, "
                f"got {val:g} and {test:g}"
            )
        return image_set
    ((images, _),) = parts.values()
    splits = partition([place_of(image) for image in images], val, test)
    facts = dataclasses.replace(image_set.facts, warnings=say_empty(splits, val, test))
    return dataclasses.replace(image_set, splits=splits, split_names=SPLITS, facts=facts)


def read_npz(
    path: Path, size: int | None, channels: int | None, parts: dict[str, Part] | None = None
) -> ImageSet:
    """The images of ``path`` by its own splits; one split, ``all``, where it has none.

    size, channels: None keeps the images' own. parts: of ``read_parts``, where they were read.

    Raises: DataError for a file that cannot be used.
    """
    parts = read_parts(path) if parts is None else parts
    first, *others = (images for images, _ in parts.values())
    num_images = len(first) + sum(map(len, others))
    if not num_images:
        raise DataError(f"{path} holds no images")
    for name, (images, _) in parts.items():
        if (size is None and images.shape[1] != first.shape[1]) or (
            channels is None and images.ndim != first.ndim
        ):
            raise DataError(
                f"images must be alike: those of {name} in {path} are {' '.join(_words(images))}, "
                f"those before them {' '.join(_words(first))}; --size crops and resizes, "
                "--channels 1 makes all grey"
            )
    side = size or first.shape[1]
    channels = channels or (1 if first.ndim == 3 else 3)
    # Each image on its own, and all of them as one array.
    memory.check(
        2 * num_images * channels * side**2,
        f"data.size={side} for the {num_images} images in {path}",
        "choose a smaller data.size, or save a part of the images",
    )
    fitted = [fit(image, side, channels) for images, _ in parts.values() for image in images]
    labels, class_names = _number_classes(path, parts)
    split_names = ONLY_SPLIT if tuple(parts) == ONLY_SPLIT else SPLITS
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for images, _ in parts.values():
        pixels, colour = _words(images)
        sizes[pixels] += len(images)
        modes[f"8-bit {colour}"] += len(images)
    return ImageSet(
        images=np.stack(fitted),
        labels=labels,
        splits=np.repeat(
            [split_names.index(name) for name in parts], [len(one) for one, _ in parts.values()]
        ),
        class_names=class_names,
        split_names=split_names,
        source=f"{path.name} ({num_images} images), at {side}x{side}",
        facts=Facts(sizes=dict(sizes), modes=dict(modes)),
    )


def _words(images: NDArray[np.uint8]) -> tuple[str, str]:
    return f"{images.shape[2]}x{images.shape[1]}", "grey" if images.ndim == 3 else "in color"


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


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz.

    Raises: DataError where the file is missing, damaged, not an .npz, or holds Python objects;
    ConfigError where there is no memory for them.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} must be an .npz archive, got a single array")
        with archive:
            if archive.zip is not None:
                _check_sizes(path, archive.zip.infolist())
            arrays = {name: archive[name] for name in archive.files}
    except (DataError, ConfigError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    # numpy and zipfile answer damaged files with whatever exception comes up.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        # What numpy says of objects, and of any file that is neither an array nor an archive.
        if "pickle" in reason:
            raise DataError(
                f"{path} must be an .npz of plain arrays; it is not an .npz, or holds Python "
                "objects, which are never unpickled"
            ) from error
        raise DataError(f"{path} is damaged or not an .npz: {reason}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} must hold arrays, but {name} is a plain file")
    return arrays


def _check_sizes(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raises: DataError for arrays that are large only once they are unpacked, as no images are;
    ConfigError for more than there is memory for."""
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > max(ANY_BYTES, MAX_RATIO * packed):
        raise DataError(
            f"{path} unpacks to {unpacked // 2**20} MiB, more than {MAX_RATIO} times its size, "
            "which images do not; if it is sound, save it by numpy.savez, which does not compress"
        )
    memory.check(unpacked, f"what {path} unpacks to", "save a part of its images")


def read_part(
    path: Path,
    arrays: dict[str, NDArray[Any]],
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
