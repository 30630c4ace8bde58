"""data=table: image files that a table lists, with label, patient and split in its columns."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan.config.data import TableConfig
from lungan.data.cells import choose_rows, get_column, guess_column, normalize, read_cells
from lungan.data.images import ONLY_CLASS, READERS, ImageSet, first, many
from lungan.data.listing import (
    SPLIT_WORDS,
    ImageFile,
    Listing,
    fill_groups,
    load_listing,
    match_groups,
)
from lungan.errors import ConfigError, DataError
from lungan.files import at_home

if TYPE_CHECKING:
    import pandas as pd

_FINDINGS = re.compile(r"\s*[|;,]\s*")
"""What separates the findings of one cell."""

_NO_FINDINGS = ("label", "labels", "class", "target", "y")
"""Names of columns of 1 and 0 that do not say what 1 means."""


def load_table(config: TableConfig, *, progress: bool = True) -> ImageSet:
    """The images that the table at ``config.path`` lists, in the order of their paths.

    Raises: DataError for a table that cannot be read or used, and rows that cannot where
    ``on_bad_image`` is ``error``; ConfigError for columns that it does not have.
    """
    return load_listing(read_listing(config), config, progress)


def read_listing(config: TableConfig) -> Listing:
    """Raises: as ``load_table``."""
    import pandas as pd  # half a second, which folders do without

    path = at_home(config.path)
    notes: list[str] = []
    warnings: list[str] = []
    table = _choose_rows(config, read_cells(path, _given_columns(config), notes), notes)
    root = path.parent if config.root is None else at_home(config.root)
    if not root.is_dir():
        raise DataError(f"data.root must be a folder, {root} does not exist")

    rows = table.index.to_frame(name="row").astype(str)
    for name, column in (("group", config.group_column), ("split", config.split_column)):
        rows[name] = "" if column is None else get_column(table, column, f"data.{name}_column")
    rows["file"] = get_column(table, str(config.image_column), "data.image_column")
    rows["path"] = pd.Series(_find_files(root, rows["file"], notes), rows.index, dtype=object)
    rows["label"], rows["wrong"] = _read_labels(table, config)
    rows.loc[(rows["label"] == "") & (rows["wrong"] == ""), "wrong"] = "no letter or digit"
    absent, unlabelled = rows["path"].isna(), rows["wrong"] != ""
    for reasons, what, way_out in (
        (rows["file"][absent], f"no file in {root}", "data.root says where"),
        (rows["wrong"][unlabelled & ~absent], "no label that can be used",
         "data.where chooses rows"),
    ):  # fmt: skip
        _check_rows(config, reasons, len(rows), f"there is {what}", way_out, warnings)
    rows = _without_duplicates(config, rows[~absent & ~unlabelled], warnings)

    rows["name"] = [os.path.relpath(path, root).replace(os.sep, "/") for path in rows["path"]]
    if config.split_column is not None:
        rows["split"] = _read_splits(config, rows)
    rows["group"] = _read_groups(config, rows, notes)
    columns = rows[list(ImageFile._fields[:-1])]
    files = [ImageFile(*row) for row in columns.itertuples(index=False, name=None)]
    return Listing(where=path, files=files, notes=notes, warnings=warnings)


def _given_columns(config: TableConfig) -> list[str]:
    names = [config.image_column, config.group_column, config.split_column]
    return [name for name in (*names, *_label_columns(config)) if name is not None]


def _label_columns(config: TableConfig) -> list[str]:
    given = config.label_column
    if given is None or config.labels == "none":
        return []
    return [str(name) for name in (given if isinstance(given, list) else [given])]


def _choose_rows(config: TableConfig, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    if config.image_column is None:
        guess = guess_column(table)
        hint = f"; {guess} looks like it" if guess else ""
        raise ConfigError(
            "data.image_column must name the column of files, one of "
            f"{first(list(table.columns))}{hint}"
        )
    if table.empty:
        raise DataError(f"data.path must list images, {config.path} has no rows")
    if not config.where.strip():
        return table
    get_column(table, config.image_column, "data.image_column")
    chosen = choose_rows(table, config.where)
    notes.append(f"data.where='{config.where}' took {len(chosen)} of {len(table)} rows")
    if chosen.empty:
        raise DataError(
            f"data.where='{config.where}' must take at least one of the {len(table)} rows of "
            f"{config.path}, it takes none"
        )
    return chosen


def _find_files(root: Path, names: pd.Series[str], notes: list[str]) -> list[Path | None]:
    """Where each file lies: at its path below ``root``, or the end of its path, or its name."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    found = [_at(root, name) for name in names]
    if None not in found:
        return found
    for parent, _, files in os.walk(root, followlinks=False):
        for file in files:
            if Path(file).suffix.lower() in READERS:  # the table itself
                continue
            for key in {_as_key(file), _as_key(Path(file).stem)}:
                by_name[key].append(Path(parent, file))
    num_searched = 0
    for at, name in enumerate(names):
        alike = by_name.get(_as_key(re.split(r"[/\\]", name)[-1]), [])
        if found[at] is None and name and len(alike) == 1:
            found[at] = alike[0]
            num_searched += 1
    if num_searched:
        notes.append(f"{many(num_searched, 'file')} found by name alone, in sub-folders of {root}")
    return found


