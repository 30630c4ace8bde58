"""The cells of a CSV file in any usual encoding, and the choice of rows by their values."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from lungan.data.images import first, say_path
from lungan.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = ",;\t|"
_IMAGE_NAME = re.compile(r"\.(?:png|jpe?g|bmp|tiff?|dcm)$", re.I)
_NO_VALUE = re.compile(r"nan|<na>|null|#n/a", re.I)
"""What programs write where there is nothing."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")


def read_cells(path: Path, given: Sequence[str], notes: list[str]) -> pd.DataFrame:
    """All cells of a CSV file as text, stripped, empty where a program wrote that there is nothing.
    Rows are named as a spreadsheet numbers them.

    given: the columns that will be asked for. Where these are numbers that the first line does not
    have, the table has no header, and its columns are named by their numbers, from 0.

    Raises: DataError where it is no table of text.
    """
    import pandas as pd

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
    skipped = 0
    if says := re.fullmatch(r"sep=(.)\s*", head):  # Excel's first line
        text, head, skipped = rest, rest.partition("\n")[0], 1
    separator = says[1] if says else max(_SEPARATORS, key=head.count)
    cells = [cell.strip(' "\r') for cell in head.split(separator)]
    is_numbered = bool(given) and all(name.isdigit() for name in given)
    has_header = not is_numbered or set(given) <= set(cells)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                header=0 if has_header else None,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skip_blank_lines=True,
            )
    except pd.errors.ParserWarning as error:  # that cells would be dropped
        raise DataError(
            f"{path} cannot be read as a table: its rows have more cells than its first line, "
            f"which must name the columns: {head.strip()[:100]}"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split())
        if longer := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
            reason = (
                f"line {longer[2]} has {longer[3]} cells where those above have {longer[1]}; put "
                'quotes (") round a cell that has the separator in it'
            )
        raise DataError(f"{path} cannot be read as a table: {reason}") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    before = 1 + skipped + has_header
    table.index = pd.Index([f"row {number + before}" for number in range(len(table))])
    stripped: pd.DataFrame = table.apply(lambda column: column.str.strip())
    return stripped.mask(stripped.map(lambda cell: bool(_NO_VALUE.fullmatch(cell))), "")


def _decode(path: Path, data: bytes, notes: list[str]) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in data[:1000]:
        raise DataError(
            f"{path} is no table of text; a spreadsheet must be saved as CSV (UTF-8) first"
        )
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if encoding == "utf-16":
            raise DataError(f"{path} is damaged: its UTF-16 text is not whole") from None
        notes.append(f"{path.name} is no UTF-8 and was read as Latin-1 (Windows-1252)")
        return data.decode("cp1252", errors="replace")


def guess_column(table: pd.DataFrame) -> str | None:
    """The column that may hold the files, by its first cells, else by its name."""
    for name in table.columns:
        if table[name].head(20).str.contains(_IMAGE_NAME).any():
            return str(name)
    likely = [name for name in table.columns if re.search("image|file|path", name, re.I)]
    return str(likely[0]) if likely else None


def get_column(table: pd.DataFrame, name: str, key: str) -> pd.Series[str]:
    """The column ``name``, which ``key`` gives. Raises: ConfigError where there is none."""
    if name not in table.columns:
        hint = ""
        if any(_IMAGE_NAME.search(column) for column in table.columns):
            hint = "; these look like a row, so if the table has no header, number columns from 0"
        raise ConfigError(
            f"{key} must be a column of the table, {first(list(table.columns))}; got {name}{hint}"
        )
    return table[name]


def choose_rows(table: pd.DataFrame, where: str) -> pd.DataFrame:
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
        cells = get_column(table, name, "data.where")
        if sign in ("=", "!="):
            wanted = {normalize(one) for one in value.split(",")}
            table = table[cells.map(normalize).isin(wanted) == (sign == "=")]
            continue
        import pandas as pd

        try:
            limit = float(value)
        except ValueError:
            raise ConfigError(f"data.where: {name}{sign} needs a number, got {value}") from None
        digits = cells.str.extract(r"^(-?[\d.,]+)", expand=False).str.replace(",", ".")
        numbers = pd.to_numeric(digits, errors="coerce")
        fits = {
            "<": numbers < limit,
            "<=": numbers <= limit,
            ">": numbers > limit,
            ">=": numbers >= limit,
        }
        table = table[fits[sign]]
    return table


def normalize(cell: str) -> str:
    """A cell as it is compared: 1, 1.0 and 01 are one number, upper and lower case one text."""
    if _NUMBER.fullmatch(cell.strip()):
        return format(Decimal(cell.strip()).normalize(), "f")
    return cell.strip().casefold()
