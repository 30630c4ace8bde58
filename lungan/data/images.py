"""The ImageSet: what every reader gives, and what training and scoring take."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lungan.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with labels and splits, checked when made and never changed after.

    images: (N, C, H, W) uint8, C 1 or 3.
    labels: (N,) int64, an index into ``class_names``.
    splits: (N,) int64, an index into ``split_names``.
    source: what the images are and under which licence, in a few words.

    Raises: DataError where shapes, dtypes or indices do not fit together.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    class_names: tuple[str, ...]
    split_names: tuple[str, ...]
    source: str
    _hash: list[str] = field(default_factory=list, repr=False, compare=False)

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
        ):
            if index.shape != (len(self.images),) or index.dtype != np.int64:
                raise DataError(
                    f"{name} must be ({len(self.images)},) int64, got {index.shape} {index.dtype}"
                )
            if len(index) and not (0 <= index.min() and index.max() < len(names)):
                raise DataError(
                    f"{name} must be from 0 to {len(names) - 1} ({', '.join(names)}), "
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

    @property
    def content_hash(self) -> str:
        """SHA-256 (64 hex digits) of pixels, labels, splits and their names, in their order."""
        if not self._hash:
            digest = hashlib.sha256()
            header = (self.images.shape, self.class_names, self.split_names)
            digest.update(repr(header).encode())
            for array in (self.images, self.labels, self.splits):
                digest.update(np.ascontiguousarray(array).data)
            self._hash.append(digest.hexdigest())
        return self._hash[0]

    def select(self, splits: Sequence[str], classes: Sequence[str]) -> ImageSet:
        """The images of these splits and classes, in their order; an empty sequence means all.

        Raises: ConfigError for a name that the set does not have, DataError where none is left.
        """
        keep = self._members("data.splits", self.splits, self.split_names, splits)
        keep &= self._members("data.classes", self.labels, self.class_names, classes)
        if not keep.any():
            raise DataError(
                f"data.splits={list(splits)} and data.classes={list(classes)} leave no image"
            )
        return ImageSet(
            images=self.images[keep],
            labels=self.labels[keep],
            splits=self.splits[keep],
            class_names=self.class_names,
            split_names=self.split_names,
            source=self.source,
        )

    @staticmethod
    def _members(
        key: str, index: NDArray[np.int64], names: tuple[str, ...], wanted: Sequence[str]
    ) -> NDArray[np.bool_]:
        for name in wanted:
            if name not in names:
                raise ConfigError(f"{key} must be among {', '.join(names)}, got {name}")
        if not wanted:
            return np.ones(len(index), dtype=bool)
        return np.isin(index, [names.index(name) for name in wanted])
