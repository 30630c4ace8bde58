"""Image sets kept in the cache folder, so that drawing or decoding happens once."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lungan.data.images import Facts, ImageSet
from lungan.data.npz import read_arrays
from lungan.errors import DataError
from lungan.files import atomic_write, cache_folder

log = logging.getLogger(__name__)


def load_or_make(key: str, make: Callable[[], ImageSet]) -> ImageSet:
    """The set cached under ``key``, else ``make()``, which is then cached.

    key: fit for a file name, and different wherever ``make`` would give other images: it should
    carry a hash of all that goes in, the maker's version included.
    A damaged entry is made again. Where the cache cannot be written, the set is still returned;
    both are said in the log.
    """
    path = cache_folder() / "sets" / f"{key}.npz"
    if _is_file(path):
        try:
            return _read(path)
        except DataError as error:
            log.warning("cache entry is made again: %s", error)
    images = make()
    try:
        _write(path, images)
    except OSError as error:
        log.warning("images are not cached (set LUNGAN_CACHE to a writable folder): %s", error)
    return images


def _read(path: Path) -> ImageSet:
    arrays = read_arrays(path)
    try:
        return ImageSet(
            images=arrays["images"],
            labels=arrays["labels"],
            splits=arrays["splits"],
            class_names=tuple(arrays["class_names"].tolist()),
            split_names=tuple(arrays["split_names"].tolist()),
            source=str(arrays["source"]),
            groups=arrays.get("groups"),
            group_names=tuple(arrays["group_names"].tolist()) if "groups" in arrays else (),
            facts=Facts(**json.loads(str(arrays["facts"]))) if "facts" in arrays else Facts(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no image set of this version: {error}") from error


def _write(path: Path, images: ImageSet) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    groups: dict[str, Any] = {}
    if images.groups is not None:
        groups = {"groups": images.groups, "group_names": np.array(images.group_names)}
    with atomic_write(path) as file:
        np.savez(
            file,
            images=images.images,
            labels=images.labels,
            splits=images.splits,
            class_names=np.array(images.class_names),
            split_names=np.array(images.split_names),
            source=np.array(images.source),
            facts=np.array(json.dumps(dataclasses.asdict(images.facts))),
            **groups,
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A folder on the way may not be entered; writing says so in the log.
        return False
