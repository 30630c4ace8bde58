"""The cells of a CSV file in any usual encoding, and the choice of rows by their values."""

from __future__ import annotations

import csv
import io
import operator
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from lungan.data.images import first, say_path
from lungan.errors import ConfigError, DataError

Rows = dict[str, dict[str, str]]
"""Cells by row, which are named as a spreadsheet numbers them, and column."""

_SEPARATORS = ",;\t|"
_IMAGE_NAME = re.compile(r"\.(?:png|jpe?g|bmp|tiff?|dcm)$", re.I)
_NO_VALUES = ("nan", "<na>", "null", "#n/a")
"""What programs write where there is nothing."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def read_rows(path: Path, given: Sequence[str], notes: list[str]) -> tuple[list[str], Rows]:
    """The columns of a CSV file, and its cells, stripped, empty where a program wrote that there is
    nothing.

    given: the columns that will be asked for. Where these are numbers that the first line does not
    have, the table has no header, and its columns are named by their numbers, from 0.

    Raises: DataError where it is no table of text.
    """
    if path.is_dir():
        raise DataError(f"data.path must be a table, {say_path(path)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"data.path must be a table, {path}: {error.strerror}") from error
    # One letter may be written in two ways, which look the same.
    text = unicodedata.normalize("NFC", _decode(path, data, notes))
    if not text.strip():
        raise DataError(f"data.path must be a table, {path} is empty")
    head, _, rest = text.partition("\n")
    start = 1
    if says := re.fullmatch(r"sep=(.)\s*", head):  # Excel's first line
        text, start = rest, 2
    separator = says[1] if says else max(_SEPARATORS, key=head.count)
    try:
        lines = [
            (number, [cell.strip() for cell in cells])
            for number, cells in enumerate(
                csv.reader(io.StringIO(text, newline=""), delimiter=separator), start
            )
            if any(map(str.strip, cells))
        ]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    columns = lines[0][1] if lines else []
    if given and all(name.isdigit() for name in given) and not set(given) <= set(columns):
        columns = [str(number) for number in range(len(columns))]
    else:
        lines = lines[1:]
    for number, cells in lines:
        if any(cells[len(columns) :]):
            raise DataError(
                f"{path} cannot be read as a table: row {number} has {len(cells)} cells and the "
                f"first row, which must name the columns, {len(columns)}: "
                f'{separator.join(columns)[:100]}; put quotes (") round a cell that has the '
                "separator in it"
            )
    rows = {}
    for number, cells in lines:
        filled = ["" if cell.casefold() in _NO_VALUES else cell for cell in cells]
        filled += [""] * (len(columns) - len(cells))
        rows[f"row {number}"] = dict(zip(columns, filled, strict=False))
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


def guess_column(columns: list[str], rows: Rows) -> str:
    """Which column may hold the files, by its first cells, else by its name."""
    some = list(rows.values())[:20]
    likely = [name for name in columns if any(_IMAGE_NAME.search(cells[name]) for cells in some)]
    likely += [name for name in columns if re.search("image|file|path", name, re.I)]
    return f"; {likely[0]} looks like it" if likely else ""


def check_column(columns: list[str], name: str, key: str) -> None:
    """Raises: ConfigError where the table has no column ``name``, which ``key`` gives."""
    if name not in columns:
        hint = ""
        if any(map(_IMAGE_NAME.search, columns)):
            hint = "; these look like a row, so if the table has no header, number columns from 0"
        raise ConfigError(
            f"{key} must be a column of the table, {first(columns)}; got {name}{hint}"
        )


def choose_rows(columns: list[str], rows: Rows, where: str) -> Rows:
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
        check_column(columns, name, "data.where")
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
