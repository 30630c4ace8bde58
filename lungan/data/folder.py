"""data=folder: image files under one folder, whose places say class, split and patient."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from lungan.config.data import FolderConfig
from lungan.data.images import ONLY_CLASS, SPLITS, Facts, ImageSet, first, many, say_path
from lungan.data.listing import IMAGE_NAME, SPLIT_WORDS, ImageFile, Listing, load_listing
from lungan.errors import DataError
from lungan.files import at_home, cache_folder

Parts = tuple[str, ...]
"""The folders of a path and the file's name."""

_SYSTEM_FILES = {
    *("thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "@eadir", "#recycle", "lost+found"),
}
"""What operating systems leave in folders, beside names that start with a dot."""

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
    with_classes = config.labels != "none"
    listing = read_layout(at_home(config.path), config.exclude, config.group, with_classes)
    return load_listing(listing, config, config.group, progress)


def read_layout(
    root: Path, exclude: str | None = None, group: str | None = None, with_classes: bool = True
) -> Listing:
    """Class folders, train/val/test folders of class folders or images, or one flat folder.

    exclude: a pattern; files whose path below ``root`` has it are left out. group: ``folder`` or a
    pattern, as in the config. with_classes: without, all images are of one class.

    Raises: DataError where ``root`` is no folder, is empty, or mixes these, where it holds masks
    beside images, or is lungan's own output.
    """
    if not root.is_dir():
        raise DataError(f"data.path must be a folder of images, {say_path(root)}")
    facts = Facts()
    found, empty = _walk(root, facts.notes)
    paths, but = found, ""
    if exclude is not None:
        paths = [path for path in found if not re.search(exclude, "/".join(path))]
        number = many(len(found) - len(paths), "file")
        facts.notes.append(f"data.exclude={exclude} left out {number}")
        but, empty = f" but those that data.exclude={exclude} leaves out", []
    documents = {path for path in paths if Path(path[-1]).suffix.lower() in _DOCUMENTS}
    if 0 < len(documents) < len(paths):
        names = ["/".join(path) for path in paths if path in documents]
        facts.notes.append(f"{many(len(names), 'file')} left out, no image by name: {first(names)}")
        paths = [path for path in paths if path not in documents]
    if not paths:
        raise DataError(f"data.path must hold images, {root} has none{but}")
    top = _look_inside(root, paths, group, facts.notes)
    tops = {_folder(path, top) for path in paths} - {""}
    splits = {name for name in tops if name.lower() in SPLIT_WORDS}
    if splits and splits != tops:
        raise DataError(
            f"{root} must hold class folders or only the splits {', '.join(SPLITS)}, got "
            f"{', '.join(sorted(splits))} beside {', '.join(sorted(tops - splits)[:5])}; move the "
            "others away, or leave them out by data.exclude"
        )
    below = top + bool(splits) + with_classes
    for level in range(top, below):
        paths = _without_strays(root, paths, level)
    labels = [_folder(path, below - 1) if with_classes else "" for path in paths]
    if with_classes:
        _check_classes(root.joinpath(*paths[0][:top]), set(labels), facts.warnings)
        # A folder is empty where there is no file below it, however deep it is.
        for path in sorted({path[:below] for path in empty} - {path[:below] for path in paths}):
            if len(path) == below:
                raise DataError(
                    f"class folder {'/'.join(path)} of {root} is empty; remove or fill it"
                )
    _check_below(root, paths, below, below - 1 if len(set(labels)) > 1 else below)
    folders = [_folder(path, below) for path in paths]
    if group == "folder" and not any(folders):
        raise DataError(
            f"data.group=folder needs a sub-folder for each patient, and {root} has none; where "
            r"file names begin with the patient, give a pattern such as data.group='(\d+)_'"
        )
    files = [
        ImageFile(
            path=root.joinpath(*path),
            name="/".join(path),
            label=label or ONLY_CLASS,
            split=SPLIT_WORDS[path[top].lower()] if splits else "",
            patient=folder,
        )
        for path, label, folder in zip(paths, labels, folders, strict=True)
    ]
    return Listing(where=root, files=files, facts=facts)


def _folder(path: Parts, level: int) -> str:
    """The folder of the path at this level, or nothing where the file itself stands there."""
    return path[level] if len(path) > level + 1 else ""


def _look_inside(root: Path, paths: Sequence[Parts], group: str | None, notes: list[str]) -> int:
    """How many folders lie round the data, each the only one where it is and without images."""
    depth = 0
    while min(map(len, paths)) > depth + 2 and len({path[depth] for path in paths}) == 1:
        name, inner = paths[0][depth], sorted({path[depth + 1] for path in paths})
        above_splits = any(one.lower() in SPLIT_WORDS for one in inner)
        if name.lower() in SPLIT_WORDS or (group == "folder" and not above_splits):
            break
        here = root.joinpath(*paths[0][: depth + 1]).as_posix()
        # Patients have numbers.
        if not above_splits and all(re.search(r"\d", one) for one in inner):
            notes.append(
                f"{name} is the only class, its {len(inner)} numbered sub-folders are parts of "
                f"it ({inner[0]}, ...); if they are classes, give data.path={here}"
            )
            break
        depth += 1
        notes.append(f"{name} is the only folder of {root}: read as if data.path were {here}")
    return depth


def _without_strays(root: Path, paths: list[Parts], level: int) -> list[Parts]:
    """Without the files that stand beside folders at this level: a licence, a table of labels.

    Raises: DataError where one is an image, which has no class or split there.
    """
    beside = {path[:level]: path[level] for path in paths if len(path) > level + 1}
    strays = {path for path in paths if len(path) == level + 1 and path[:level] in beside}
    for path in sorted(strays):
        if IMAGE_NAME.search(path[-1]):
            raise DataError(
                f"{root.joinpath(*path[:-1])} must hold images or class folders, not both: "
                f"{path[-1]} stands beside {beside[path[:level]]}; data.labels=none makes one "
                "class of all"
            )
    return [path for path in paths if path not in strays]


def _check_classes(top: Path, names: set[str], warnings: list[str]) -> None:
    """Raises: DataError for names of splits. A warning where the classes may be patients."""
    if "" in names and len(names) > 1:
        raise DataError(
            f"{top}: either every split must hold class folders, or none of them "
            f"(classes found: {', '.join(sorted(names - {''}))})"
        )
    words = {found[0].lower() for name in names for found in _SPLIT_IN_NAME.finditer(name)}
    if len({SPLIT_WORDS[word] for word in words}) > 1:
        raise DataError(
            f"{top} holds folders whose names say splits ({first(sorted(names))}), and they would "
            f"be taken for classes; name them {', '.join(SPLITS)}, or give data.labels=none"
        )
    if len(names) >= 5 and all(re.search(r"\d", name) for name in names):
        warnings.append(
            f"the {len(names)} classes are folders with numbers in their names "
            f"({', '.join(sorted(names)[:3])}, ...): if they are patients, every score looks "
            "better than it is; data.labels=none data.group=folder says that they are"
        )


def _check_below(root: Path, paths: Sequence[Parts], level: int, mask_level: int) -> None:
    """Raises: DataError for folders of splits at ``level``, the first below the classes; for
    folders of masks from ``mask_level`` on; and for masks beside their images."""
    for path in paths:
        if _folder(path, level).lower() in SPLIT_WORDS:
            raise DataError(
                f"class folder {'/'.join(path[:level])} of {root} holds {path[level]}, named like "
                f"a split: splits must stand above classes, as in {path[level]}/{path[level - 1]}; "
                "move them, or give a table with data=table data.split_column=..."
            )
        for depth, name in enumerate(path[:-1]):
            if depth >= mask_level and _MASK_FOLDERS.fullmatch(name):
                raise DataError(
                    f"{root.joinpath(*path[:depth])} holds {name} beside images, and both would be "
                    f"trained on; leave out the {name} by data.exclude={name}/"
                )
    stems = {(*path[:-1], Path(path[-1]).stem) for path in paths}
    masks = [
        (stem, found)
        for *above, stem in sorted(stems)
        if (found := _MASK_FILES.search(stem)) and (*above, stem[: found.start()]) in stems
    ]
    if masks:
        stem, found = masks[0]
        raise DataError(
            f"{root} holds masks beside images, and both would be trained on: "
            f"{many(len(masks), 'file')}, such as {stem} beside {stem[: found.start()]}; leave "
            f"them out by data.exclude={found[0].strip().rstrip('0123456789 _-')}"
        )


def _walk(root: Path, notes: list[str]) -> tuple[list[Parts], list[Parts]]:
    """Files, and folders without anything in them. Lungan's own output and links to folders that
    were read already are not entered, which a note says.

    Raises: DataError where a folder cannot be listed, or ``root`` is lungan's own.
    """
    files: list[Parts] = []
    empty: list[Parts] = []
    left_out: list[str] = []
    seen = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for parent, folders, names in os.walk(root, onerror=fail, followlinks=True):
        real, here = os.path.realpath(parent), Path(parent).relative_to(root)
        what = _output(Path(real), set(names))
        if not here.parts and what and what != _GENERATED:  # what was generated may be scored
            raise DataError(f"data.path must be a folder of images, {root} is {what}")
        if real in seen:
            what = "a link to a folder that was read already"
        if here.parts and what:
            left_out.append(f"{here.as_posix()} ({what})")
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            filter(_counts, folders), key=lambda name: (Path(parent, name).is_symlink(), name)
        )
        files += [(*here.parts, name) for name in filter(_counts, names)]
        if not folders and not any(map(_counts, names)):
            empty.append(here.parts)
    if left_out:
        notes.append(f"folders left out: {first(sorted(left_out))}")
    return sorted(files, key="/".join), empty


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
