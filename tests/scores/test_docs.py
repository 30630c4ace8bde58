"""The numbers in docs/scores.md and docs/encoders.md are those of the committed files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> list[dict[str, str]]:
    with (ROOT / "results" / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def near_copies() -> list[list[str]]:
    """Each way of disguise with its shares, bold where the score finds it."""
    keys = ("pixels.near_copies", "domain.memorization_share", "domain.memorization_c_t")
    keys = (*keys, "pixels.near_copies 5 %", "domain.memorization_share 5 %")
    return [
        [row["images"]]
        + [f"**{row[key]}**" if row[f"{key} found"] == "True" else row[key] or "-" for key in keys]
        for row in read("near_copies/pneumoniamnist.csv")
    ]


def known_sets() -> list[list[str]]:
    rows = []
    for row in read("known_sets/pneumoniamnist.csv"):
        low, high = f"{float(row['floor_low']):.3g}", f"{float(row['floor_high']):.3g}"
        values = [f"{float(value):.3g}" for key, value in row.items() if "(N = " in key]
        name = row["score"].removeprefix("domain.")
        rows.append([f"`{name}`", f"{float(row['floor']):.3g} ({low} to {high})", *values])
    return rows


def encoder_stability() -> list[list[str]]:
    """Medians over seeds and standard deviations in % of the mean."""
    seeds = read("encoder_stability/pneumoniamnist.csv")
    rows = []
    for key in (one.removeprefix("raw.") for one in seeds[0] if one.startswith("raw.")):
        if key == "floor":
            continue
        cells = []
        for space in ("whitened", "raw"):
            for labels in ("with", "without"):
                found = [float(row[f"{space}.{key}"]) for row in seeds if row["labels"] == labels]
                share = 100 * np.std(found) / np.mean(found)
                cells.append(f"{np.median(found):.3g} ± {share:.0f} %")
        title = "floor's 97.5 % quantile" if key == "floor_high" else key.replace("_", " ")
        rows.append([title, *cells])
    return rows


def texture() -> list[list[str]]:
    """Fréchet distances by change, bold above the floor's 95 % range."""
    table: dict[str, list[str]] = {}
    for size in (64, 128):
        for row in read(f"texture/nih_chest_{size}.csv"):
            distance = f"{float(row['frechet_distance']):.3g}"
            seen = float(row["frechet_distance"]) > float(row["floor_high"])
            cells = table.setdefault(row["change"], [row["change"]])
            cells.append(f"**{distance}**" if seen else distance)
    return list(table.values())


@pytest.mark.parametrize(
    ("page", "rows"),
    [
        ("scores.md", near_copies()),
        ("scores.md", known_sets()),
        ("encoders.md", encoder_stability()),
        ("encoders.md", texture()),
    ],
)
def test_tables_are_those_of_the_files(page: str, rows: list[list[str]]) -> None:
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    assert len(rows) >= 9
    for row in rows:
        assert f"| {' | '.join(row)} |" in lines


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


def test_what_encoders_say_of_themselves_is_quoted_right() -> None:
    def ends(labels: str, pattern: str) -> str:
        notes = [row["notes"] for row in rows if row["labels"] == labels]
        found = sorted(match[1] for note in notes if (match := re.search(pattern, note)))
        assert len(found) == 20
        return f"{found[0]} to {found[-1]}"

    rows = read("encoder_stability/pneumoniamnist.csv")
    area, accuracy = r"bf16; AUC (\S+)", r"accuracy (\S+)"
    recognition, dimension = r"images with AUC (\S+)", r"dimension (\d+)"
    for sentence in (
        f"test split apart with AUCs of {ends('with', area)} and accuracies of ",
        f"accuracies of {ends('with', accuracy)}, ",
        f"recognize moved images with AUCs of {ends('with', recognition)}, ",
        f"effective dimensions of {ends('with', dimension)}. ",
        f"without labels recognize them with {ends('without', recognition)}, ",
        f"in {ends('without', dimension)} dimensions.",
    ):
        assert sentence in text_of("encoders.md")


def test_the_speed_of_inception_is_quoted_right() -> None:
    file = ROOT / "results" / "benchmarks" / "score_throughput_cpu.json"
    measured = json.loads(file.read_text(encoding="utf-8"))["images_per_second"]
    fastest = {name: one["fastest"] for name, one in measured.items()}
    said = "lungan {lungan:.1f} images/s in bf16, torch-fidelity {torch-fidelity:.1f}, "
    said += "torchvision {torchvision:.1f}: "
    times = fastest["lungan"] / fastest["torch-fidelity"]
    assert f"{said.format(**fastest)}{times:.1f} times torch-fidelity" in text_of("encoders.md")
