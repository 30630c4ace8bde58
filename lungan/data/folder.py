"""data=folder: image files under one folder, decoded once and cached by their content."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lungan.config import FolderConfig
from lungan.data.cache import load_or_make
from lungan.data.decode import decode, fit, read_bytes
from lungan.data.headers import BadImageError
from lungan.data.images import ImageSet
from lungan.data.layout import Layout, read_layout
from lungan.data.partition import SPLITS, partition, place_of
from lungan.errors import ConfigError, DataError

VERSION = 1
"""Part of every cache key: raised when the same files would decode to other images."""

NUM_NAMED = 10
"""How many bad files an error names."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """image: (C, H, W) uint8. peak: the largest value of a 16-bit file, else None."""

    image: NDArray[np.uint8]
    place: float
    peak: int | None


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
                (VERSION, cv2.__version__, config.size, config.channels, config.on_bad_image),
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
    def decode_one(path: Path) -> _Decoded | str:
        try:
            pixels = decode(data := read_bytes(path))
        except BadImageError as error:
            return str(error)
        is_scaled = data[128:132] == b"DICM"
        peak = None if pixels.dtype == np.uint8 or is_scaled else int(pixels.max())
        return _Decoded(fit(pixels, config.size, config.channels), place_of(pixels), peak)

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
    _warn_dark([result.peak for result in decoded if result.peak is not None])
    labels = np.array(layout.labels, dtype=np.int64)[kept]
    if layout.splits:
        splits = np.array(layout.splits, dtype=np.int64)[kept]
    else:
        places = [result.place for result in decoded]
        splits = partition(places, config.val_fraction, config.test_fraction)
    skipped = f", {len(bad)} unreadable ones skipped" if bad else ""
    return ImageSet(
        images=np.stack([result.image for result in decoded]),
        labels=labels,
        splits=splits,
        class_names=layout.class_names,
        split_names=SPLITS,
        source=f"folder of {len(decoded)} images{skipped}, at {config.size}x{config.size}",
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


def _warn_dark(peaks: Sequence[int]) -> None:
    if peaks and max(peaks) < 2**14:
        log.warning(
            "the %d 16-bit images use only %d bits (largest value %d), so they are dark at 8 bits; "
            "rescale the files to the full range of 0 to 65535",
            len(peaks),
            max(peaks).bit_length(),
            max(peaks),
        )


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
