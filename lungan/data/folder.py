"""data=folder: image files under one folder, whose places say class, split and patient."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from lungan.config.data import FolderConfig
from lungan.data.images import ONLY_CLASS, SPLITS, ImageSet, first, many, say_path
from lungan.data.listing import (
    SPLIT_WORDS,
    ImageFile,
    Listing,
    fill_groups,
    load_listing,
    match_groups,
)
from lungan.errors import DataError
from lungan.files import at_home, cache_folder

Parts = tuple[str, ...]
"""The folders of a path and the file's name."""

_SYSTEM_FILES = {
    *("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "@eadir", "#recycle", "lost+found"),
}
"""What operating systems leave in folders, beside names that start with a dot."""

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".gif", ".webp"}
_DOCUMENTS = {
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".html", ".htm", ".yaml", ".yml"),
    *(".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ods", ".log", ".py", ".ipynb"),
}
"""Files that are no images and stand among them all the same."""

_GENERATED = "images that lungan generated"

_MASK_FOLDERS = re.compile(
    r"masks?|labels?|gt|ground[ _-]?truths?|(.*[ _-])?masks|seg|segmentations?|annotations?", re.I
)
_SPLIT_IN_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?![a-z])", re.I
)
_MASK_FILES = re.compile(r"[ _-](mask|seg|segmentation|label|gt)([ _-]?\d+)?$", re.I)


def load_folder(config: FolderConfig, *, progress: bool = True) -> ImageSet:
    """The images under ``config.path``, in the order of their paths.

    Raises: DataError for a folder that cannot be used, or files that cannot where
    ``on_bad_image`` is ``error``; ConfigError for shares of a split where split folders are.
    """
    listing = read_layout(
        at_home(config.path),
        exclude=config.exclude,
        group=config.group,
        with_classes=config.labels != "none",
    )
    return load_listing(listing, config, progress)


def read_layout(
    root: Path,
    *,
    exclude: str | None = None,
    group: str | None = None,
    with_classes: bool = True,
) -> Listing:
    """Class folders, train/val/test folders of class folders or images, or one flat folder.

    exclude: a pattern; files whose path below ``root`` has it are left out. group: ``folder`` or a
    pattern, as in the config. with_classes: without, all images are of one class.

    Raises: DataError where ``root`` is no folder, is empty, or mixes these, where it holds masks
    beside images, or is lungan's own output.
    """
    if not root.is_dir():
        raise DataError(f"data.path must be a folder of images, {say_path(root)}")
    names, empty, notes = _walk(root)
    if exclude is not None:
        kept = [name for name in names if not re.search(exclude, name)]
        notes.append(f"data.exclude={exclude} left out {many(len(names) - len(kept), 'file')}")
        names, empty = kept, []
    documents = [name for name in names if Path(name).suffix.lower() in _DOCUMENTS]
    if documents and len(documents) < len(names):
        names = sorted(set(names) - set(documents))
        notes.append(
            f"{many(len(documents), 'file')} left out, no image by name: {first(documents)}"
        )
    if not names:
        but = "" if exclude is None else f" but those that data.exclude={exclude} leaves out"
        raise DataError(f"data.path must hold images, {root} has none{but}")
    paths: list[Parts] = [tuple(name.split("/")) for name in names]
    depth = _look_inside(root, paths, group, notes)
    has_splits = _check_splits(root, {_folder(path, depth) for path in paths} - {""})
    level = depth + has_splits  # where the class folders are
    if has_splits:
        paths = _without_strays(root, paths, depth)
    labels = [ONLY_CLASS] * len(paths)
    if with_classes:
        paths = _without_strays(root, paths, level)
        labels = [_folder(path, level) or ONLY_CLASS for path in paths]
        level += 1
        top = root.joinpath(*paths[0][:depth])
        _check_classes(top, set(labels), [folder for folder in empty if len(folder) == level])
    _check_below(root, paths, level)
    names = ["/".join(path) for path in paths]
    folders = [_folder(path, level) for path in paths]
    groups = _groups(root, group, names, folders, notes)
    files = [
        ImageFile(
            path=root / name,
            name=name,
            label=label,
            split=SPLIT_WORDS[path[depth].lower()] if has_splits else "",
            group=one,
            folder=folder,
        )
        for path, name, label, one, folder in zip(
            paths, names, labels, groups, folders, strict=True
        )
    ]
    return Listing(where=root, files=files, notes=notes, warnings=_suspect_classes(set(labels)))


