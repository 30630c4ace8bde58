from __future__ import annotations

from typing import Any

import pytest

from lungan.results import numbers
from lungan.results.groups import group
from lungan.results.read import collect
from lungan.results.statistics import Interval, mean_interval
from lungan.results.tables import Cell, Table, run_names

NASTY = r"a|b_c $x$ 50% & <b> \end{tabular} # ~^ {z}" + "\nnext ∞"


def table(num_rows: int = 1) -> Table:
    return Table(["name", "a ± b"], [[Cell(NASTY), Cell("1 ± 2")]] * num_rows)


def test_markdown_stays_one_cell() -> None:
    text = table().markdown().decode()
    lines = text.splitlines()
    assert len(lines) == 3
    assert set(lines[1]) == {"|", "-"}
    assert lines[2].replace(r"\|", "").count("|") == 3
    assert r"a\|b\_c" in lines[2]
    assert "<b>" not in lines[2].replace(r"\<b\>", "")


def test_latex_is_escaped_booktabs() -> None:
    text = table().latex().decode()
    assert text.startswith("\\begin{tabular}{ll}\n\\toprule\nname & a ± b \\\\\n\\midrule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    row = text.splitlines()[4]
    assert row == (
        r"a|b\_c \$x\$ 50\% \& <b> \textbackslash end\{tabular\} \# "
        r"\textasciitilde \textasciicircum \space \{z\} next $\infty$ & 1 ± 2 \\"
    )


def test_long_tables_break_across_pages() -> None:
    text = table(41).latex().decode()
    assert text.startswith("\\begin{longtable}{ll}")
    assert text.count("& 1 ± 2") == 41


def test_what_was_left_out_is_said() -> None:
    short = Table(["a"], [[Cell("1")]], "The first 1 of 2 runs; all are in results.csv.")
    assert short.markdown().endswith(b"\nThe first 1 of 2 runs; all are in results.csv.\n")
    assert short.latex().startswith(b"% The first 1 of 2 runs")


def test_columns_of_one_name_and_no_rows_are_fine() -> None:
    empty = Table(["a_b", "a_b"], [])
    assert r"| a\_b   | a\_b   |" in empty.markdown().decode()
    assert r"a\_b & a\_b \\" in empty.latex().decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (0.00123456, "0.001235"),
        (1e-9, "1.000e-09"),
        (-2.5, "-2.500"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert numbers.number(value) == text


def test_interval_has_the_decimals_of_its_half_width() -> None:
    def even(mean: float, half: float) -> Interval:
        return Interval(5, mean, 1.0, mean - half, mean + half, mean)

    assert numbers.interval(even(12.3456, 0.5641)) == "12.35 ± 0.56"
    assert numbers.interval(even(1234.5, 21.4)) == "1234 ± 21"
    assert numbers.interval(mean_interval([0.5])) == "0.5000"
    assert numbers.interval(Interval(3, 9.0, 1.0, 1.2, 40.0, 7.0)) == "7.00 (1.2 to 40.0)"
    assert numbers.span(1.234, 12.34) == "1.2 to 12.3"
    assert numbers.span(-0.001, 0.0123) == "-0.0010 to 0.0123"
    assert (numbers.p_relation(0.0004), numbers.p_relation(0.04)) == ("< 0.001", "= 0.040")
    assert [numbers.seconds(s) for s in (47.2, 700, 12000)] == ["47 s", "12 min", "3 h 20 min"]


def test_runs_have_names_that_say_what_sets_them_apart(store: Any) -> None:
    for optimizer in ("adam", "rmsprop"):
        store.run(store.config(optimizer))
    again = store.run(store.config() | {"store": "elsewhere"})
    grouping = group(collect(store.path))
    names = run_names(grouping)
    first = next(run for run in grouping.groups[0].runs if run.folder != again)
    assert sorted(names.values()) == sorted(
        [
            "rmsprop, seed 0",
            f"adam, seed 0 ({first.name[-8:]})",
            f"adam, seed 0 ({again.name[-8:]})",
        ]
    )
