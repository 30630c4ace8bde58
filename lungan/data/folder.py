"""data=folder: image files under one folder, decoded once and cached by their content."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import PIL
from tqdm import tqdm

from lungan.config import FolderConfig
from lungan.data.cache import load_or_make
from lungan.data.decode import BadImageError, quiet, read_bytes
from lungan.data.images import ONLY_CLASS, SPLITS, Facts, ImageSet, partition
from lungan.data.scale import FittedImage, read_image, scale_images
from lungan.errors import ConfigError, DataError

VERSION = 2
"""Part of every cache key: raised when the same files would decode to other images."""

NUM_NAMED = 10
"""How many bad files an error names."""

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
"""What operating systems leave in folders, beside names that start with a dot."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def load_folder(config: FolderConfig, *, progress: bool = True) -> ImageSet:
    """The images under ``config.path``, in the order of their paths.

    Raises: DataError for a folder that cannot be used, or files that cannot where
    ``on_bad_image`` is ``error``; ConfigError for shares of a split where split folders are.
    """
    root = Path(config.path).expanduser()
    layout = read_layout(root)
    if layout.splits and (config.val_fraction or config.test_fraction):
        raise ConfigError(
            "data.val_fraction and data.test_fraction must be 0 where data.path has the splits as "
            f"folders, got {config.val_fraction:g} and {config.test_fraction:g}"
        )
    digests = _in_threads(_digest, layout.paths, "Looking for changed images", progress)
    key = hashlib.sha256(
        repr(
            (
                (VERSION, cv2.__version__, PIL.__version__),
                (config.size, config.channels, config.scale, config.frame, config.on_bad_image),
                (config.val_fraction, config.test_fraction),
                [path.relative_to(root).as_posix() for path in layout.paths],
                digests,
            )
        ).encode()
    ).hexdigest()
    return load_or_make(f"folder-{key}", lambda: _decode_all(config, root, layout, progress))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except BadImageError as error:  # Decoding says so; another reason is another content.
        return str(error)


def _decode_all(config: FolderConfig, root: Path, layout: Layout, progress: bool) -> ImageSet:
    def decode_one(path: Path) -> FittedImage | str:
        return read_image(
            path, config.size, config.channels, scale=config.scale, frame=config.frame
        )

    with quiet():
        results = _in_threads(decode_one, layout.paths, "Decoding images", progress)
    names = [path.relative_to(root).as_posix() for path in layout.paths]
    bad = [
        f"{name} ({result})"
        for name, result in zip(names, results, strict=True)
        if isinstance(result, str)
    ]
    kept = [index for index, result in enumerate(results) if not isinstance(result, str)]
    decoded = [result for result in results if not isinstance(result, str)]
    if bad:
        _report_bad(config.on_bad_image, root, bad, len(results))
    scaled = scale_images(decoded, config.scale)
    for warning in scaled.warnings:
        log.warning(warning)
    labels = np.array(layout.labels, dtype=np.int64)[kept]
    if layout.splits:
        splits = np.array(layout.splits, dtype=np.int64)[kept]
    else:
        places = [result.place for result in decoded]
        splits = partition(places, config.val_fraction, config.test_fraction)
    skipped = f", {len(bad)} unreadable ones skipped" if bad else ""
    return ImageSet(
        images=scaled.images,
        labels=labels,
        splits=splits,
        class_names=layout.class_names,
        split_names=SPLITS,
        source=f"folder of {len(decoded)} images{skipped}, at {config.size}x{config.size}",
        facts=Facts(
            sizes=dict(Counter(f"{image.width} x {image.height}" for image in decoded)),
            modes=dict(Counter(image.mode for image in decoded)),
            num_cropped=sum(image.is_cropped for image in decoded),
            scaling=list(scaled.notes),
            warnings=list(scaled.warnings),
        ),
    )


def _report_bad(on_bad_image: str, root: Path, bad: Sequence[str], num_files: int) -> None:
    if len(bad) == num_files:
        raise DataError(f"none of the {num_files} files in {root} can be used: {_first(bad)}")
    if on_bad_image == "error":
        raise DataError(
            f"{len(bad)} of {num_files} files in {root} cannot be used: {_first(bad)}; repair or "
            "remove them, or set data.on_bad_image=skip"
        )
    log.warning("skipped %d of %d files in %s: %s", len(bad), num_files, root, ", ".join(bad))


