"""data=folder: image files under one folder, whose places say class, split and patient."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lungan.config.data import FolderConfig
from lungan.data.images import ONLY_CLASS, SPLITS, ImageSet, first, many
from lungan.data.listing import SPLIT_WORDS, Listing, load_listing, match_groups
from lungan.errors import DataError
from lungan.files import at_home, cache_folder

Parts = tuple[str, ...]
"""The folders of a path and the file's name."""

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
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
        what = "is a file" if root.exists() else "does not exist"
        reader = {".csv": "table", ".tsv": "table", ".npz": "npz"}.get(root.suffix.lower())
        if root.exists() and reader:
            what = f"is a file: use data={reader}"
        raise DataError(f"data.path must be a folder of images, {root} {what}")
    files, empty, outputs = _walk(root)
    notes = []
    if outputs:
        notes.append(f"lungan's own output was left out: {first(outputs)}")
    if exclude is not None:
        kept = [file for file in files if not re.search(exclude, file)]
        notes.append(f"data.exclude={exclude} left out {many(len(files) - len(kept), 'file')}")
        files, empty = kept, []
    documents = [file for file in files if Path(file).suffix.lower() in _DOCUMENTS]
    if documents and len(documents) < len(files):
        files = sorted(set(files) - set(documents))
        notes.append(
            f"{many(len(documents), 'file')} left out, no image by name: {first(documents)}"
        )
    if not files:
        raise DataError(f"data.path must hold images, {root} has none")
    parts = [tuple(file.split("/")) for file in files]
    depth = _look_inside(root, parts, group, notes)
    tops = {part[depth] for part in parts if len(part) > depth + 1}
    has_splits = bool(tops) and _check_splits(root, tops)
    level = depth + has_splits  # where the class folders are
    if has_splits:
        parts = _without_strays(root, parts, depth)
    if with_classes:
        parts = [
            part
            for top in sorted(tops if has_splits else {""})
            for part in _without_strays(
                root, [one for one in parts if not has_splits or one[depth] == top], level
            )
        ]
    parts.sort(key="/".join)
    files = ["/".join(part) for part in parts]
    classes = [ONLY_CLASS] * len(files)
    if with_classes:
        classes = [part[level] if len(part) > level + 1 else ONLY_CLASS for part in parts]
        level += 1
        top = "/".join((str(root), *parts[0][:depth]))
        _check_classes(top, set(classes), [folder for folder in empty if len(folder) == level])
    _check_below(root, parts, level)
    class_names = tuple(sorted(set(classes)))
    warnings = []
    if len(class_names) >= 5 and all(re.search(r"\d", name) for name in class_names):
        warnings.append(
            f"the {len(class_names)} classes are folders with numbers in their names "
            f"({', '.join(class_names[:3])}, ...): if they are patients, every score looks better "
            "than it is; data.labels=none data.group=folder says that they are"
        )
    number = {name: index for index, name in enumerate(class_names)}
    subfolders = [part[level] if len(part) > level + 1 else "" for part in parts]
    return Listing(
        where=root,
        paths=[root / file for file in files],
        names=files,
        labels=[number[name] for name in classes],
        class_names=class_names,
        splits=[SPLITS.index(SPLIT_WORDS[part[depth].lower()]) for part in parts]
        if has_splits
        else [],
        groups=_groups(root, group, files, subfolders, notes),
        folders=subfolders,
        notes=notes,
        warnings=warnings,
    )


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
    """Whether the folders are splits. Raises: DataError where only some are."""
    splits = {top for top in tops if top.lower() in SPLIT_WORDS}
    if splits and splits != tops:
        raise DataError(
            f"{root} must hold class folders or only the splits {', '.join(SPLITS)}, got "
            f"{', '.join(sorted(splits))} beside {', '.join(sorted(tops - splits)[:5])}; move the "
            "others away, or leave them out by data.exclude"
        )
    return bool(splits)


def _without_strays(root: Path, parts: list[Parts], level: int) -> list[Parts]:
    """Without the files that stand beside folders at this level: a licence, a table of labels.

    Raises: DataError where one is an image, which has no class or split there.
    """
    beside = [part for part in parts if len(part) == level + 1]
    if not beside or len(beside) == len(parts):
        return parts
    inner = [part for part in parts if len(part) > level + 1]
    if images := [part for part in beside if Path(part[-1]).suffix.lower() in _IMAGES]:
        where = "/".join((str(root), *images[0][:-1]))
        raise DataError(
            f"{where} must hold images or class folders, not both: "
            f"{images[0][-1]} stands beside {inner[0][level]}; data.labels=none makes one class "
            "of all"
        )
    return inner


