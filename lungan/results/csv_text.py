"""CSV files as bytes, of many rows of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

from lungan.results.records import Scalar

_SPECIAL = re.compile('[,"\\r\\n]')


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Scalar]]) -> bytes:
    """Comma-separated UTF-8 with a line feed after each row; None is an empty cell.

    The module csv looks at each letter of each number for something to quote, which costs more
    than writing the number: here only text is looked at.
    """
    lines = [
        ",".join(
            [
                # Most cells are floats, and of a float str() is this.
                float.__repr__(cell)
                if type(cell) is float
                else ""
                if cell is None
                else _quoted(cell)
                if isinstance(cell, str)
                else str(cell)
                for cell in row
            ]
        )
        for row in chain([header], rows)
    ]
    return "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")


@lru_cache(maxsize=8192)
def _quoted(text: str) -> str:
    """A cell as RFC 4180 has it."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text
