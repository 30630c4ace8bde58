"""Image files listed with class, split and group, by a folder or a table, to an image set."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from tqdm import tqdm

from lungan import memory
from lungan.config.data import FilesConfig
from lungan.data.cache import Arrays, load_or_make
from lungan.data.images import NUM_NAMED, SPLITS, Facts, ImageSet, first, many, partition, say_empty
from lungan.data.scale import FittedImage, Scale, read_image, scale_images
from lungan.data.stored import BadImageError, quiet, read_bytes
from lungan.errors import ConfigError, DataError

VERSION = 2
"""Part of every cache key: raised when the same files would decode to other images."""

USUAL_SHARE = 0.15
"""Of the images, for val and for test each, where the data has no splits and nobody says."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call the splits, in any case."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files in the order of their paths, with what their place or their table says of each.

    where: the folder or table, for messages. names: what people know the files by. labels: an
    index into class_names. splits: an index into ``SPLITS``; empty where none are given. groups:
    a name each; empty where none are given. folders: of each file, the sub-folder that may be a
    patient's, or nothing. notes, warnings: as in ``Facts``.
    """

    where: Path
    paths: Sequence[Path]
    names: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    splits: Sequence[int] = ()
    groups: Sequence[str] = ()
    folders: Sequence[str] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """images: (N, C, H, W) uint8 of the files that could be used. kept: their indices in the
    listing. places: by ``images.place_of``."""

    images: NDArray[np.uint8]
    kept: NDArray[np.int64]
    places: NDArray[np.float64]
    facts: Facts


def load_listing(listing: Listing, config: FilesConfig, progress: bool) -> ImageSet:
    """The image set of these files, in their order.

    Raises: DataError for files that cannot be used where ``on_bad_image`` is ``error``, and for
    groups that stand in two given splits where ``straddle`` is; ConfigError for shares of a split
    where splits are given.
    """
    shares = [config.val_fraction, config.test_fraction]
    if listing.splits and any(shares):
        raise ConfigError(
            f"data.val_fraction and data.test_fraction must be 0 or null where {listing.where} "
            f"has splits of its own, got {shares[0] or 0:g} and {shares[1] or 0:g}"
        )
    decoded = decode_files(
        listing,
        config.size,
        config.channels,
        scale=config.scale,
        frame=config.frame,
        on_bad_image=config.on_bad_image,
        progress=progress,
    )
    kept = decoded.kept
    labels = np.array(listing.labels, dtype=np.int64)[kept]
    groups, group_names = _number([listing.groups[index] for index in kept if listing.groups])
    notes, warnings = [*decoded.facts.notes, *listing.notes], [*decoded.facts.warnings]
    if listing.splits:
        splits = np.array(listing.splits, dtype=np.int64)[kept]
        # Splits that are drawn keep copies together.
        warnings += _say_copies(decoded, listing, "split", splits, SPLITS)
    else:
        val, test = (USUAL_SHARE if share is None else share for share in shares)
        splits = partition(decoded.places.tolist(), val, test, labels, groups, config.split_seed)
        warnings += say_empty(splits, val, test)
        if val or test:
            notes.append(
                f"the data has no splits of its own: {val:.0%} of the images for val and "
                f"{test:.0%} for test were drawn, {'image' if groups is None else 'patient'} by "
                f"{'image' if groups is None else 'patient'} (data.val_fraction, "
                "data.test_fraction)"
            )
    if groups is not None:
        if straddling := _straddling(groups, splits):
            named = [f"{group_names[group]} in {where}" for group, where in straddling.items()]
            said = (
                f"{many(len(named), 'patient')} in more than one split: {first(named)}; that makes "
                "every score look better than it is"
            )
            if config.straddle == "error":
                raise DataError(f"{said}. Move their images, or go on by data.straddle=warn")
            warnings.append(said)
    else:
        warnings += _suspect_groups(listing, kept, splits)
    warnings += _say_copies(decoded, listing, "class", labels, listing.class_names)
    warnings += _say_spellings(listing.class_names)
    skipped = decoded.facts.skipped
    return ImageSet(
        images=decoded.images,
        labels=labels,
        splits=splits,
        class_names=listing.class_names,
        split_names=SPLITS,
        source=f"{config.name} of {len(kept)} images"
        f"{f', {len(skipped)} unreadable ones skipped' if skipped else ''}, "
        f"at {config.size}x{config.size}",
        groups=groups,
        group_names=group_names,
        facts=dataclasses.replace(
            decoded.facts, notes=notes, warnings=[*warnings, *listing.warnings]
        ),
    )


def decode_files(
    listing: Listing,
    size: int | None,
    channels: int | None,
    *,
    scale: Scale = "auto",
    frame: int | None = None,
    on_bad_image: str = "error",
    progress: bool = True,
) -> Decoded:
    """Every file decoded, cropped and resized once, and kept in the cache by its content.

    size, channels: None keeps the files' own, which then must be square and alike.

    Raises: DataError naming the files that cannot be used, unless ``on_bad_image`` is ``skip``,
    and where none is left; ConfigError for more pixels than there is memory for.
    """
    if size is not None:
        # Each image on its own, and all of them as one array.
        memory.check(
            2 * len(listing.paths) * (channels or 1) * size**2,
            f"data.size={size} for the {len(listing.paths)} images in {listing.where}",
            "choose a smaller data.size, or fewer images",
        )
    digests = _in_threads(_digest, listing.paths, "Looking for changed images", progress)
    content = (VERSION, cv2.__version__, PIL.__version__, size, channels, scale, frame, digests)
    key = hashlib.sha256(repr(content).encode()).hexdigest()

    def decode(path: Path) -> FittedImage | str:
        return read_image(path, size, channels, scale=scale, frame=frame)

    def make() -> Arrays:
        with quiet():
            results = _in_threads(decode, listing.paths, "Decoding images", progress)
        reasons = {index: one for index, one in enumerate(results) if isinstance(one, str)}
        _check_bad(listing, reasons, on_bad_image)
        kept = [index for index in range(len(results)) if index not in reasons]
        fitted = [one for one in results if not isinstance(one, str)]
        if size is None or channels is None:
            _check_alike(listing, kept, fitted, size, channels)
        scaled = scale_images(fitted, scale)
        facts = Facts(
            sizes=_count_sizes(fitted),
            modes=dict(collections.Counter(one.mode for one in fitted).most_common()),
            num_cropped=sum(one.is_cropped for one in fitted),
            scaling=list(scaled.notes),
            notes=_say_changed(fitted, channels),
            warnings=list(scaled.warnings),
        )
        return {
            "images": scaled.images,
            "kept": np.array(kept, dtype=np.int64),
            "places": np.array([one.place for one in fitted]),
            "reasons": np.array(json.dumps(reasons)),
            "facts": np.array(json.dumps(dataclasses.asdict(facts))),
        }

    names = {"images", "kept", "places", "reasons", "facts"}
    arrays = load_or_make(f"files-{key}", names, make)
    reasons = {int(index): one for index, one in json.loads(str(arrays["reasons"])).items()}
    _check_bad(listing, reasons, on_bad_image)
    facts = Facts(**json.loads(str(arrays["facts"])))
    skipped = {listing.names[index]: reason for index, reason in reasons.items()}
    return Decoded(
        images=arrays["images"],
        kept=arrays["kept"],
        places=arrays["places"],
        facts=dataclasses.replace(facts, skipped=skipped),
    )


def match_groups(pattern: str, names: Sequence[str]) -> list[str]:
    """The group that ``pattern`` finds in each file name, or in the path if it has a ``/``.

    Raises: DataError naming the files in which it finds none.
    """
    texts = names if "/" in pattern else [name.rpartition("/")[2] for name in names]
    found = [re.search(pattern, text) for text in texts]
    if without := [text for text, one in zip(texts, found, strict=True) if not one or not one[1]]:
        raise DataError(
            f"data.group='{pattern}' finds no group in {len(without)} of {len(names)} "
            f"{'paths' if '/' in pattern else 'file names'}: {first(without)}; it must be a "
            "regular expression whose one pair of parentheses is round the patient"
        )
    return [one[1] for one in found if one]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except BadImageError as error:  # Decoding says so; another reason is another content.
        return str(error)


def _check_bad(listing: Listing, reasons: dict[int, str], on_bad_image: str) -> None:
    bad = [f"{listing.names[index]} ({reason})" for index, reason in reasons.items()]
    where, total = listing.where, len(listing.paths)
    if bad and len(bad) == total:
        raise DataError(f"none of the {total} files in {where} can be used: {first(bad)}")
    if bad and on_bad_image == "error":
        raise DataError(
            f"{len(bad)} of {total} files in {where} cannot be used: {first(bad)}; repair or "
            "remove them, or set data.on_bad_image=skip (--on-bad-image skip in lungan.score)"
        )


def _check_alike(
    listing: Listing,
    kept: Sequence[int],
    fitted: Sequence[FittedImage],
    size: int | None,
    channels: int | None,
) -> None:
    def words(image: FittedImage) -> str:
        return f"{image.width}x{image.height} {'grey' if len(image.pixels) == 1 else 'in color'}"

    one = fitted[0]
    for index, other in zip(kept, fitted, strict=True):
        differs = channels is None and len(other.pixels) != len(one.pixels)
        if size is None and (other.is_cropped or other.width != one.width):
            rule, way_out = "square and of one size", "--size 64 crops to the centre and resizes"
        elif differs:
            rule, way_out = "all grey or all in color", "--channels 1 makes all grey"
        else:
            continue
        raise DataError(
            f"images must be {rule}: {listing.names[kept[0]]} is {words(one)} and "
            f"{listing.names[index]} {words(other)}; {way_out}"
        )


def _count_sizes(fitted: Sequence[FittedImage]) -> dict[str, int]:
    """By ``width x height``, the ten most frequent; the others together."""
    counts = collections.Counter((one.width, one.height) for one in fitted).most_common()
    named = {f"{width}x{height}": count for (width, height), count in counts[:NUM_NAMED]}
    if others := counts[NUM_NAMED:]:
        sides = [side for size, _ in others for side in size]
        text = f"{len(others)} other sizes, sides from {min(sides)} to {max(sides)}"
        named[text] = sum(count for _, count in others)
    return named


def _say_changed(fitted: Sequence[FittedImage], channels: int | None) -> list[str]:
    num_colour = sum(one.mode.startswith("colour") for one in fitted)
    num_turned = sum(one.is_turned for one in fitted)
    num_windowed = sum(one.is_windowed for one in fitted)
    notes = []
    if num_colour and channels == 1:
        notes.append(
            f"{many(num_colour, 'image')} in colour made grey; data.channels=3 keeps colour"
        )
    if num_turned:
        notes.append(f"{many(num_turned, 'image')} turned upright, as EXIF data say")
    if num_windowed:
        notes.append(f"{many(num_windowed, 'DICOM image')} seen through the file's own window")
    return notes


def _number(names: Sequence[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    if not names:
        return None, ()
    unique, index = np.unique(np.array(names), return_inverse=True)
    return index.astype(np.int64), tuple(unique.tolist())


def _say_spellings(class_names: Sequence[str]) -> list[str]:
    """A warning where classes are one word in several spellings."""
    spellings: dict[str, list[str]] = collections.defaultdict(list)
    for name in class_names:
        spellings[" ".join(re.split(r"[\s_-]+", name.casefold()))].append(name)
    alike = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    if not alike:
        return []
    return [
        f"classes that differ only in their spelling are taken for different: {first(alike)}; if "
        "they are one, spell them alike"
    ]


def _straddling(
    groups: NDArray[np.int64], sides: NDArray[np.int64], names: Sequence[str] = SPLITS
) -> dict[int, str]:
    """The groups that stand on more than one side, in more than one split say, and in which."""
    pairs = np.unique(np.stack([groups, sides], axis=1), axis=0)
    found: dict[int, list[str]] = collections.defaultdict(list)
    for group, side in pairs.tolist():
        found[group].append(names[side])
    return {group: " and ".join(where) for group, where in found.items() if len(where) > 1}


def _say_copies(
    decoded: Decoded, listing: Listing, what: str, sides: NDArray[np.int64], names: Sequence[str]
) -> list[str]:
    """A warning where one image stands in more than one split, or ``what`` else ``names`` are."""
    _, image = np.unique(decoded.places, return_inverse=True)
    copied = _straddling(image, sides, names)
    if not copied:
        return []
    where = {number: listing.names[at] for number, at in zip(image, decoded.kept, strict=True)}
    examples = [f"{where[number]} in {found}" for number, found in copied.items()]
    return [
        f"{many(len(copied), 'image')} in more than one {what}, pixel for pixel: {first(examples)}"
    ]


_PATIENT_IN_NAME = (r"^(\d+)_", r"^(\d+)-", r"^(.*?\d+)[_-]")
"""How file names begin with a patient, the narrowest first."""


def _suspect_groups(
    listing: Listing, kept: NDArray[np.int64], splits: NDArray[np.int64]
) -> list[str]:
    """A warning where sub-folders or beginnings of file names may be patients in two splits."""
    if len(np.unique(splits)) < 2:
        return []
    candidates: list[tuple[str, str, Sequence[str]]] = []
    if any(listing.folders):
        candidates.append(("sub-folders", "folder", listing.folders))
    stems = [name.rpartition("/")[2] for name in listing.names]
    for pattern in _PATIENT_IN_NAME:
        found = [re.search(pattern, stem) for stem in stems]
        if sum(one is not None for one in found) > 0.9 * len(stems):
            beginnings = [one[1] if one else stem for one, stem in zip(found, stems, strict=True)]
            candidates.append(("beginnings of file names", f"'{pattern}'", beginnings))
            break
    # Folders at any depth, such as CheXpert's patient/study/; those of classes are few or large.
    paths = [name.split("/") for name in listing.names]
    for depth in range(1, min(map(len, paths))):
        pattern = f"'^((?:[^/]+/){{{depth}}})'"
        folders = ["/".join(path[:depth]) for path in paths]
        if len(set(folders)) > 3 * len(listing.class_names):
            candidates.append(("folders", pattern, folders))
    way_out = "keeps each in one split"
    if listing.splits:
        way_out = "says that they are, and such splits are then refused"
    for what, option, names in candidates:
        groups, unique = _number([names[index] for index in kept])
        assert groups is not None
        # A handful of beginnings that many files share are classes or series, not patients.
        if len(unique) < 5 or np.bincount(groups).max() > max(20, len(groups) / 5):
            continue
        if straddling := _straddling(groups, splits):
            examples = [f"{unique[group]} in {where}" for group, where in straddling.items()]
            return [
                f"{len(straddling)} of {len(unique)} {what} stand in more than one split "
                f"({', '.join(examples[:3])}): if they are patients, every score looks better than "
                f"it is; data.group={option} {way_out}"
            ]
    return []


def _in_threads(
    work: Callable[[Path], Result], paths: Sequence[Path], description: str, progress: bool
) -> list[Result]:
    """``work`` of each path, in order; hashing and decoding leave Python's lock."""
    num_threads = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    # A few at a time: handing over a small file alone costs as much as half its decoding.
    parts = [paths[start : start + 16] for start in range(0, len(paths), 16)]
    executor = ThreadPoolExecutor(num_threads)
    done = executor.map(lambda part: [work(path) for path in part], parts)
    results: list[Result] = []
    try:
        # disable=None: no bar where stderr is no terminal.
        hidden = None if progress else True
        with tqdm(desc=description, total=len(paths), unit=" files", disable=hidden) as bar:
            for part in done:
                results += part
                bar.update(len(part))
        return results
    finally:
        executor.shutdown(cancel_futures=True)
