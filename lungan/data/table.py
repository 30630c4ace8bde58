"""data=table: image files that a CSV in any usual encoding lists, with label, patient and split in
its columns."""

from __future__ import annotations

import csv
import io
import operator
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from lungan.config.data import TableConfig
from lungan.data.images import (
    ONLY_CLASS,
    READERS,
    Facts,
    ImageSet,
    first,
    many,
    say_path,
    say_reasons,
)
from lungan.data.listing import IMAGE_NAME, SPLIT_WORDS, ImageFile, Listing, load_listing
from lungan.errors import ConfigError, DataError
from lungan.files import at_home

Rows = dict[str, dict[str, str]]
"""Cells by row, which are named as a spreadsheet numbers them, and column."""

_SEPARATORS = ",;\t|"
_NO_VALUES = ("nan", "<na>", "null", "#n/a")
"""What programs write where there is nothing."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

_FINDINGS = re.compile(r"\s*[|;,]\s*")
"""What separates the findings of one cell."""

_FLAGS = {"0", "1", "-1", ""}
"""Yes and no are 1 and 0, whatever else stands among them."""

_NO_FINDINGS = ("label", "labels", "class", "target", "y")
"""Names of columns of 1 and 0 that do not say what 1 means."""


def load_table(config: TableConfig, *, progress: bool = True) -> ImageSet:
    """The images that the table at ``config.path`` lists, in the order of their paths.

    Raises: DataError for a table that cannot be read or used, and rows that cannot where
    ``on_bad_image`` is ``error``; ConfigError for columns that it does not have.
    """
    path, facts = at_home(config.path), Facts()
    label_names = config.label_column
    if not isinstance(label_names, list):
        label_names = [] if label_names is None else [label_names]
    label_names = [] if config.labels == "none" else [str(name) for name in label_names]
    rows = _rows_to_use(config, path, label_names, facts.notes)
    root = path.parent if config.root is None else at_home(config.root)
    if not root.is_dir():
        raise DataError(f"data.root must be a folder, {root} does not exist")
    image_names = [cells[str(config.image_column)] for cells in rows.values()]
    places = _find_files(root, image_names, facts.notes)
    labels = _read_labels(rows, label_names, config.label)
    files: dict[str, tuple[str, ImageFile]] = {}
    bad: dict[str, str] = {}
    repeated, differing = list[str](), list[str]()
    for (row, cells), place, name, (label, wrong) in zip(
        rows.items(), places, image_names, labels, strict=True
    ):
        patient = "" if config.group_column is None else cells[config.group_column]
        # Where a cell is empty, programs write the whole column as 7.0: the patient of 7.
        patient = re.sub(r"^(\d+)\.0+$", r"\1", patient)
        said = "" if config.split_column is None else cells[config.split_column]
        split = SPLIT_WORDS.get(said.casefold(), "")
        if place is None:
            wrong = f"no file {name}" if name else "no file name"
        elif not (wrong or label):
            wrong = "no letter or digit in its label"
        elif not wrong and config.split_column is not None and not split:
            wrong = f"its split is {said or 'empty'}, not {', '.join(SPLIT_WORDS)}"
        if place is None or wrong:
            bad[row] = wrong
            continue
        known_as = os.path.relpath(place, root).replace(os.sep, "/")
        file = ImageFile(place, known_as, label, split, patient)
        before, other = files.setdefault(place.absolute().as_posix(), (row, file))
        if before != row:
            repeated.append(f"{row} names the file of {before} ({name})")
            if file[2:5] != other[2:5]:
                differing.append(repeated[-1])
    if bad:
        what = f"{len(bad)} of {len(rows)} rows of {config.path} cannot be used: {say_reasons(bad)}"
        if config.on_bad_image == "error" or not files:
            raise DataError(
                f"{what}; data.root says where the files are, data.where chooses rows, and "
                "data.on_bad_image=skip leaves such rows out"
            )
        facts.warnings.append(f"{what}; they are left out")
    if differing:
        raise DataError(
            f"a file must have one label, patient and split, and has others in "
            f"{many(len(differing), 'row')} of {config.path}: {first(differing)}; "
            "data.where chooses rows"
        )
    if repeated:
        number = many(len(repeated), "row")
        facts.warnings.append(f"left out {number} whose file another row names: {first(repeated)}")
    listed = [files[place][1] for place in sorted(files)]
    group = config.group if config.group_column is None else "folder"
    return load_listing(Listing(where=path, files=listed, facts=facts), config, group, progress)


def _rows_to_use(config: TableConfig, path: Path, labels: list[str], notes: list[str]) -> Rows:
    """The rows that ``data.where`` chooses. Raises: for columns and settings that do not fit."""
    asked = [("data.image_column", config.image_column),
             ("data.group_column", config.group_column),
             ("data.split_column", config.split_column),
             *(("data.label_column", name) for name in labels)]  # fmt: skip
    given = [(key, name) for key, name in asked if name is not None]
    columns, rows = _read_rows(path, [name for _, name in given], notes)
    if config.image_column is None:
        raise ConfigError(
            f"data.image_column must name the column of files, one of {first(columns)}"
            f"{_guess_column(columns, rows)}"
        )
    for key, name in given:
        _check_column(columns, name, key)
    if config.group == "folder":
        raise ConfigError("data.group must be a pattern in a table, or give data.group_column")
    if config.group is not None and config.group_column is not None:
        raise ConfigError("data.group and data.group_column both say the patients; give one")
    if not rows:
        raise DataError(f"data.path must list images, {config.path} has no rows")
    if not config.where.strip():
        return rows
    chosen = _choose_rows(columns, rows, config.where)
    notes.append(f"data.where='{config.where}' took {len(chosen)} of {len(rows)} rows")
    if not chosen:
        raise DataError(
            f"data.where='{config.where}' must take at least one of the {len(rows)} rows of "
            f"{config.path}, it takes none"
        )
    return chosen


def _read_rows(path: Path, given: Sequence[str], notes: list[str]) -> tuple[list[str], Rows]:
    """The columns of a CSV file, and its cells, stripped, empty where a program wrote that there is
    nothing.

    given: the columns that will be asked for. Where these are numbers that the first line does not
    have, the table has no header, and its columns are named by their numbers, from 0.

    Raises: DataError where it is no table of text.
    """
    if path.is_dir():
        raise DataError(f"data.path must be a table, {say_path(path)}")
    try:
        # One letter may be written in two ways, which look the same.
        text = unicodedata.normalize("NFC", _decode(path, path.read_bytes(), notes))
    except OSError as error:
        raise DataError(f"data.path must be a table, {path}: {error.strerror}") from error
    head, _, rest = text.partition("\n")
    start, separator = 1, max(_SEPARATORS, key=head.count)
    if says := re.fullmatch(r"sep=(.)\s*", head):  # Excel's first line
        text, start, separator = rest, 2, says[1]
    try:
        lines = {
            f"row {number}": [cell.strip() for cell in cells]
            for number, cells in enumerate(
                csv.reader(io.StringIO(text, newline=""), delimiter=separator), start
            )
            if any(map(str.strip, cells))
        }
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    if not lines:
        raise DataError(f"data.path must be a table, {path} is empty")
    header = next(iter(lines))
    columns = lines[header]
    if given and all(name.isdigit() for name in given) and not set(given) <= set(columns):
        columns = [str(number) for number in range(len(columns))]
    else:
        del lines[header]
    rows = {}
    for row, cells in lines.items():
        if any(cells[len(columns) :]):
            raise DataError(
                f"{path} cannot be read as a table: {row} has {len(cells)} cells and the first "
                f"row, which must name the columns, {len(columns)}: "
                f'{separator.join(columns)[:100]}; put quotes (") round a cell that has the '
                "separator in it"
            )
        filled = ["" if cell.casefold() in _NO_VALUES else cell for cell in cells]
        rows[row] = dict.fromkeys(columns, "") | dict(zip(columns, filled, strict=False))
    return columns, rows


def _decode(path: Path, data: bytes, notes: list[str]) -> str:
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in data[:1000] and not is_utf16:
        raise DataError(
            f"{path} is no table of text; a spreadsheet must be saved as CSV (UTF-8) first"
        )
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        if is_utf16:
            raise DataError(f"{path} is damaged: its UTF-16 text is not whole") from None
        notes.append(f"{path.name} is no UTF-8 and was read as Latin-1 (Windows-1252)")
        return data.decode("cp1252", errors="replace")


def _guess_column(columns: list[str], rows: Rows) -> str:
    """Which column may hold the files, by its first cells, else by its name."""
    some = list(rows.values())[:20]
    likely = [name for name in columns if any(IMAGE_NAME.search(cells[name]) for cells in some)]
    likely += [name for name in columns if re.search("image|file|path", name, re.I)]
    return f"; {likely[0]} looks like it" if likely else ""


def _check_column(columns: list[str], name: str, key: str) -> None:
    """Raises: ConfigError where the table has no column ``name``, which ``key`` gives."""
    if name not in columns:
        hint = ""
        if any(map(IMAGE_NAME.search, columns)):
            hint = "; these look like a row, so if the table has no header, number columns from 0"
        raise ConfigError(
            f"{key} must be a column of the table, {first(columns)}; got {name}{hint}"
        )


def _choose_rows(columns: list[str], rows: Rows, where: str) -> Rows:
    """The rows in which all conditions hold, such as ``view=PA,AP; age>=18``. A number may be
    followed by a unit, as in 058Y. Raises: ConfigError for what is no condition.
    """
    for condition in where.split(";"):
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise ConfigError(
                f"data.where must be conditions such as 'view=PA,AP; age>=18', got {condition}"
            )
        name, sign, value = match.groups()
        _check_column(columns, name, "data.where")
        if sign in _ORDER:
            try:
                limit = float(value)
            except ValueError:
                raise ConfigError(f"data.where: {name}{sign} needs a number, got {value}") from None
            fits = [_ORDER[sign](_number(cells[name]), limit) for cells in rows.values()]
        else:
            wanted = {normalize(one) for one in value.split(",")}
            fits = [(normalize(cells[name]) in wanted) == (sign == "=") for cells in rows.values()]
        rows = {row: rows[row] for row, fit in zip(rows, fits, strict=True) if fit}
    return rows


def _number(cell: str) -> float:
    """The number at the start of a cell; no number, which is in no order, where there is none."""
    found = re.match(r"-?\d*[.,]?\d+", cell)
    return float(found[0].replace(",", ".")) if found else float("nan")


def normalize(cell: str) -> str:
    """A cell as it is compared: 1, 1.0 and 01 are one number, upper and lower case one text."""
    if _NUMBER.fullmatch(cell.strip()):
        return format(Decimal(cell.strip()).normalize(), "f")
    return cell.strip().casefold()


def _find_files(root: Path, names: Sequence[str], notes: list[str]) -> list[Path | None]:
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
    parts = re.split(r"[/\\]+", name) if name else []
    paths = (root / "/".join(parts[start:]) for start in range(len(parts)))
    # os.path: names that no system can have are no files, either.
    return next(filter(os.path.isfile, paths), None)


def _read_labels(rows: Rows, names: list[str], label: str | None) -> list[tuple[str, str]]:
    """The class of each row, and what is wrong with its label, or nothing."""
    if not names:
        if label is not None:
            raise ConfigError("data.label needs data.label_column, the column that has it")
        return [(ONLY_CLASS, "")] * len(rows)
    flags = [{name: normalize(cells[name]) for name in names} for cells in rows.values()]
    if len(names) == 1:
        found = {row[names[0]] for row in flags}
        if "1" not in found or not found <= _FLAGS:
            return _read_findings(names[0], [cells[names[0]] for cells in rows.values()], label)
    for name in names:
        others = {cells[name]: 0 for cells in rows.values() if normalize(cells[name]) not in _FLAGS}
        if others:
            raise ConfigError(
                f"data.label_column: of several columns each must hold 1 for yes and 0 for no, "
                f"{name} holds {first(list(others))}"
            )
    if label is not None and label not in names:
        raise ConfigError(f"data.label must be one of {', '.join(names)}, got {label}")
    return [_read_flags(row, label) for row in flags]


def _read_flags(flags: dict[str, str], label: str | None) -> tuple[str, str]:
    """The same of one row, whose columns of 1 and 0 are one finding each."""
    is_one = len(flags) == 1
    wanted = next(iter(flags)) if is_one else label
    present = [name for name, flag in flags.items() if flag == "1"]
    # One column must say yes or no; of several, an empty one is not mentioned and no.
    known = ("0", "1") if is_one else ("0", "1", "")
    wrong = [f"{name} is {flag or 'empty'}" for name, flag in flags.items() if flag not in known]
    if wanted is None:
        if len(present) != 1:
            wrong.append(" and ".join(present) or "none of the labels is 1")
        found = _as_name("".join(present[:1]))
    elif label is None and (wanted.isdigit() or wanted.casefold() in _NO_FINDINGS):
        found = flags[wanted]
    else:
        found = _yes_or_no(wanted, wanted in present)
    return found, "".join(wrong[:1])


def _read_findings(name: str, cells: list[str], label: str | None) -> list[tuple[str, str]]:
    """The same of one column of text, which may hold several findings a cell."""
    findings = [_FINDINGS.split(cell) if label else cell.split("|") for cell in cells]
    frequent = Counter(one for listed in findings for one in listed if one).most_common()
    values = first([value for value, _ in frequent])
    if label is None:
        if any(len(listed) > 1 for listed in findings):
            raise ConfigError(
                f"{name} holds lists of findings, so data.label must say which one is against all "
                f"others: {values}"
            )
        classes = [_as_name(cell) for cell in cells]
    else:
        has = [label.casefold() in map(str.casefold, listed) for listed in findings]
        if not any(has):
            raise ConfigError(
                f"data.label must be a value of {name}, such as {values}; got {label}"
            )
        classes = [_yes_or_no(label, one) for one in has]
    return [(one, "" if cell else "no label") for one, cell in zip(classes, cells, strict=True)]


def _yes_or_no(finding: str, value: bool) -> str:
    return _as_name(finding) if value else f"not_{_as_name(finding)}"


def _as_name(text: str) -> str:
    """A class's name becomes a folder's where images are generated."""
    return re.sub(r'[/\\:*?"<>|]+', "-", " ".join(text.split())).strip(". ")
