"""Image files listed with class, split and group, by a folder or a table, to an image set."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from tqdm import tqdm

from lungan.config.data import FilesConfig
from lungan.data.cache import Arrays, load_or_make
from lungan.data.decode import BadImageError
from lungan.data.images import (
    ONLY_SPLIT,
    SPLITS,
    Facts,
    ImageSet,
    check_memory,
    check_names,
    check_shares,
    draw_splits,
    first,
    many,
    say_reasons,
)
from lungan.data.scale import Wanted, check_alike, quiet, read_bytes, read_image, scale_images
from lungan.errors import DataError
from lungan.files import is_folder_name

VERSION = 4
"""Part of every cache key: raised when the same files would decode to other images."""

USUAL_SHARE = 0.15
"""Of the images, for val and for test each, where the data has no splits and nobody says."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call the splits, in any case."""

IMAGE_NAME = re.compile(r"\.(png|jpe?g|bmp|tiff?|dcm|dicom|gif|webp)$", re.I)
"""How the names of image files end, where they say what they are."""

Result = TypeVar("Result")


class ImageFile(NamedTuple):
    """An image file with what its place or its table says.

    name: what people know it by. label: its class's name. split: among ``SPLITS``, or empty.
    patient: the sub-folder that may be a patient's, or what the table says, or empty. group: of
    whose images it is one, where the groups are known, which ``load_listing`` finds out.
    """

    path: Path
    name: str
    label: str
    split: str = ""
    patient: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files in the order of their paths. All have a split, or none.

    where: the folder or table, for messages. facts: notes and warnings of the listing.
    """

    where: Path
    files: Sequence[ImageFile]
    facts: Facts

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted({file.label for file in self.files}))

    @property
    def has_splits(self) -> bool:
        return bool(self.files[0].split)


def load_listing(
    listing: Listing, config: FilesConfig, group: str | None, progress: bool
) -> ImageSet:
    """The image set of these files, in their order.

    group: how to find a file's group: ``folder`` for its ``patient``, or a pattern, as in the
    config; None where nobody said.

    Raises: DataError for files that cannot be used where ``on_bad_image`` is ``error``, and for
    groups that stand in two given splits where ``straddle`` is; ConfigError for shares of a split
    where splits are given, and for unknown splits and classes.
    """
    # Before decoding, which may take long.
    check_names("data.splits", config.splits, SPLITS)
    check_names("data.classes", config.classes, listing.class_names)
    if group is not None:
        listing = replace(listing, files=_with_groups(listing, group))
    val, test = config.val_fraction, config.test_fraction
    if listing.has_splits:
        check_shares(listing.where, val, test)
        _check_patients(listing, config.straddle)
    wanted = Wanted(config.size, config.channels, config.scale, config.frame)
    image_set, files, places = decode_files(listing, wanted, config.on_bad_image, progress)
    if not listing.has_splits:
        val, test = (USUAL_SHARE if share is None else share for share in (val, test))
        image_set = draw_splits(image_set, places, val, test, config.split_seed)
    facts = image_set.facts
    if num_copies := len(files) - len(set(places)):
        facts.notes.append(f"{many(num_copies, 'image')} the same as others, pixel for pixel")
    facts.warnings += _doubts(listing, image_set, files, places)
    facts.warnings += listing.facts.warnings
    skipped = f", {len(facts.skipped)} unreadable ones skipped" if facts.skipped else ""
    source = f"{config.name} of {many(len(files), 'image')}{skipped}"
    return replace(image_set, source=f"{source}, at {config.size}x{config.size}")


def decode_files(
    listing: Listing, wanted: Wanted, on_bad_image: str = "error", progress: bool = True
) -> tuple[ImageSet, list[ImageFile], list[float]]:
    """Every file decoded, cropped and resized once, and kept in the cache by its content.

    wanted: without size or channels, the files must be square and alike.

    Returns: the images by the splits of the listing, or of one split where it has none; the files
    that could be used; their ``images.place_of``.

    Raises: DataError naming the files that cannot be used, unless ``on_bad_image`` is ``skip``,
    and where none is left; ConfigError for more pixels than there is memory for.
    """
    paths = [file.path for file in listing.files]
    if wanted.size is not None:
        check_memory(len(paths), wanted.channels or 1, wanted.size, listing.where)
    digests = _in_threads(_digest, paths, "Looking for changed images", progress)
    content = (VERSION, cv2.__version__, PIL.__version__, *wanted, digests)
    key = hashlib.sha256(repr(content).encode()).hexdigest()

    def make() -> Arrays:
        with quiet():
            results = _in_threads(
                lambda path: read_image(path, wanted), paths, "Decoding images", progress
            )
        reasons = [one if isinstance(one, str) else "" for one in results]
        files = _usable(listing, reasons, on_bad_image)
        fitted = [one for one in results if not isinstance(one, str)]
        check_alike([file.name for file in files], fitted, wanted.size, wanted.channels)
        images, facts = scale_images(fitted, wanted.scale)
        return {
            "images": images,
            "places": np.array([one.place for one in fitted]),
            "reasons": np.array(json.dumps(reasons)),
            "facts": np.array(json.dumps(asdict(facts))),
        }

    arrays = load_or_make(f"files-{key}", {"images", "places", "reasons", "facts"}, make)
    reasons = json.loads(str(arrays["reasons"]))
    files = _usable(listing, reasons, on_bad_image)
    facts = Facts(**json.loads(str(arrays["facts"])))
    facts.skipped = {f.name: why for f, why in zip(listing.files, reasons, strict=True) if why}
    facts.notes += listing.facts.notes
    split_names = SPLITS if listing.has_splits else ONLY_SPLIT
    group_names = tuple(sorted({file.group for file in files if file.group}))
    image_set = ImageSet(
        images=arrays["images"],
        labels=_number([file.label for file in files], listing.class_names),
        splits=_number([file.split or ONLY_SPLIT[0] for file in files], split_names),
        class_names=listing.class_names,
        split_names=split_names,
        source=f"folder of {many(len(files), 'image')}",
        groups=_number([file.group for file in files], group_names) if group_names else None,
        group_names=group_names,
        facts=facts,
    )
    return image_set, files, arrays["places"].tolist()


def _usable(listing: Listing, reasons: Sequence[str], on_bad_image: str) -> list[ImageFile]:
    """The files without a reason against them. Raises: DataError as ``decode_files``."""
    files = list(zip(listing.files, reasons, strict=True))
    bad = {file.name: reason for file, reason in files if reason}
    if len(bad) == len(files):
        raise DataError(
            f"none of the {len(bad)} files in {listing.where} can be used: {say_reasons(bad)}"
        )
    if bad and on_bad_image == "error":
        raise DataError(
            f"{len(bad)} of {len(files)} files in {listing.where} cannot be used: "
            f"{say_reasons(bad)}; repair or remove them, or set data.on_bad_image=skip "
            "(--on-bad-image skip in lungan.score)"
        )
    return [file for file, reason in files if not reason]


def _number(names: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """(N,) int64: where each name stands in ``known``."""
    index = {name: at for at, name in enumerate(known)}
    return np.array([index[name] for name in names], dtype=np.int64)


def _with_groups(listing: Listing, rule: str) -> list[ImageFile]:
    """The files with their groups; a file without one is a group of its own.

    Raises: DataError naming the files in which a pattern finds none.
    """
    files, groups = listing.files, _find_groups(listing.files, rule)
    alone = [file.name for file, group in zip(files, groups, strict=True) if not group]
    if alone and rule != "folder":
        raise DataError(
            f"data.group='{rule}' finds no group in the {'paths' if '/' in rule else 'names'} "
            f"of {len(alone)} of {len(files)} files: {first(alone)}; it must be a regular "
            "expression whose one pair of parentheses is round the patient"
        )
    if alone:
        listing.facts.notes.append(
            f"{many(len(alone), 'image')} without a patient, each taken for a patient of its "
            f"own: {first(alone)}"
        )
    return [
        file._replace(group=group or f"file {file.name}")
        for file, group in zip(files, groups, strict=True)
    ]


def _find_groups(files: Sequence[ImageFile], rule: str) -> list[str]:
    """Each file's ``patient``, or what a pattern finds in its name, or in its path if the pattern
    has a ``/``; empty where there is none."""
    if rule == "folder":
        return [file.patient for file in files]
    texts = [file.name if "/" in rule else file.name.rpartition("/")[2] for file in files]
    return [found[1] if (found := re.search(rule, text)) else "" for text in texts]


def _check_patients(listing: Listing, straddle: str) -> None:
    """Raises: DataError for groups in two given splits, or warns of them, as ``straddle`` says.

    Drawn splits hold whole groups.
    """
    grouped = [file for file in listing.files if file.group]  # all, or none
    found = _straddling([file.group for file in grouped], [file.split for file in grouped])
    if not found:
        return
    said = (
        f"{many(len(found), 'patient')} in more than one split: {first(found)}; that makes every "
        "score look better than it is"
    )
    if straddle == "error":
        raise DataError(f"{said}. Move their images, or go on by data.straddle=warn")
    listing.facts.warnings.append(said)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except BadImageError as error:  # Decoding says so; another reason is another content.
        return str(error)


def _doubts(
    listing: Listing,
    image_set: ImageSet,
    files: Sequence[ImageFile],
    places: Sequence[float],
) -> Iterator[str]:
    """What may be wrong, of which only people can say whether it is."""
    splits = [SPLITS[split] for split in image_set.splits]
    if image_set.groups is None:
        yield from _suspect_groups(listing, files, splits)
    for what, sides in (("split", splits), ("class", [file.label for file in files])):
        copies: dict[float, dict[str, str]] = defaultdict(dict)
        for place, side, file in zip(places, sides, files, strict=True):
            copies[place].setdefault(side, f"{file.name} in {side}")
        if copied := [" and ".join(each.values()) for each in copies.values() if len(each) > 1]:
            number = many(len(copied), "image")
            yield f"{number} in more than one {what}, pixel for pixel: {first(copied)}"
    pixels = image_set.images.reshape(len(files), -1)
    is_flat = pixels.min(axis=1) == pixels.max(axis=1)
    if flat := [file.name for file, one in zip(files, is_flat, strict=True) if one]:
        yield (
            f"{many(len(flat), 'image')} of one shade, which may show nothing: {first(flat)}; "
            "data.scale=range takes black and white from the values of the files"
        )
    counts = Counter(file.label for file in listing.files)
    alone = [name for name in listing.class_names if counts[name] == 1]
    if alone and len(counts) > 1:
        yield (
            f"{len(alone)} of {len(counts)} classes have one image only: {first(alone)}; "
            "data.classes takes fewer classes, and of a table data.where, or data.label one "
            "against all"
        )
    spellings = defaultdict(list)
    for name in listing.class_names:
        word = unicodedata.normalize("NFC", name.casefold())
        spellings[" ".join(re.split(r"[\s_-]+", word))].append(name)
    if alike := [" and ".join(names) for names in spellings.values() if len(names) > 1]:
        yield (
            f"classes that differ only in their spelling are taken for different: {first(alike)}; "
            "if they are one, spell them alike"
        )
    if unfit := [name for name in listing.class_names if not is_folder_name(name)]:
        yield (
            "images of classes cannot be generated into folders of their names, rename them: "
            f"{first(unfit)}"
        )


def _straddling(names: Sequence[str], sides: Sequence[str]) -> list[str]:
    """``NAME in train and test`` of each name that stands on more than one side."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, side in zip(names, sides, strict=True):
        found[name].add(side)
    order = [*SPLITS, *sorted({*sides} - {*SPLITS})]
    return [
        f"{name} in {' and '.join(sorted(found[name], key=order.index))}"
        for name in sorted(found)
        if len(found[name]) > 1
    ]


