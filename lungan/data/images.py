"""The ImageSet, what every reader gives: images with class, split and group, and drawing of them.

Source: the rule that a patient's images stay on one side, classes kept in proportion as far as
whole groups allow, is that of scikit-learn's StratifiedGroupKFold.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan import memory
from lungan.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")

ONLY_CLASS = "all"
"""The class of images that are given none."""

ONLY_SPLIT = ("all",)
"""The split of images that are given none and are not to be divided."""

LEFT_OUT = "left_out"
"""The split of the images that ``data.fraction`` does not keep: nobody trains on them, scores may
hold them out."""

READERS = {".csv": "table", ".tsv": "table", ".txt": "table", ".npz": "npz"}
"""Which reader a file is for, by its name's ending."""

NUM_NAMED = 10
"""How many files, rows or groups a message names."""


@dataclass(kw_only=True)
class Facts:
    """What a reader found in the files and made of them, for people to check.

    sizes, modes: number of images by ``width x height`` and by kind, such as ``8-bit grey PNG``.
    num_cropped: images that were not square. scaling: how values became 0 to 255, a line each.
    skipped: reason by file. notes: what the reader decided by itself. warnings: what may be wrong.
    about_val: what must be known before anything is chosen by the val split.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    num_cropped: int = 0
    scaling: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    about_val: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with labels, splits and groups, checked when made and never changed after.

    images: (N, C, H, W) uint8, C 1 or 3.
    labels: (N,) int64, an index into ``class_names``.
    splits: (N,) int64, an index into ``split_names``.
    groups: (N,) int64, an index into ``group_names``: images of one group (a patient) are not
    independent. None where nobody said.
    source: what the images are and under which licence, in a few words.

    Raises: DataError where shapes, dtypes or indices do not fit together.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    class_names: tuple[str, ...]
    split_names: tuple[str, ...]
    source: str
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(
                f"images must be (N, C, H, W) uint8, got {self.images.shape} {self.images.dtype}"
            )
        if self.images.shape[1] not in (1, 3):
            raise DataError(f"images must have 1 or 3 channels, got {self.images.shape[1]}")
        for name, index, names in (
            ("labels", self.labels, self.class_names),
            ("splits", self.splits, self.split_names),
            ("groups", self.groups, self.group_names),
        ):
            if index is None:
                continue
            if index.shape != (len(self.images),) or index.dtype != np.int64:
                raise DataError(
                    f"{name} must be ({len(self.images)},) int64, got {index.shape} {index.dtype}"
                )
            if len(index) and not (0 <= index.min() and index.max() < len(names)):
                raise DataError(
                    f"{name} must be from 0 to {len(names) - 1} ({', '.join(names[:10])}), "
                    f"got {index.min()} to {index.max()}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def size(self) -> int:
        """Height and width in pixels: every reader gives square images."""
        return int(self.images.shape[2])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (64 hex digits) of pixels, labels, splits and their names, in their order.

        Groups do not enter the hash: who a patient is changes no image that a GAN sees.
        """
        header = (self.images.shape, self.class_names, self.split_names)
        digest = hashlib.sha256(repr(header).encode())
        for array in (self.images, self.labels, self.splits):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def select(self, splits: Sequence[str], classes: Sequence[str]) -> ImageSet:
        """The images of these splits and classes, in their order; an empty sequence means all.

        Raises: ConfigError for a name that the set does not have, DataError where none is left.
        """
        members = self.members(splits, classes)
        if not members.any():
            raise DataError(
                f"data.splits={list(splits)} and data.classes={list(classes)} leave no image"
            )
        return self.take(members)

    def members(self, splits: Sequence[str], classes: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) bool: which images ``select`` takes. Raises: ConfigError as it does."""
        are_members = np.ones(len(self), dtype=bool)
        for key, index, names, wanted in (
            ("data.splits", self.splits, self.split_names, splits),
            ("data.classes", self.labels, self.class_names, classes),
        ):
            check_names(key, wanted, names)
            if wanted:
                are_members &= np.isin(index, [names.index(name) for name in wanted])
        return are_members

    def take(self, rows: NDArray[Any]) -> ImageSet:
        """The images of these rows: indices in the order wanted, or a mask (N,)."""
        return dataclasses.replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            splits=self.splits[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def of_other_groups(self, members: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) bool: images outside ``members`` (N,) bool whose group has no image inside it.

        Where groups are not known, every image outside.
        """
        if self.groups is None:
            return ~members
        return ~np.isin(self.groups, self.groups[members])


