"""data=table: image files that a table lists, with label, patient and split in its columns."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lungan.config.data import TableConfig
from lungan.data.cells import choose_rows, find_column, guess_column, normalize, read_cells
from lungan.data.images import ONLY_CLASS, SPLITS, ImageSet, first, many
from lungan.data.listing import SPLIT_WORDS, Listing, load_listing, match_groups
from lungan.errors import ConfigError, DataError
from lungan.files import at_home

if TYPE_CHECKING:
    import pandas as pd

_LIST = re.compile(r"\s*[|;,]\s*")


def load_table(config: TableConfig, *, progress: bool = True) -> ImageSet:
    """The images that the table at ``config.path`` lists, in the order of their paths.

    Raises: DataError for a table that cannot be read or used, and rows that cannot where
    ``on_bad_image`` is ``error``; ConfigError for columns that it does not have.
    """
    return load_listing(read_listing(config), config, progress)


def read_listing(config: TableConfig) -> Listing:
    """Raises: as ``load_table``."""
    path = at_home(config.path)
    notes: list[str] = []
    warnings: list[str] = []
    table = read_cells(path, _given_columns(config), notes)
    columns = [str(name) for name in table.columns]
    if config.image_column is None:
        guess = guess_column(table)
        hint = f"; {guess} looks like it" if guess else ""
        raise ConfigError(
            f"data.image_column must name the column of files, one of {first(columns)}{hint}"
        )
    image_column = find_column(config.image_column, "data.image_column", columns)
    if config.where.strip():
        num_rows = len(table)
        table = choose_rows(table, config.where, columns)
        notes.append(f"data.where='{config.where}' took {len(table)} of {num_rows} rows")
        if table.empty and num_rows:
            raise DataError(
                f"data.where='{config.where}' must take at least one of the {num_rows} rows of "
                f"{path}, it takes none"
            )
    if table.empty:
        raise DataError(f"data.path must list images, {path} has no rows")
    root = path.parent if config.root is None else at_home(config.root)
    if not root.is_dir():
        raise DataError(f"data.root must be a folder, {root} does not exist")

    rows = [str(name) for name in table.index]
    texts = table[image_column].tolist()
    paths = _find_files(root, texts, notes)
    labels, wrong = _read_labels(table, config, columns)
    bad = [
        f"{row} ({text or 'no file name'})"
        for row, text, found in zip(rows, texts, paths, strict=True)
        if found is None
    ]
    _check_rows(config, bad, len(table), f"no file in {root}", warnings, "data.root says where")
    bad = [f"{row} ({wrong[at]})" for at, row in enumerate(rows) if at in wrong and paths[at]]
    way_out = "data.where chooses rows"
    _check_rows(config, bad, len(table), "no label that can be used", warnings, way_out)
    good = [at for at, found in enumerate(paths) if found is not None and at not in wrong]
    good = _without_duplicates(config, table, image_column, good, paths, labels, rows, warnings)
    # In the order of the files, as a folder of them is.
    good.sort(key=lambda at: _key(paths[at]))

    class_names = tuple(sorted({labels[at] for at in good}))
    counts = collections.Counter(labels[at] for at in good)
    if alone := [name for name in class_names if counts[name] == 1]:
        warnings.append(
            f"{len(alone)} of {len(class_names)} classes have one image only: {first(alone)}; "
            "data.classes or data.where takes fewer classes, data.label one against all others"
        )
    number = {name: index for index, name in enumerate(class_names)}
    files = [file for at in good if (file := paths[at]) is not None]
    names = [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
    return Listing(
        where=path,
        paths=files,
        names=names,
        labels=[number[labels[at]] for at in good],
        class_names=class_names,
        splits=_read_splits(table, config, columns, good, rows),
        groups=_read_groups(table, config, columns, good, names, notes),
        notes=notes,
        warnings=warnings,
    )


def _given_columns(config: TableConfig) -> list[str]:
    names = [config.image_column, config.group_column, config.split_column]
    return [name for name in (*names, *_label_columns(config)) if name is not None]


def _label_columns(config: TableConfig) -> list[str]:
    given = config.label_column
    if given is None or config.labels == "none":
        return []
    return [str(name) for name in (given if isinstance(given, list) else [given])]


def _find_files(root: Path, texts: Sequence[str], notes: list[str]) -> list[Path | None]:
    """Where each file lies: at its path below ``root``, or the end of its path, or its name."""
    found: list[Path | None] = []
    by_name: dict[str, list[Path]] | None = None
    num_searched = 0
    for text in texts:
        path = _at(root, text)
        if path is None and text:
            if by_name is None:
                by_name = _index(root)
            candidates = by_name.get(re.split(r"[/\\]", text)[-1].casefold(), [])
            path = candidates[0] if len(candidates) == 1 else None
            num_searched += path is not None
        found.append(path)
    if num_searched:
        notes.append(f"{many(num_searched, 'file')} found by name alone, in sub-folders of {root}")
    return found


def _at(root: Path, text: str) -> Path | None:
    if not text:
        return None
    parts = re.split(r"[/\\]+", text)
    for start in range(len(parts)):
        path = root / "/".join(parts[start:])
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def _index(root: Path) -> dict[str, list[Path]]:
    """Files by name, and by name without its ending."""
    index: dict[str, list[Path]] = collections.defaultdict(list)
    for parent, _, names in os.walk(root, followlinks=False):
        for name in names:
            for key in {name.casefold(), Path(name).stem.casefold()}:
                index[key].append(Path(parent, name))
    return index


def _read_labels(
    table: pd.DataFrame, config: TableConfig, columns: Sequence[str]
) -> tuple[list[str], dict[int, str]]:
    """The class of each row, and by row what is wrong with its label."""
    names = [find_column(name, "data.label_column", columns) for name in _label_columns(config)]
    label = config.label
    if not names:
        if label is not None:
            raise ConfigError("data.label needs data.label_column, the column that has it")
        return [ONLY_CLASS] * len(table), {}
    wrong: dict[int, str] = {}
    labels: list[str] = []
    if len(names) == 1 and not _is_binary(table[names[0]]):
        cells = table[names[0]].tolist()
        for at, cell in enumerate(cells):
            if not cell:
                wrong[at] = "no label"
        if label is not None:
            has = [label.casefold() in _LIST.split(cell.casefold()) for cell in cells]
            if not any(has):
                values = collections.Counter(
                    one for cell in table[names[0]] for one in _LIST.split(cell) if one
                )
                raise ConfigError(
                    f"data.label must be a value of {names[0]}, such as "
                    f"{first([value for value, _ in values.most_common()])}; got {label}"
                )
            labels = [_as_name(label) if one else f"not_{_as_name(label)}" for one in has]
        elif any("|" in cell for cell in cells):
            findings = collections.Counter(one for cell in cells for one in cell.split("|") if one)
            raise ConfigError(
                f"{names[0]} holds lists of findings, so data.label must say which one is against "
                f"all others: {first([finding for finding, _ in findings.most_common()])}"
            )
        else:
            labels = [_as_name(cell) for cell in cells]
        return labels, wrong
    for name in names:
        others = [cell for cell in table[name] if normalize(cell) not in ("0", "1", "-1", "")]
        if others:
            raise ConfigError(
                f"data.label_column: of several columns each must hold 1 for yes and 0 for no, "
                f"{name} holds {first(list(dict.fromkeys(others)))}"
            )
    numbers = table[names].map(normalize)
    for at, row in enumerate(numbers.itertuples(index=False, name=None)):
        present = [name for name, cell in zip(names, row, strict=True) if cell == "1"]
        # One column must say yes or no; of several, an empty one is not mentioned and no.
        known = ("0", "1") if len(names) == 1 else ("0", "1", "")
        unclear = [
            f"{name} is {cell or 'empty'}"
            for name, cell in zip(names, row, strict=True)
            if cell not in known
        ]
        chosen = ""
        if unclear:
            wrong[at] = unclear[0]
        elif len(names) == 1:
            chosen = _name_binary(names[0], bool(present))
        elif label is not None:
            chosen = _as_name(label) if label in present else f"not_{_as_name(label)}"
        elif len(present) != 1:
            wrong[at] = " and ".join(present) or "none of the labels is 1"
        else:
            chosen = _as_name(present[0])
        labels.append(chosen)
    if label is not None and label not in names:
        raise ConfigError(f"data.label must be one of {', '.join(names)}, got {label}")
    return labels, wrong


def _name_binary(column: str, value: bool) -> str:
    """Pneumonia and not_Pneumonia; 1 and 0 for a column whose name is no finding."""
    if column.isdigit() or column.casefold() in ("label", "labels", "class", "target", "y"):
        return str(int(value))
    return _as_name(column) if value else f"not_{_as_name(column)}"


def _is_binary(cells: Iterable[str]) -> bool:
    """Whether a column says yes or no, by 1 and 0, whatever else (empty, -1) stands among them."""
    values = {normalize(cell) for cell in cells}
    return values <= {"0", "1", "-1", ""} and "1" in values


def _as_name(text: str) -> str:
    """A class's name becomes a folder's where images are generated."""
    return re.sub(r"[/\\]+", "-", " ".join(text.split())).strip(". ")


def _check_rows(
    config: TableConfig,
    bad: Sequence[str],
    num_rows: int,
    what: str,
    warnings: list[str],
    way_out: str,
) -> None:
    if not bad:
        return
    said = f"in {len(bad)} of {num_rows} rows of {config.path} there is {what}: {first(bad)}"
    if len(bad) == num_rows:
        raise DataError(f"{said}; {way_out}")
    if config.on_bad_image == "error":
        raise DataError(f"{said}; {way_out}, and data.on_bad_image=skip leaves such rows out")
    warnings.append(f"{said}; they are left out")


def _without_duplicates(
    config: TableConfig,
    table: pd.DataFrame,
    image_column: str,
    good: Sequence[int],
    paths: Sequence[Path | None],
    labels: Sequence[str],
    rows: Sequence[str],
    warnings: list[str],
) -> list[int]:
    """One row for each file. Raises: DataError where rows of one file say different things."""
    said = [name for name in (config.group_column, config.split_column) if name is not None]
    known: dict[str, int] = {}
    repeated: list[str] = []
    differing: list[str] = []
    texts = table[image_column].tolist()
    for at in good:
        before = known.setdefault(_key(paths[at]), at)
        if before == at:
            continue
        one = [labels[before], *table[said].iloc[before]]
        other = [labels[at], *table[said].iloc[at]]
        named = f"{rows[at]} names the file of {rows[before]} ({texts[at]})"
        (repeated if one == other else differing).append(named)
    if differing:
        raise DataError(
            f"a file must have one label, patient and split, and has others in "
            f"{many(len(differing), 'row')} of {config.path}: {first(differing)}; data.where "
            "chooses rows"
        )
    if repeated:
        warnings.append(
            f"left out {many(len(repeated), 'row')} whose file another row names: {first(repeated)}"
        )
    return sorted(known.values())


def _key(path: Path | None) -> str:
    return path.absolute().as_posix() if path is not None else ""


def _read_splits(
    table: pd.DataFrame,
    config: TableConfig,
    columns: Sequence[str],
    good: Sequence[int],
    rows: Sequence[str],
) -> list[int]:
    if config.split_column is None:
        return []
    cells = table[find_column(config.split_column, "data.split_column", columns)].tolist()
    found = [SPLIT_WORDS.get(cells[at].casefold()) for at in good]
    unknown = [
        f"{rows[at]} ({cells[at] or 'empty'})"
        for at, one in zip(good, found, strict=True)
        if one is None
    ]
    if unknown:
        raise DataError(
            f"{config.split_column} must be {', '.join(SPLIT_WORDS)} in every row, and is not in "
            f"{len(unknown)}: {first(unknown)}; data.where chooses rows"
        )
    return [SPLITS.index(one) for one in found if one is not None]


def _read_groups(
    table: pd.DataFrame,
    config: TableConfig,
    columns: Sequence[str],
    good: Sequence[int],
    names: Sequence[str],
    notes: list[str],
) -> list[str]:
    if config.group_column is None:
        if config.group == "folder":
            raise ConfigError("data.group must be a pattern in a table, or give data.group_column")
        return [] if config.group is None else match_groups(config.group, names)
    if config.group is not None:
        raise ConfigError("data.group and data.group_column both say the patients; give one")
    cells = table[find_column(config.group_column, "data.group_column", columns)].tolist()
    # Where a cell is empty, programs write the whole column as 7.0: the patient of other rows' 7.
    groups = [re.sub(r"^(\d+)\.0+$", r"\1", cells[at]) for at in good]
    alone = [name for name, group in zip(names, groups, strict=True) if not group]
    if alone:
        notes.append(
            f"{many(len(alone), 'image')} without a patient, each taken for a patient of its own: "
            f"{first(alone)}"
        )
    return [group or f"file {name}" for name, group in zip(names, groups, strict=True)]
