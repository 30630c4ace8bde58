"""What was taken of the data, as lines to read and as plain values to keep."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import Any

import numpy as np

from lungan.config import DataConfig
from lungan.data.images import ImageSet, first, many


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
    kind = "grey" if image_set.channels == 1 else "color"
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
        named = [f"{name} ({reason})" for name, reason in facts.skipped.items()]
        lines.append(f"  skipped: {many(len(named), 'file')} that cannot be used: {first(named)}")
    notes = [*facts.notes, facts.about_val] if facts.about_val else facts.notes
    lines += [f"  note: {note}" for note in notes]
    return lines + [f"  warning: {warning}" for warning in facts.warnings]


def summarize(image_set: ImageSet) -> dict[str, Any]:
    """The same as plain values: ``counts`` by class and split, ``groups`` by split (None where
    nobody said), and the fields of ``Facts``."""
    groups = None
    if image_set.groups is not None:
        groups = dict(zip(image_set.split_names, _count_groups(image_set), strict=True))
    return {
        "counts": {
            name: dict(zip(image_set.split_names, counts, strict=True))
            for name, counts in zip(image_set.class_names, _count(image_set), strict=True)
        },
        "groups": groups,
        **dataclasses.asdict(image_set.facts),
    }


def _table(image_set: ImageSet) -> list[str]:
    counts = np.array(_count(image_set))
    columns = np.flatnonzero(counts.sum(0))
    rows = [["", *(image_set.split_names[column] for column in columns), "all"]]
    rows += [
        [name, *(str(row[column]) for column in columns), str(row.sum())]
        for name, row in zip(image_set.class_names, counts, strict=True)
    ]
    if len(counts) > 1:
        total = counts.sum(0)
        rows.append(["all", *(str(total[column]) for column in columns), str(total.sum())])
    if image_set.groups is not None:
        by_split = _count_groups(image_set)
        number = len(np.unique(image_set.groups))
        rows.append(["patients", *(str(by_split[column]) for column in columns), str(number)])
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


def _count(image_set: ImageSet) -> list[list[int]]:
    """Images by class and split."""
    counts = np.zeros((len(image_set.class_names), len(image_set.split_names)), dtype=int)
    np.add.at(counts, (image_set.labels, image_set.splits), 1)
    return [[int(count) for count in row] for row in counts]


def _count_groups(image_set: ImageSet) -> list[int]:
    assert image_set.groups is not None
    return [
        len(np.unique(image_set.groups[image_set.splits == split]))
        for split in range(len(image_set.split_names))
    ]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
