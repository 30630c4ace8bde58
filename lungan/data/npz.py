"""data=npz: images from an .npz with MedMNIST's keys, or ``images`` and ``labels``."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan import memory
from lungan.config.data import NpzConfig
from lungan.data.images import ONLY_CLASS, SPLITS, Facts, ImageSet, partition, place_of, say_empty
from lungan.data.scale import fit
from lungan.data.stored import ANY_BYTES, MAX_RATIO
from lungan.errors import ConfigError, DataError
from lungan.files import at_home

Part = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (N, H, W) or (N, H, W, 3), H = W, and labels (N,) or None."""

NO_SPLIT = ""
ONLY_SPLIT = ("all",)

_SPLIT_KEYS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))


def load_npz(config: NpzConfig, *, progress: bool = True) -> ImageSet:  # noqa: ARG001
    """The images of ``config.path``, in their order, split after split.

    Classes are named by their labels' numbers; without labels there is one, ``all``.

    Raises: DataError for a file that cannot be used, never unpickling; ConfigError for shares of
    a split where the file has splits.
    """
    path = at_home(config.path)
    if not path.is_file():
        what = "is a folder: use data=folder" if path.is_dir() else "does not exist"
    elif path.suffix.lower() in (".csv", ".tsv"):
        what = "is a table: use data=table"
    else:
        what = ""
    if what:
        raise DataError(f"data.path must be an .npz file, {path} {what}")
    parts = read_parts(path, config.labels != "none", config.label_column)
    has_splits = NO_SPLIT not in parts
    if has_splits and (config.val_fraction or config.test_fraction):
        raise ConfigError(
            "data.val_fraction and data.test_fraction must be 0 where the file has splits, got "
            f"{config.val_fraction:g} and {config.test_fraction:g}"
        )
    image_set = read_npz(path, config.size, config.channels, parts)
    if has_splits:
        return image_set
    val, test = config.val_fraction, config.test_fraction
    splits = partition([place_of(image) for image in parts[NO_SPLIT][0]], val, test)
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
    arrays = [part for part, _ in parts.values()]
    if not sum(map(len, arrays)):
        raise DataError(f"{path} holds no images")
    for (name, _), array in zip(parts.items(), arrays, strict=True):
        if (size is None and array.shape[1] != arrays[0].shape[1]) or (
            channels is None and array.ndim != arrays[0].ndim
        ):
            raise DataError(
                f"images must be alike: those of {name} in {path} are {_words(array)}, those "
                f"before them {_words(arrays[0])}; --size crops and resizes, --channels 1 makes "
                "all grey"
            )
    num_images, side = sum(map(len, arrays)), size or arrays[0].shape[1]
    # Each split on its own, and all of them as one array.
    memory.check(
        2 * num_images * (channels or 1) * side**2,
        f"data.size={side} for the {num_images} images in {path}",
        "choose a smaller data.size, or save a part of the images",
    )
    images = np.concatenate([_fit_all(array, size, channels) for array in arrays])
    labels, class_names = _number_classes(path, parts)
    has_splits = NO_SPLIT not in parts
    index = [SPLITS.index(name) if has_splits else 0 for name in parts]
    return ImageSet(
        images=images,
        labels=labels,
        splits=np.repeat(np.array(index, dtype=np.int64), [len(array) for array in arrays]),
        class_names=class_names,
        split_names=SPLITS if has_splits else ONLY_SPLIT,
        source=f"{path.name} ({len(images)} images), at {images.shape[2]}x{images.shape[2]}",
        facts=Facts(
            sizes=_count(arrays, lambda array: f"{array.shape[2]}x{array.shape[1]}"),
            modes=_count(arrays, lambda array: f"8-bit {_words(array).split(' ', 1)[1]}"),
        ),
    )


def _words(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[2]}x{array.shape[1]} {'grey' if array.ndim == 3 else 'in color'}"


def _count(
    arrays: Sequence[NDArray[np.uint8]], words: Callable[[NDArray[np.uint8]], str]
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for array in arrays:
        counts[words(array)] = counts.get(words(array), 0) + len(array)
    return counts


def read_parts(
    path: Path, with_labels: bool = True, label_column: int | None = None
) -> dict[str, Part]:
    """Images and labels by split; ``NO_SPLIT`` where the file has none.

    label_column: which of several labels an image.

    Raises: DataError for a file that is missing or damaged, or arrays of a wrong kind.
    """
    arrays = read_arrays(path)
    has_splits = any(key in arrays for key in _SPLIT_KEYS)
    if "images" in arrays and has_splits:
        raise DataError(f"{path} must hold images or train_images, not both")
    if "images" in arrays:
        return {NO_SPLIT: _read_part(path, arrays, "", with_labels, label_column)}
    if not has_splits:
        raise DataError(
            f"{path} must hold images, or train_images, val_images and test_images; "
            f"it holds {', '.join(sorted(arrays)[:10]) or 'nothing'}"
        )
    return {
        split: _read_part(path, arrays, f"{split}_", with_labels, label_column)
        for split in SPLITS
        if f"{split}_images" in arrays or f"{split}_labels" in arrays
    }


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz.

    Raises: DataError where the file is missing, damaged, not an .npz, or holds Python objects.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} must be an .npz archive, got a single array")
        with archive:
            if archive.zip is not None:
                _check_sizes(path, archive.zip.infolist())
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (
        EOFError,
        MemoryError,
        NotImplementedError,
        OSError,
        RuntimeError,
        SyntaxError,
        TokenError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
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


def _read_part(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    prefix: str,
    with_labels: bool,
    label_column: int | None,
) -> Part:
    key = f"{prefix}images"
    if key not in arrays:
        raise DataError(f"{path} has {prefix}labels but no {key}")
    images = arrays[key]
    if images.dtype != np.uint8:
        raise DataError(f"{path}: {key} must be uint8 from 0 to 255, got {images.dtype}")
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
        raise DataError(f"{path}: {key} must be integers, got {labels.dtype}")
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            f"{path}: {key} must be one number an image, ({len(images)},) or ({len(images)}, 1), "
            f"got {labels.shape}"
        )
    if len(labels) and (labels.min() < 0 or labels.max() > np.iinfo(np.int64).max):
        raise DataError(f"{path}: {key} must be from 0, got {labels.min()}")
    return images, labels.reshape(-1).astype(np.int64)


def _fit_all(
    images: NDArray[np.uint8], size: int | None, channels: int | None
) -> NDArray[np.uint8]:
    size = size or images.shape[1]
    channels = channels or (1 if images.ndim == 3 else 3)
    fitted = np.empty((len(images), channels, size, size), dtype=np.uint8)
    for index, image in enumerate(images):
        fitted[index] = fit(image, size, channels)
    return fitted


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
