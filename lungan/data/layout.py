"""Which files a folder of images holds, and the class and split that each one's place says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lungan.data.partition import SPLITS
from lungan.errors import DataError

ONLY_CLASS = "all"
"""The class of images that stand in no class folder."""

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
"""What operating systems leave in folders, beside names that start with a dot."""


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