def check_names(key: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raises: ConfigError for a name in ``wanted`` that is not there."""
    for name in wanted:
        if name not in names:
            raise ConfigError(f"{key} must be among {', '.join(names)}, got {name}")


def place_of(image: NDArray[Any]) -> float:
    """Where an image stands from 0 (first) to 1 (excluded), by shape, dtype and pixels alone."""
    digest = hashlib.sha256(f"{image.shape} {image.dtype.str}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return _below_one(digest.digest())


def _redraw(place: float, seed: int) -> float:
    key = seed.to_bytes(16, "big")
    return _below_one(hashlib.blake2b(place.hex().encode(), digest_size=8, key=key).digest())


def _below_one(digest: bytes) -> float:
    """From 53 bits, as many as a float holds, so that rounding never gives 1."""
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def partition(
    places: Sequence[float],
    val_fraction: float,
    test_fraction: float,
    labels: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """(N,) int64, an index into ``SPLITS``: val from the low end of the places, test from the high.

    places: of each image, by ``place_of``, so that exact duplicates stay on one side, and adding an
    image moves no other; the shares are met on average. With groups (N,), a whole group stands
    where ``_places_of_groups`` puts it, exact duplicates join the groups that hold them, and the
    shares are met class by class to within a group. A larger share of one split takes images from
    train only, never from the other. seed: another draw.
    """
    place = np.asarray([_redraw(one, seed) for one in places] if seed else places, np.float64)
    if groups is not None:
        assert labels is not None
        place = _places_of_groups(place, labels, _join_duplicates(groups, place))
    splits = np.zeros(len(place), dtype=np.int64)
    splits[place < val_fraction] = SPLITS.index("val")
    splits[place >= 1 - test_fraction] = SPLITS.index("test")
    return splits


def draw_splits(
    image_set: ImageSet, places: Sequence[float], val: float, test: float, seed: int = 0
) -> ImageSet:
    """The set with the splits of ``partition``; its facts say so."""
    splits = partition(places, val, test, image_set.labels, image_set.groups, seed)
    if val or test:
        unit = "image" if image_set.groups is None else "patient"
        image_set.facts.notes.append(
            f"the data has no splits of its own: {100 * val:g}% of the images for val and "
            f"{100 * test:g}% for test were drawn, {unit} by {unit} (data.val_fraction, "
            "data.test_fraction)"
        )
    image_set.facts.warnings += [
        f"data.{name}_fraction={share:g} puts none of {len(splits)} images into {name}"
        for name, share in (("val", val), ("test", test))
        if share > 0 and not (splits == SPLITS.index(name)).any()
    ]
    return dataclasses.replace(image_set, splits=splits, split_names=SPLITS)


def check_shares(where: Path, val: float | None, test: float | None) -> None:
    """Raises: ConfigError for shares of splits where the data has splits of its own."""
    if val or test:
        raise ConfigError(
            f"data.val_fraction and data.test_fraction must be 0 where {where} has splits of its "
            f"own, got {val or 0:g} and {test or 0:g}"
        )


def check_memory(num_images: int, channels: int, size: int, where: Path) -> None:
    """Raises: ConfigError where each image on its own, and all of them as one array, are more than
    there is memory for."""
    memory.check(
        2 * num_images * channels * size**2,
        f"data.size={size} for the {num_images} images in {where}",
        "choose a smaller data.size, or fewer images",
    )


def keep_fraction(
    image_set: ImageSet, splits: Sequence[str], fraction: float, seed: int
) -> ImageSet:
    """The set with only ``fraction`` of the images of ``splits`` still in them, class by class.

    At least one image of each class stays in each of ``splits``; the others move to ``LEFT_OUT``.
    Which stay follows from their pixels and the seed alone, not from their order, and a smaller
    fraction is part of every larger one of the same seed. Where groups are known, whole ones stay.

    Raises: ConfigError where no splits or unknown ones are named.
    """
    if not splits:
        raise ConfigError(
            "data.splits must name the splits that data.fraction is taken of, such as [train]; "
            "got [], all of them"
        )
    moved = image_set.splits.copy()
    for name in splits:
        members = np.flatnonzero(image_set.members([name], []))
        left = members[~draw_share(image_set, members, fraction, seed)]
        moved[left] = len(image_set.split_names)
    return dataclasses.replace(
        image_set, splits=moved, split_names=(*image_set.split_names, LEFT_OUT)
    )


def draw_share(
    image_set: ImageSet, rows: NDArray[np.intp], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """(len(rows),) bool: about ``fraction`` of the images of each class, at least one; whole groups
    where they are known. Drawn by the pixels and the seed; smaller shares are part of larger ones.
    """
    labels = image_set.labels[rows]
    key = seed.to_bytes(16, "big")
    digests = [
        hashlib.blake2b(image.tobytes(), digest_size=16, key=key).digest()
        for image in image_set.images[rows]
    ]
    drawn = np.zeros(len(rows), dtype=bool)
    if image_set.groups is not None:
        keys = np.array([_below_one(digest) for digest in digests])
        place = _places_of_groups(keys, labels, image_set.groups[rows])
        drawn = place < fraction
        for label in np.unique(labels[~np.isin(labels, labels[drawn])]):
            drawn |= place == place[labels == label].min()
        return drawn
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = sorted(members, key=digests.__getitem__)
        drawn[order[: max(1, round(fraction * len(members)))]] = True
    return drawn


def _places_of_groups(
    keys: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N,) from 0 to 1, the same for all images of a group.

    Each group belongs to the class of which it holds the largest share. The groups of a class
    stand in an order drawn by their smallest keys, each at the middle of its stretch of images.
    """
    names, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (group, labels), 1)
    smallest = np.full(len(names), np.inf)
    np.minimum.at(smallest, group, keys)
    # Drawn anew, as the smallest key of a large group lies lower than that of a small one.
    key = np.array([_redraw(one, 0) for one in smallest.tolist()])
    main_class = (counts / np.maximum(counts.sum(0), 1)).argmax(1)
    place = np.empty(len(names))
    for label in np.unique(main_class):
        members = np.flatnonzero(main_class == label)
        members = members[np.argsort(key[members], kind="stable")]
        sizes = counts[members].sum(1)
        place[members] = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    return np.asarray(place[group])


def _join_duplicates(groups: NDArray[np.int64], places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Groups (N,) in which those that hold an identical image are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, image = np.unique(places, return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    size = int(group.max()) + 1 + int(image.max()) + 1
    links = coo_array((np.ones(len(image)), (group, image + group.max() + 1)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    return np.asarray(component[group], dtype=np.int64)


def say_path(path: Path) -> str:
    """What is at a path where a reader finds nothing that it can use, and which reader can."""
    if not path.exists():
        return f"{path} does not exist"
    kind, reader = "file", READERS.get(path.suffix.lower())
    if path.is_dir():
        kind = reader = "folder"
    return f"{path} is a {kind}" + (f": use data={reader}" if reader else "")


def many(number: int, noun: str) -> str:
    """``1 image`` or ``3 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first(named: Sequence[str]) -> str:
    """The first ten, and how many more there are."""
    more = f", and {len(named) - NUM_NAMED} more" if len(named) > NUM_NAMED else ""
    return ", ".join(named[:NUM_NAMED]) + more


def say_reasons(reasons: dict[str, str]) -> str:
    """``NAME (reason)`` of the first; those of one reason together."""
    names = defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return first([f"{first(found)} ({reason})" for reason, found in names.items()])
