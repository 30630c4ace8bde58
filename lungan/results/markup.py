"""Tables as Markdown and LaTeX; whatever a name holds stays text."""

from __future__ import annotations

import re

from lungan.results.tables import Table

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#])")

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"$<$",
        ">": r"$>$",
        "|": r"$|$",
        '"': "''",
        "±": r"$\pm$",
        "\u2212": r"$-$",
        "\u2013": "--",
        "→": r"$\to$",
        "∞": r"$\infty$",
    }
)
_MAX_TABULAR_ROWS = 40


def markdown(table: Table) -> str:
    """A pipe table of GitHub's kind."""
    lines = [table.header, ["---"] * len(table.header)]
    lines += [[markdown_text(cell.text) for cell in row] for row in table.rows]
    lines[0] = [markdown_text(text) for text in table.header]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{text}\n{table.more}\n" if table.more else text


def latex(table: Table) -> str:
    """A booktabs tabular, or a longtable where it cannot fit on a page. The preamble needs
    ``booktabs``, ``longtable`` and an engine or font encoding (T1) that has the names' letters."""
    columns = "l" * len(table.header)
    head = " & ".join(latex_text(text) for text in table.header)
    body = "".join(
        f"{' & '.join(latex_text(cell.text) for cell in row)} \\\\\n" for row in table.rows
    )
    more = f"% {table.more}\n" if table.more else ""
    if len(table.rows) > _MAX_TABULAR_ROWS:
        return (
            f"{more}\\begin{{longtable}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n"
            f"\\endhead\n\\bottomrule\n\\endfoot\n{body}\\end{{longtable}}\n"
        )
    return (
        f"{more}\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n"
        f"{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def markdown_text(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def latex_text(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
