"""Config of the images."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lungan.config.rules import (
    Part,
    any_seed,
    at_least,
    between,
    filled,
    one_of,
    portion,
    rule,
    subset_of,
    within,
)
from lungan.errors import ConfigError
from lungan.registry import declare

if TYPE_CHECKING:
    from lungan.config.run import RunConfig

SCALES = ("auto", "dtype", "range", "percentile")


def is_scale(value: Any) -> bool:
    if isinstance(value, str):
        return value in SCALES
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(end) in (int, float) and math.isfinite(end) for end in value)
        and value[0] < value[1]
    )


def is_pattern(value: str) -> bool:
    try:
        return bool(re.compile(value))
    except re.error:
        return False


def is_group(value: str) -> bool:
    return value == "folder" or (is_pattern(value) and re.compile(value).groups == 1)


def is_columns(value: Any) -> bool:
    listed = value if isinstance(value, list) else [value]
    return value is None or (bool(listed) and all(isinstance(name, str | int) for name in listed))


_SIZE: Any = between(16, 512)


@dataclass(kw_only=True, slots=True)
class DataConfig(Part):
    """What every reader shares. ``splits`` and ``classes`` choose what the GAN trains on; an
    empty list means all. Scores see the whole set.

    ``fraction`` of the images of ``splits``, class by class, are kept there; the others make up a
    split of their own. ``fraction_seed`` draws which."""

    size: int
    channels: int = one_of(1, 3)
    splits: list[str] = rule(default=[])
    classes: list[str] = rule(default=[])
    fraction: float = portion(neutral=1.0)
    fraction_seed: int = any_seed(neutral=0)


@dataclass(kw_only=True, slots=True)
class PhantomConfig(DataConfig):
    """Procedural chest radiographs drawn from ``seed``; ``num_images`` in train + val."""

    size: int = between(28, 256)
    channels: int = one_of(1)
    splits: list[str] = subset_of("train", "val", "test")
    classes: list[str] = subset_of("normal", "pneumonia")
    num_images: int = between(20, 10**7)
    num_test: int = at_least(4, most=10**7)
    seed: int = at_least(0)


declare("data", "phantom", "lungan.data.phantom:load_phantom", PhantomConfig)


@dataclass(kw_only=True, slots=True)
class PneumoniaMnistConfig(DataConfig):
    """PneumoniaMNIST at ``path`` (a file, or a folder that holds it), LUNGAN_DATA, the cache, or
    downloaded where ``download`` allows it."""

    size: int = one_of(28, 64, 128, 224)
    channels: int = one_of(1)
    splits: list[str] = subset_of("train", "val", "test")
    classes: list[str] = subset_of("normal", "pneumonia")
    path: str | None
    download: bool


declare("data", "pneumoniamnist", "lungan.data.medmnist:load_pneumoniamnist", PneumoniaMnistConfig)


@dataclass(kw_only=True, slots=True)
class FilesConfig(DataConfig):
    """What data sets of image files share.

    ``scale`` says which values become black and white. auto: what the file means by its type or,
    for DICOM, its window; where it means nothing (signed, floating and 32-bit values, DICOM without
    a window), the range of all images of that kind. dtype: the ends of the type. range, percentile:
    of all images of a kind. ``frame``: which of several frames or pages, from 0.

    ``group`` says whose images are one patient's: ``folder`` for sub-folders, or a regular
    expression with one group, searched for in the file name, or in the path if it has a ``/``.
    ``straddle`` is what a group in two given splits is. Without given splits, ``val_fraction`` and
    ``test_fraction`` of the images are drawn by ``split_seed``, whole groups at a time; None is
    the usual share, or nothing where the data brings splits. ``labels=none`` makes one class of
    all."""

    size: int = _SIZE
    path: str = filled("a path")
    scale: Any = rule(
        "auto, dtype, range, percentile or [black, white] with black below white",
        is_scale,
        neutral="auto",
    )
    frame: int | None = at_least(0, neutral=None)
    on_bad_image: str = one_of("error", "skip")
    val_fraction: float | None = within(0, 1)
    test_fraction: float | None = within(0, 1)
    split_seed: int = any_seed(neutral=0)
    group: str | None = rule(
        "folder, or a regular expression with one group, such as '(\\d+)_'", is_group, neutral=None
    )
    straddle: str = one_of("error", "warn", neutral="error")
    labels: str = one_of("auto", "none", neutral="auto")

    def check(self, _run: RunConfig) -> None:
        check_fractions(self.val_fraction, self.test_fraction)


@dataclass(kw_only=True, slots=True)
class FolderConfig(FilesConfig):
    """Image files under ``path``: class folders, split/class folders, or one flat folder.
    ``exclude``: a regular expression; files whose path below ``path`` has it are left out."""

    exclude: str | None = rule("a regular expression", is_pattern, neutral=None)


declare("data", "folder", "lungan.data.folder:load_folder", FolderConfig)


@dataclass(kw_only=True, slots=True)
class TableConfig(FilesConfig):
    """A CSV at ``path`` with a row for each image file; commas, semicolons, tabs or bars between.

    ``root`` is where the files of ``image_column`` lie; None is the table's folder.
    ``label_column``: a column of text, one column of 0 and 1, or a list of such. ``label`` makes
    two classes of lists of findings: those that have it, and the others. ``where`` chooses rows,
    such as ``view=PA,AP; age>=18``."""

    root: str | None
    image_column: str | None
    label_column: Any = rule("a column's name, or a list of them", is_columns)
    label: str | None
    group_column: str | None
    split_column: str | None
    where: str


declare("data", "table", "lungan.data.table:load_table", TableConfig)


@dataclass(kw_only=True, slots=True)
class NpzConfig(DataConfig):
    """An .npz with MedMNIST's keys, or ``images`` and, optionally, ``labels``; ``labels=none``
    ignores them. ``label_column``: which of several labels an image, from 0."""

    size: int = _SIZE
    path: str = filled("a path")
    val_fraction: float = within(0, 1)
    test_fraction: float = within(0, 1)
    labels: str = one_of("auto", "none", neutral="auto")
    label_column: int | None = at_least(0, neutral=None)

    def check(self, _run: RunConfig) -> None:
        check_fractions(self.val_fraction, self.test_fraction)


declare("data", "npz", "lungan.data.npz:load_npz", NpzConfig)


def check_fractions(val_fraction: float | None, test_fraction: float | None) -> None:
    """Raises: ConfigError where they leave nothing to train on."""
    total = (val_fraction or 0) + (test_fraction or 0)
    if total >= 1:
        raise ConfigError(
            f"data.val_fraction + data.test_fraction must be less than 1, got {total:g}"
        )
