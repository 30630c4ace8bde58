from __future__ import annotations

import csv
import io

from lungan.results.csv_text import csv_bytes
from lungan.results.records import Scalar

ROWS: list[list[Scalar]] = [
    ["plain", 1, 0.1, None, True],
    ['a "quoted" word', -2.5e-300, 1e22, "", False],
    ["comma, here", 1 / 3, 12345678901234567890, "two\nlines", None],
    ["Fréchet", 5e-324, -0.0, "return\rhere", " spaces "],
    ["[1, 2]", 0.30000000000000004, 2.0, "'single'", "; | \t"],
]


def test_the_csv_module_reads_back_every_cell() -> None:
    header = ["name", "one, two", "three", "four", "five"]
    text = csv_bytes(header, ROWS).decode()
    read = list(csv.reader(io.StringIO(text, newline="")))
    expected = [["" if cell is None else str(cell) for cell in row] for row in ROWS]
    assert read == [header, *expected]
    assert text.endswith("\n")


def test_same_bytes_as_the_csv_module_writes() -> None:
    rows = [row for row in ROWS if "return\rhere" not in row]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["a", "b"], *rows])
    assert csv_bytes(["a", "b"], rows) == stream.getvalue().encode()


def test_a_name_that_is_no_text_is_written_all_the_same() -> None:
    assert csv_bytes(["run"], [["\udcff"]]) == b"run\n\\udcff\n"
