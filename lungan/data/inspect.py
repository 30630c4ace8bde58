"""What was taken of the data, as lines to read and as plain values to keep."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.config import DataConfig
from lungan.data.images import ImageSet, many, say_reasons


def describe(image_set: ImageSet, config: DataConfig) -> list[str]:
    """Lines for people who want to see that their images were taken as they meant them.

    The number of images by class and split, the groups, what the files are, what became of them,
    and what may be wrong.
    """
    place = getattr(config, "path", None)
    members = image_set.members(config.splits, config.classes)
    chosen = [f"data.{key}=[{','.join(names)}]" for key, names in
              (("splits", config.splits), ("classes", config.classes)) if names]  # fmt: skip
    share = "" if config.fraction == 1 else f", of which data.fraction={config.fraction:g}"
    return describe_images(
        image_set,
        f"data={config.name}{f' data.path={place}' if place else ''}",
        f"to train on: {many(members.sum(), 'image')} ({', '.join(chosen) or 'all'}{share})",
    )


def describe_images(image_set: ImageSet, name: str, *chosen: str) -> list[str]:
    """The same lines for images called ``name`` that no config describes.

    chosen: lines after the table of counts, which say what of the images is used.
    """
    facts = image_set.facts
    kind = "grey" if image_set.channels == 1 else "colour"
    lines = [
        f"{name}: {many(len(image_set), 'image')}, "
        f"taken as {kind} at {image_set.size}x{image_set.size} pixels",
        *_table(image_set),
        *(f"  {line}" for line in chosen),
    ]
    if facts.modes:
        lines.append(f"  files: {_counted(facts.modes)}")
    if facts.sizes:
        cropped = f"{facts.num_cropped} cropped to the centre square"
        if not facts.num_cropped:
            cropped = "all are square, none cropped"
        lines.append(f"  sizes: {_counted(facts.sizes)}; {cropped}")
    lines += [f"  scaled: {line}" for line in facts.scaling]
    if facts.skipped:
        number = many(len(facts.skipped), "file")
        lines.append(f"  skipped: {number} that cannot be used: {say_reasons(facts.skipped)}")
    notes = [*facts.notes, facts.about_val] if facts.about_val else facts.notes
    lines += [f"  note: {note}" for note in notes]
    return lines + [f"  warning: {warning}" for warning in facts.warnings]


def summarize(image_set: ImageSet) -> dict[str, Any]:
    """The same as plain values: ``counts`` by class and split, ``groups`` by split (None where
    nobody said), and the fields of ``Facts``."""
    splits, groups = image_set.split_names, None
    if image_set.groups is not None:
        groups = dict(zip(splits, _count_groups(image_set).tolist(), strict=True))
    rows = zip(image_set.class_names, _count(image_set).tolist(), strict=True)
    counts = {name: dict(zip(splits, row, strict=True)) for name, row in rows}
    return {"counts": counts, "groups": groups, **dataclasses.asdict(image_set.facts)}


def _table(image_set: ImageSet) -> list[str]:
    counts = _count(image_set)
    columns = np.flatnonzero(counts.sum(0))
    totals = [*zip(image_set.class_names, counts, counts.sum(1), strict=True)]
    if len(counts) > 1:
        totals.append(("all", counts.sum(0), counts.sum()))
    if image_set.groups is not None:
        totals.append(("patients", _count_groups(image_set), len(np.unique(image_set.groups))))
    rows = [["", *(image_set.split_names[column] for column in columns), "all"]]
    rows += [[name, *map(str, row[columns]), str(total)] for name, row, total in totals]
    widths = [max(map(_width, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        fill = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [row[0] + fill[0], *map("".join, zip(fill[1:], row[1:], strict=True))]
        lines.append(f"  {'  '.join(cells)}")
    return lines


def _width(text: str) -> int:
    """Columns in a terminal: Chinese, Japanese and Korean characters take two, accents none."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


def _count(image_set: ImageSet) -> NDArray[np.intp]:
    """(classes, splits): the number of images."""
    shape = (len(image_set.class_names), len(image_set.split_names))
    cells = np.ravel_multi_index((image_set.labels, image_set.splits), shape)
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _count_groups(image_set: ImageSet) -> NDArray[np.intp]:
    """(splits,): the number of groups."""
    pairs = np.unique([image_set.splits, image_set.groups], axis=1)
    return np.bincount(pairs[0], minlength=len(image_set.split_names))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
