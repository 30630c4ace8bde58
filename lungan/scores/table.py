"""One result as text: every score beside its floor, with N, encoder and what to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

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
    notes = list(result["notes"])
    for name, encoder in result["encoders"].items():
        keys = [key for key in values if catalogue.encoder_of(key) == name]
        scores = sorted(filter(catalogue.is_score, keys), key=catalogue.order)
        table = [HEADER, *(_row(key, values) for key in scores)]
        rows = tabulate(table, tablefmt="plain", disable_numparse=True)
        lines += [
            "",
            f"{name}: {encoder['feature_dim']} features, weights {encoder['weights_hash'][:8]}",
            *(f"  {row.rstrip()}" for row in rows.splitlines()),
        ]
        notes += [f"{name}: {note}" for note in encoder["notes"]]
    if reasons:
        keys_of = {one: [key for key in reasons if reasons[key] == one] for one in reasons.values()}
        lines += ["", "missing:"]
        lines += [f"  {', '.join(keys)}: {reason}" for reason, keys in keys_of.items()]
    return "\n".join([*lines, "", "notes:", *(f"  {note}" for note in notes)])


def _row(key: str, values: Mapping[str, float | None]) -> tuple[str, ...]:
    score, value = catalogue.describe(key), values[key]
    floor_key = catalogue.floor_key(key)
    floor = values.get(floor_key)
    ratio = value / floor if value is not None and floor and not score.around_zero else None
    return (
        catalogue.name_of(key),
        _number(value, values.get(f"{key}.std")),
        _floor(values, floor_key),
        "-" if ratio is None else f"{ratio:.3g}",
        score.good or "-",
    )


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