def _as_key(name: str) -> str:
    """A file's name as macOS and Windows compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def _at(root: Path, name: str) -> Path | None:
    parts = re.split(r"[/\\]+", name)
    for start in range(len(parts) if name else 0):
        path = root / "/".join(parts[start:])
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def _read_labels(table: pd.DataFrame, config: TableConfig) -> tuple[Any, Any]:
    """The class of each row, and what is wrong with its label or nothing: a column each, or one
    word for all."""
    names, label = _label_columns(config), config.label
    if not names:
        if label is not None:
            raise ConfigError("data.label needs data.label_column, the column that has it")
        return ONLY_CLASS, ""
    columns = {name: get_column(table, name, "data.label_column") for name in names}
    values = {name: column.map(normalize) for name, column in columns.items()}
    # Yes and no by 1 and 0, whatever else (empty, -1) stands among them.
    is_binary = {name: column.isin(("0", "1", "-1", "")) for name, column in values.items()}
    if len(names) == 1 and not (is_binary[names[0]].all() and (values[names[0]] == "1").any()):
        return _read_findings(columns[names[0]], label)
    for name in names:
        if others := list(columns[name][~is_binary[name]].unique()):
            raise ConfigError(
                f"data.label_column: of several columns each must hold 1 for yes and 0 for no, "
                f"{name} holds {first(others)}"
            )
    if label is not None and label not in names:
        raise ConfigError(f"data.label must be one of {', '.join(names)}, got {label}")
    # One column must say yes or no; of several, an empty one is not mentioned and no.
    known = ("0", "1") if len(names) == 1 else ("0", "1", "")
    labels, wrong = [], []
    for row in zip(*values.values(), strict=True):
        present = [name for name, cell in zip(names, row, strict=True) if cell == "1"]
        unclear = [
            f"{name} is {cell or 'empty'}"
            for name, cell in zip(names, row, strict=True)
            if cell not in known
        ]
        if not unclear and len(names) > 1 and label is None and len(present) != 1:
            unclear = [" and ".join(present) or "none of the labels is 1"]
        wrong.append(unclear[0] if unclear else "")
        if label is None and len(names) > 1:
            labels.append(_as_name("".join(present[:1])))
        elif label is None and (names[0].isdigit() or names[0].casefold() in _NO_FINDINGS):
            labels.append(row[0])
        else:
            labels.append(_yes_or_no(label or names[0], (label or names[0]) in present))
    return labels, wrong


def _read_findings(cells: pd.Series[str], label: str | None) -> tuple[pd.Series[str], list[str]]:
    """The same of one column of text, which may hold several findings a cell."""
    findings = cells.map(_FINDINGS.split if label is not None else lambda cell: cell.split("|"))
    frequent = list(findings.explode().value_counts().drop("", errors="ignore").index)
    wrong = ["" if cell else "no label" for cell in cells]
    if label is not None:
        wanted = label.casefold()
        has = findings.map(lambda listed: wanted in map(str.casefold, listed))
        if not has.any():
            raise ConfigError(
                f"data.label must be a value of {cells.name}, such as {first(frequent)}; got "
                f"{label}"
            )
        return has.map(lambda one: _yes_or_no(label, one)), wrong
    if cells.str.contains("|", regex=False).any():
        raise ConfigError(
            f"{cells.name} holds lists of findings, so data.label must say which one is against "
            f"all others: {first(frequent)}"
        )
    return cells.map(_as_name), wrong


def _yes_or_no(finding: str, value: bool) -> str:
    return _as_name(finding) if value else f"not_{_as_name(finding)}"


def _as_name(text: str) -> str:
    """A class's name becomes a folder's where images are generated."""
    return re.sub(r'[/\\:*?"<>|]+', "-", " ".join(text.split())).strip(". ")


def _check_rows(
    config: TableConfig,
    reasons: pd.Series[str],
    num_rows: int,
    what: str,
    way_out: str,
    warnings: list[str],
) -> None:
    """Say which rows cannot be used and are left out. Raises: DataError where that may not be."""
    if reasons.empty:
        return
    named = [f"{row} ({reason or 'no file name'})" for row, reason in reasons.items()]
    said = f"in {len(named)} of {num_rows} rows of {config.path} {what}: {first(named)}"
    if len(named) == num_rows:
        raise DataError(f"{said}; {way_out}")
    if config.on_bad_image == "error":
        raise DataError(f"{said}; {way_out}, and data.on_bad_image=skip leaves such rows out")
    warnings.append(f"{said}; they are left out")


def _without_duplicates(
    config: TableConfig, rows: pd.DataFrame, warnings: list[str]
) -> pd.DataFrame:
    """One row for each file, in the order of the files, as a folder of them is.

    Raises: DataError where rows of one file say different things.
    """
    key = rows["path"].map(lambda path: path.absolute().as_posix())
    before = rows.groupby(key)[["row", "label", "group", "split"]].transform("first")
    said = rows["row"] + " names the file of " + before["row"] + " (" + rows["file"] + ")"
    differs = (rows[before.columns[1:]] != before[before.columns[1:]]).any(axis=1)
    if differs.any():
        raise DataError(
            f"a file must have one label, patient and split, and has others in "
            f"{many(int(differs.sum()), 'row')} of {config.path}: {first(list(said[differs]))}; "
            "data.where chooses rows"
        )
    if key.duplicated().any():
        repeated = list(said[key.duplicated()])
        warnings.append(
            f"left out {many(len(repeated), 'row')} whose file another row names: {first(repeated)}"
        )
    return rows.loc[key[~key.duplicated()].sort_values().index].copy()


def _read_splits(config: TableConfig, rows: pd.DataFrame) -> pd.Series[str]:
    splits = rows["split"].str.casefold().map(SPLIT_WORDS)
    unknown = [f"{row} ({cell or 'empty'})" for row, cell in rows["split"][splits.isna()].items()]
    if unknown:
        raise DataError(
            f"{config.split_column} must be {', '.join(SPLIT_WORDS)} in every row, and is not in "
            f"{len(unknown)}: {first(unknown)}; data.where chooses rows"
        )
    return splits


def _read_groups(config: TableConfig, rows: pd.DataFrame, notes: list[str]) -> list[str] | str:
    names = list(rows["name"])
    if config.group_column is None:
        if config.group == "folder":
            raise ConfigError("data.group must be a pattern in a table, or give data.group_column")
        return "" if config.group is None else match_groups(config.group, names)
    if config.group is not None:
        raise ConfigError("data.group and data.group_column both say the patients; give one")
    # Where a cell is empty, programs write the whole column as 7.0: the patient of other rows' 7.
    groups = rows["group"].str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    return fill_groups(list(groups), names, "without a patient", notes)
