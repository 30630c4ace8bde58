"""What the present statistics say of a study whose run folders are gone, from its results.csv.

    python benchmarks/verdicts_of_table.py results/report/results.csv

writes verdicts.md beside the table: the sentences of the report, and every comparison with its
corrected p-value.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from lungan.results.comparisons import Comparison, compare_groups, summarize
from lungan.results.groups import Group
from lungan.results.read import Run
from lungan.results.verdicts import headlines
from lungan.scores import catalogue

ENCODERS = ("domain.", "inception.", "efficientnet_lite2.")


def read_groups(path: Path) -> list[Group]:
    """The finished runs of a results.csv in its groups."""
    table = pd.read_csv(path)
    table = table[table["status"] == "done"]
    scores = [column for column in table.columns if column.startswith(ENCODERS)]
    groups = []
    for label, rows in table.groupby("group", sort=False):
        runs = []
        for _, row in rows.iterrows():
            settings = (int(row["scores.num_images"]),)
            runs.append(
                Run(
                    name=str(row["run"]),
                    status="done",
                    folder=Path(),
                    config={"seed": int(row["seed"])},
                    scores={key: float(row[key]) for key in scores if pd.notna(row[key])},
                    settings={encoder.rstrip("."): settings for encoder in ("", *ENCODERS)},
                )
            )
        groups.append(Group((str(label),), str(label), runs))
    return groups


def judge(groups: list[Group]) -> tuple[list[str], list[Comparison]]:
    summaries = summarize(groups)
    comparisons = compare_groups(summaries)
    return headlines(groups, summaries, comparisons), comparisons


def write(path: Path) -> Path:
    sentences, comparisons = judge(read_groups(path))
    lines = [
        f"# What {path.name} supports",
        "",
        f"By `python benchmarks/verdicts_of_table.py {path.as_posix()}`: the run folders are gone, "
        "so floors are those of lungan 0.1 (mean and standard deviation of few splits).",
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
        "| score | first | second | first - second, or ratio (95 % CI) | corrected p |",
        "|---|---|---|---|---|",
    ]
    for each in comparisons:
        result = each.result
        if each.p_holm is None or result.low is None or result.high is None:
            continue
        kind = "ratio " if result.is_ratio else ""
        size = f"{kind}{result.effect:.3g} ({result.low:.3g} to {result.high:.3g})"
        names = f"{each.first.group.label} | {each.second.group.label}"
        lines.append(
            f"| {catalogue.title(each.first.score)} | {names} | {size} | {each.p_holm:.3g} |"
        )
    out = path.with_name("verdicts.md")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, nargs="+", help="a results.csv of lungan.results")
    for path in parser.parse_args().table:
        print(write(path))


if __name__ == "__main__":
    main()