def _check_classes(top: str, names: set[str], empty: Sequence[Parts]) -> None:
    if ONLY_CLASS in names and len(names) > 1:
        raise DataError(
            f"{top}: either every split must hold class folders, or none of them "
            f"(classes found: {', '.join(sorted(names))})"
        )
    if empty:
        raise DataError(f"class folder {'/'.join(empty[0])} of {top} is empty; remove or fill it")
    masks = [name for name in sorted(names) if _MASK_FOLDERS.fullmatch(name)]
    if masks and len(names) > 1:
        others = sorted(names - set(masks)) or masks[1:]
        raise DataError(_say_masks(top, masks[0], others[0]))


def _check_below(root: Path, parts: Sequence[Parts], level: int) -> None:
    """Raises: DataError where class folders hold splits, or masks beside images."""
    names = {part[level] for part in parts if len(part) > level + 1}
    splits = sorted(name for name in names if name.lower() in SPLIT_WORDS)
    if splits:
        example = next(part for part in parts if len(part) > level + 1 and part[level] in splits)
        raise DataError(
            f"class folder {'/'.join(example[:level])} of {root} holds folders named like splits "
            f"({', '.join(splits)}): splits must stand above classes, as in "
            f"{example[level]}/{example[level - 1]}; move them, or give a table with "
            "data=table data.split_column=..."
        )
    for part in parts:
        for name in part[level:-1]:
            if _MASK_FOLDERS.fullmatch(name):
                raise DataError(_say_masks(f"{root}/{'/'.join(part[:level])}", name, "images"))
    stems = {(*part[:-1], Path(part[-1]).stem) for part in parts}
    masks = [
        stem for stem in sorted(stems)
        if (found := _MASK_FILES.search(stem[-1]))
        and (*stem[:-1], stem[-1][: found.start()]) in stems
    ]  # fmt: skip
    if masks:
        found = _MASK_FILES.search(masks[0][-1])
        assert found is not None
        ending = found[0].strip().rstrip("0123456789 _-")
        raise DataError(
            f"{root} holds masks beside images, and both would be trained on: "
            f"{many(len(masks), 'file')}, such as {masks[0][-1]} beside "
            f"{masks[0][-1][: found.start()]}; leave them out by data.exclude={ending}"
        )


def _say_masks(where: str, masks: str, images: str) -> str:
    return (
        f"{where} holds {masks} beside {images}, and both would be trained on; leave out the "
        f"{masks} by data.exclude={masks}/"
    )


def _groups(
    root: Path,
    group: str | None,
    files: Sequence[str],
    subfolders: Sequence[str],
    notes: list[str],
) -> Sequence[str]:
    """The name of each file's group; none where ``group`` is None."""
    if group is None:
        return ()
    if group != "folder":
        return match_groups(group, files)
    if not any(subfolders):
        raise DataError(
            f"data.group=folder needs a sub-folder for each patient, and {root} has none; where "
            r"file names begin with the patient, give a pattern such as data.group='(\d+)_'"
        )
    if alone := [file for file, name in zip(files, subfolders, strict=True) if not name]:
        number = many(len(alone), "image")
        notes.append(f"{number} in no sub-folder, each taken for a patient: {first(alone)}")
    return [name or f"file {file}" for file, name in zip(files, subfolders, strict=True)]


def _walk(root: Path) -> tuple[list[str], list[Parts], list[str]]:
    """Files, empty folders, and what of lungan's own output is there and was not entered.

    Raises: DataError where a folder cannot be listed, or ``root`` is lungan's own.
    """
    files: list[str] = []
    found_folders: list[Parts] = []
    outputs: dict[Parts, str] = {}
    seen = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for parent, folders, names in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # A link leads back to where we have been.
            folders.clear()
            continue
        seen.add(real)
        here = Path(parent).relative_to(root)
        what = _output(Path(real), set(names))
        if what and here == Path() and what != _GENERATED:  # what was generated may be scored
            raise DataError(f"data.path must be a folder of images, {root} is {what}")
        if what and here != Path():
            outputs[here.parts] = what
            folders.clear()
            continue
        folders[:] = [name for name in folders if _counts(name)]
        found_folders += [(*here.parts, name) for name in folders]
        files += [(here / name).as_posix() for name in names if _counts(name)]
    held = {part for file in files for part in _parents(file)} | outputs.keys()
    empty = [folder for folder in found_folders if folder not in held]
    said = sorted(f"{'/'.join(folder)} ({what})" for folder, what in outputs.items())
    return sorted(files), empty, said


def _parents(file: str) -> Iterable[Parts]:
    parts = file.split("/")
    return (tuple(parts[:end]) for end in range(1, len(parts)))


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