def _first(bad: Sequence[str]) -> str:
    more = f", and {len(bad) - NUM_NAMED} more" if len(bad) > NUM_NAMED else ""
    return ", ".join(bad[:NUM_NAMED]) + more


def _in_threads(
    work: Callable[[Path], Result], paths: Sequence[Path], description: str, progress: bool
) -> list[Result]:
    """``work`` of each path, in order; hashing and decoding leave Python's lock."""
    num_threads = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    # disable=None: no bar where stderr is no terminal.
    bar = tqdm(
        total=len(paths), desc=description, unit=" files", disable=None if progress else True
    )
    executor = ThreadPoolExecutor(num_threads)
    try:
        with bar:
            results = []
            for result in executor.map(work, paths):
                results.append(result)
                bar.update()
            return results
    finally:
        executor.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """The files in the order of their paths, with their indices into the names.

    splits: empty where no split folders are there.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    splits: tuple[int, ...]
    class_names: tuple[str, ...]


def read_layout(root: Path) -> Layout:
    """Class folders, train/val/test folders of class folders or images, or one flat folder.

    Raises: DataError where ``root`` is no folder, is empty, or mixes these.
    """
    if not root.exists():
        raise DataError(f"data.path must be a folder of images, {root} does not exist")
    if not root.is_dir():
        raise DataError(f"data.path must be a folder of images, {root} is a file")
    split_folders = _split_folders(root)
    tops = split_folders or {"": root}
    found = [
        (path, class_name, split)
        for split, top in tops.items()
        for class_name, path in _classes(top)
    ]
    if not found:
        raise DataError(f"data.path must hold images, {root} has none")
    class_names = tuple(sorted({class_name for _, class_name, _ in found}))
    if ONLY_CLASS in class_names and len(class_names) > 1 and split_folders:
        raise DataError(
            f"{root}: either every split must hold class folders, or none of them "
            f"(classes found: {', '.join(class_names)})"
        )
    found.sort(key=lambda item: item[0].relative_to(root).as_posix())
    return Layout(
        paths=tuple(path for path, _, _ in found),
        labels=tuple(class_names.index(name) for _, name, _ in found),
        splits=tuple(SPLITS.index(split) for _, _, split in found) if split_folders else (),
        class_names=class_names,
    )


def _split_folders(root: Path) -> dict[str, Path]:
    folders, _ = _children(root)
    splits = {folder.name.lower(): folder for folder in folders if folder.name.lower() in SPLITS}
    if splits and len(splits) != len(folders):
        others = sorted(folder.name for folder in folders if folder not in splits.values())
        raise DataError(
            f"{root} must hold class folders or only the splits {', '.join(SPLITS)}, "
            f"got {', '.join(sorted(splits))} beside {', '.join(others[:5])}"
        )
    return splits


def _classes(top: Path) -> Iterator[tuple[str, Path]]:
    folders, files = _children(top)
    if not folders:
        yield from ((ONLY_CLASS, path) for path in files)
        return
    # A readme or a table of labels may stand beside class folders; an image has no class there.
    if images := [path.name for path in files if path.suffix.lower() in _IMAGE_SUFFIXES]:
        raise DataError(
            f"{top} must hold images or class folders, not both: {images[0]} stands beside "
            f"{folders[0].name}"
        )
    for folder in folders:
        paths = list(_walk(folder))
        if not paths:
            raise DataError(f"class folder {folder} is empty; remove it or fill it")
        yield from ((folder.name, path) for path in paths)


_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"}


def _walk(folder: Path) -> Iterator[Path]:
    seen = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # A link leads back to where we have been.
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if _counts(name)]
        yield from (Path(parent, name) for name in files if _counts(name))


def _children(folder: Path) -> tuple[list[Path], list[Path]]:
    try:
        children = sorted(path for path in folder.iterdir() if _counts(path.name))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    folders = [path for path in children if path.is_dir()]
    return folders, [path for path in children if not path.is_dir()]


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM_FILES