def _folder(path: Parts, level: int) -> str:
    """The folder of the path at this level, or nothing where the file itself stands there."""
    return path[level] if len(path) > level + 1 else ""


def _suspect_classes(classes: set[str]) -> list[str]:
    """A warning where class folders may be patients."""
    if len(classes) < 5 or not all(re.search(r"\d", name) for name in classes):
        return []
    return [
        f"the {len(classes)} classes are folders with numbers in their names "
        f"({', '.join(sorted(classes)[:3])}, ...): if they are patients, every score looks better "
        "than it is; data.labels=none data.group=folder says that they are"
    ]


def _look_inside(root: Path, parts: Sequence[Parts], group: str | None, notes: list[str]) -> int:
    """How many folders lie round the data, each the only one where it is and without images."""
    depth = 0
    while min(map(len, parts)) > depth + 2 and len({part[depth] for part in parts}) == 1:
        name, inner = parts[0][depth], sorted({part[depth + 1] for part in parts})
        if name.lower() in SPLIT_WORDS:
            break
        here = "/".join((str(root), *parts[0][: depth + 1]))
        if not any(one.lower() in SPLIT_WORDS for one in inner):
            if group == "folder":
                break
            if all(re.search(r"\d", one) for one in inner):  # patients have numbers
                notes.append(
                    f"{name} is the only class, its {len(inner)} numbered sub-folders are parts of "
                    f"it ({inner[0]}, ...); if they are classes, give data.path={here}"
                )
                break
        depth += 1
        notes.append(f"{name} is the only folder of {root}: read as if data.path were {here}")
    return depth


def _check_splits(root: Path, tops: set[str]) -> bool:
    """Whether the top folders are splits. Raises: DataError where only some are."""
    splits = {top for top in tops if top.lower() in SPLIT_WORDS}
    if splits and splits != tops:
        raise DataError(
            f"{root} must hold class folders or only the splits {', '.join(SPLITS)}, got "
            f"{', '.join(sorted(splits))} beside {', '.join(sorted(tops - splits)[:5])}; move the "
            "others away, or leave them out by data.exclude"
        )
    return bool(splits)


def _without_strays(root: Path, paths: list[Parts], level: int) -> list[Parts]:
    """Without the files that stand beside folders at this level: a licence, a table of labels.

    Raises: DataError where one is an image, which has no class or split there.
    """
    beside = {path[:level]: path[level] for path in paths if len(path) > level + 1}
    strays = {path for path in paths if len(path) == level + 1 and path[:level] in beside}
    for path in sorted(strays):
        if Path(path[-1]).suffix.lower() in _IMAGES:
            raise DataError(
                f"{root.joinpath(*path[:-1])} must hold images or class folders, not both: "
                f"{path[-1]} stands beside {beside[path[:level]]}; data.labels=none makes one "
                "class of all"
            )
    return [path for path in paths if path not in strays]


def _check_classes(top: Path, names: set[str], empty: Sequence[Parts]) -> None:
    if ONLY_CLASS in names and len(names) > 1:
        raise DataError(
            f"{top}: either every split must hold class folders, or none of them "
            f"(classes found: {', '.join(sorted(names))})"
        )
    if empty:
        raise DataError(f"class folder {'/'.join(empty[0])} of {top} is empty; remove or fill it")
    words = {found[0].lower() for name in names for found in _SPLIT_IN_NAME.finditer(name)}
    if len({SPLIT_WORDS[word] for word in words}) > 1:
        raise DataError(
            f"{top} holds folders whose names say splits ({first(sorted(names))}), and they would "
            f"be taken for classes; name them {', '.join(SPLITS)}, or give data.labels=none"
        )
    masks = sorted(name for name in names if _MASK_FOLDERS.fullmatch(name))
    if masks and len(names) > 1:
        raise DataError(_say_masks(top, masks[0], [*sorted(names - {*masks}), *masks[1:]][0]))


