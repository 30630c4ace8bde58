"""One result as text: every score beside its floor, with N, encoder and what to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lungan.scores import catalogue

HEADER = ("score", "value", "floor", "ratio", "good is")


def format_result(result: Mapping[str, Any]) -> str:
    """An aligned table an encoder, then the reasons for what is missing, then notes.

    floor: the same score between two disjoint sets of N real images, with its 95 % range; for the
    Inception Score, that of N real images. ratio: value over floor, where the floor does not
    scatter round 0.
    """
    values, reasons = result["values"], result["reasons"]
    reference = result["reference"]
    lines = [
        f"N = {result['num_images']} a side, of {reference['num_images']} real images "
        f"({'+'.join(reference['splits'])}; {'+'.join(reference['classes'])})"
    ]
    for name, encoder in result["encoders"].items():
        lines += [
            "",
            f"{name}: {encoder['feature_dim']} features, weights {encoder['weights_hash'][:8]}",
            *_aligned([HEADER, *_rows(name, values)]),
        ]
    missing: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        missing.setdefault(reason, []).append(key)
    if missing:
        lines += ["", "missing:"]
        lines += [f"  {', '.join(keys)}: {reason}" for reason, keys in missing.items()]
    notes = [
        *result["notes"],
        *(
            f"{name}: {note}"
            for name, encoder in result["encoders"].items()
            for note in encoder["notes"]
        ),
    ]
    return "\n".join([*lines, "", "notes:", *(f"  {note}" for note in notes)])


def _rows(name: str, values: Mapping[str, float | None]) -> list[tuple[str, ...]]:
    keys = [key for key in values if catalogue.split_key(key)[0] == name]
    rows: list[tuple[str, ...]] = []
    for key in sorted(filter(catalogue.is_score, keys), key=catalogue.order):
        score, floor = catalogue.describe(key), catalogue.floor_key(key)
        rows.append(
            (
                catalogue.split_key(key)[1],
                _number(values[key], values.get(f"{key}.std")),
                _floor(values, floor),
                "-" if score.around_zero else _ratio(values[key], values.get(floor)),
                score.good or "-",
            )
        )
    return rows


def _floor(values: Mapping[str, float | None], key: str) -> str:
    """The median with its 95 % range; results of before 0.2.0 have a standard deviation only."""
    low, high = values.get(f"{key}_low"), values.get(f"{key}_high")
    if low is None or high is None:
        return _number(values.get(key), values.get(f"{key}_std"))
    return f"{_number(values.get(key), None)} ({low:.3g} to {high:.3g})"


def _number(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" + ("" if std is None else f" ± {std:.2g}")


def _ratio(value: float | None, floor: float | None) -> str:
    if value is None or not floor:
        return "-"
    return f"{value / floor:.3g}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
