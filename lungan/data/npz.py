"""data=npz: images from an .npz with MedMNIST's keys, or ``images`` and ``labels``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.config import NpzConfig
from lungan.data.images import ONLY_CLASS, SPLITS, ImageSet, partition, place_of
from lungan.data.scale import fit
from lungan.errors import ConfigError, DataError

Part = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (N, H, W) or (N, H, W, 3), H = W, and labels (N,) or None."""

NO_SPLIT = ""

_SPLIT_KEYS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))


def load_npz(config: NpzConfig, *, progress: bool = True) -> ImageSet:  # noqa: ARG001
    """The images of ``config.path``, in their order, split after split.

    Classes are named by their labels' numbers; without labels there is one, ``all``.

    Raises: DataError for a file that cannot be used, never unpickling; ConfigError for shares of
    a split where the file has splits.
    """
    path = Path(config.path).expanduser()
    if not path.is_file():
        what = "is a folder: use data=folder" if path.is_dir() else "does not exist"
        raise DataError(f"data.path must be an .npz file, {path} {what}")
    parts = read_parts(path)
    has_splits = NO_SPLIT not in parts
    if has_splits and (config.val_fraction or config.test_fraction):
        raise ConfigError(
            "data.val_fraction and data.test_fraction must be 0 where the file has splits, got "
            f"{config.val_fraction:g} and {config.test_fraction:g}"
        )
    images = np.concatenate(
        [_fit_all(part, config.size, config.channels) for part, _ in parts.values()]
    )
    if not len(images):
        raise DataError(f"{path} holds no images")
    if has_splits:
        splits = np.concatenate(
            [
                np.full(len(part), SPLITS.index(split), dtype=np.int64)
                for split, (part, _) in parts.items()
            ]
        )
    else:
        places = [place_of(image) for part, _ in parts.values() for image in part]
        splits = partition(places, config.val_fraction, config.test_fraction)
    labels, class_names = _number_classes(path, parts)
    return ImageSet(
        images=images,
        labels=labels,
        splits=splits,
        class_names=class_names,
        split_names=SPLITS,
        source=f"{path.name} ({len(images)} images), at {config.size}x{config.size}",
    )


def read_parts(path: Path) -> dict[str, Part]:
    """Images and labels by split; ``NO_SPLIT`` where the file has none.

    Raises: DataError for a file that is missing or damaged, or arrays of a wrong kind.
    """
    arrays = read_arrays(path)
    has_splits = any(key in arrays for key in _SPLIT_KEYS)
    if "images" in arrays and has_splits:
        raise DataError(f"{path} must hold images or train_images, not both")
    if "images" in arrays:
        return {NO_SPLIT: _read_part(path, arrays, "")}
    if not has_splits:
        raise DataError(
            f"{path} must hold images, or train_images, val_images and test_images; "
            f"it holds {', '.join(sorted(arrays)[:10]) or 'nothing'}"
        )
    return {
        split: _read_part(path, arrays, f"{split}_")
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


def _read_part(path: Path, arrays: dict[str, NDArray[Any]], prefix: str) -> Part:
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
    if key not in arrays:
        return images, None
    labels = arrays[key]
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


def _fit_all(images: NDArray[np.uint8], size: int, channels: int) -> NDArray[np.uint8]:
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