def _check_below(root: Path, paths: Sequence[Parts], level: int) -> None:
    """Raises: DataError where class folders hold splits, or masks beside images."""
    splits = [path for path in paths if _folder(path, level).lower() in SPLIT_WORDS]
    if splits:
        path = splits[0]
        raise DataError(
            f"class folder {'/'.join(path[:level])} of {root} holds folders named like splits "
            f"({', '.join(sorted({path[level] for path in splits}))}): splits must stand above "
            f"classes, as in "
            f"{path[level]}/{path[level - 1]}; move them, or give a table with "
            "data=table data.split_column=..."
        )
    for path in paths:
        for name in filter(_MASK_FOLDERS.fullmatch, path[level:-1]):
            raise DataError(_say_masks(root.joinpath(*path[:level]), name, "images"))
    stems = {(*path[:-1], Path(path[-1]).stem) for path in paths}
    masks = [
        (stem[-1], found)
        for stem in sorted(stems)
        if (found := _MASK_FILES.search(stem[-1]))
        and (*stem[:-1], stem[-1][: found.start()]) in stems
    ]
    if masks:
        stem, found = masks[0]
        raise DataError(
            f"{root} holds masks beside images, and both would be trained on: "
            f"{many(len(masks), 'file')}, such as {stem} beside {stem[: found.start()]}; leave "
            f"them out by data.exclude={found[0].strip().rstrip('0123456789 _-')}"
        )


def _say_masks(where: Path, masks: str, images: str) -> str:
    return (
        f"{where} holds {masks} beside {images}, and both would be trained on; leave out the "
        f"{masks} by data.exclude={masks}/"
    )


def _groups(
    root: Path, group: str | None, names: Sequence[str], folders: Sequence[str], notes: list[str]
) -> list[str]:
    """The name of each file's group; nothing where ``group`` is None."""
    if group is None:
        return [""] * len(names)
    if group != "folder":
        return match_groups(group, names)
    if not any(folders):
        raise DataError(
            f"data.group=folder needs a sub-folder for each patient, and {root} has none; where "
            r"file names begin with the patient, give a pattern such as data.group='(\d+)_'"
        )
    return fill_groups(folders, names, "in no sub-folder", notes)


def _walk(root: Path) -> tuple[list[str], list[Parts], list[str]]:
    """Files, empty folders, and a note where lungan's own output is there and was not entered.

    Raises: DataError where a folder cannot be listed, or ``root`` is lungan's own.
    """
    files: list[str] = []
    empty: set[Parts] = set()
    outputs: list[str] = []
    links: list[str] = []
    seen = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for parent, folders, names in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(parent)
        here = Path(parent).relative_to(root)
        what = _output(Path(real), set(names))
        if what and here == Path() and what != _GENERATED:  # what was generated may be scored
            raise DataError(f"data.path must be a folder of images, {root} is {what}")
        if what and here != Path():
            outputs.append(f"{here.as_posix()} ({what})")
            names.clear()
        if real in seen:
            links.append(here.as_posix())
        if real in seen or (what and here != Path()):
            empty.discard(here.parts)
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            filter(_counts, folders), key=lambda name: (Path(parent, name).is_symlink(), name)
        )
        empty |= {(*here.parts, name) for name in folders}
        found = [(here / name).as_posix() for name in names if _counts(name)]
        if found:
            files += found
            empty -= {here.parts[:end] for end in range(1, len(here.parts) + 1)}
    outputs.sort()
    notes = [f"lungan's own output was left out: {first(outputs)}"] if outputs else []
    if links:
        notes.append(f"links to folders that were read already were left out: {first(links)}")
    return sorted(files), sorted(empty), notes


def _output(folder: Path, names: set[str]) -> str | None:
    """What of lungan's own a folder is, by the names in it; None for other folders."""
    if "config.yaml" in names and {"log.txt", "metrics.jsonl", "claim.json"} & names:
        return "a run of lungan"
    if ".lock" in names and not any(_counts(name) for name in names):
        return "a store of lungan's runs"
    if {"manifest.csv", "README.md"} <= names:
        return _GENERATED
    if folder == cache_folder().resolve():
        return "lungan's cache"
    if "report.html" in names and {"results.csv", "utility.csv"} & names:
        return "a report of lungan"
    return None


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM_FILES