_GUESSES = (
    ("sub-folders", "folder"),
    ("beginnings of file names", r"^(\d+)_"),
    ("beginnings of file names", r"^(\d+)-"),
    ("beginnings of file names", r"^(.*?\d+)[_-]"),
    # At any depth, such as CheXpert's patient/study/.
    *(("folders", f"^((?:[^/]+/){{{depth}}})") for depth in range(1, 6)),
)
"""What may be patients, and the ``data.group`` that says so."""


def _suspect_groups(
    listing: Listing, files: Sequence[ImageFile], splits: Sequence[str]
) -> Iterator[str]:
    """A warning where sub-folders or beginnings of file names may be patients in two splits."""
    for what, rule in _GUESSES:
        found = _find_groups(files, rule)
        groups = [group or file.name for file, group in zip(files, found, strict=True)]
        sizes = Counter(groups)
        # What few or many files share are classes or series, not patients.
        if (
            found.count("") > 0.1 * len(files)
            or len(sizes) < max(5, 3 * len(listing.class_names) + 1 if what == "folders" else 0)
            or max(sizes.values()) > max(20, len(files) / 5)
        ):
            continue
        if straddling := _straddling(groups, splits):
            option = rule if rule == "folder" else f"'{rule}'"
            way_out = "keeps each in one split"
            if listing.has_splits:
                way_out = "says that they are, and such splits are then refused"
            yield (
                f"{len(straddling)} of {len(sizes)} {what} stand in more than one split "
                f"({', '.join(straddling[:3])}): if they are patients, every score looks better "
                f"than it is; data.group={option} {way_out}"
            )
            return


def _in_threads(
    work: Callable[[Path], Result], paths: Sequence[Path], description: str, progress: bool
) -> list[Result]:
    """``work`` of each path, in order; hashing and decoding leave Python's lock."""
    num_threads = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    # disable=None: no bar where stderr is no terminal.
    hidden = None if progress else True
    with ThreadPool(num_threads) as pool:
        # A few at a time: handing over a small file alone costs as much as half its decoding.
        done = pool.imap(work, paths, chunksize=16)
        return list(tqdm(done, description, len(paths), unit=" files", disable=hidden))
