from __future__ import annotations

from typing import Any

from lungan.scores.table import format_result


def result(**values: Any) -> dict[str, Any]:
    return {
        "num_images": 120,
        "reference": {"splits": ["train"], "classes": ["a"], "num_images": 240},
        "encoders": {
            "domain": {"feature_dim": 6, "weights_hash": "ab" * 32, "notes": ["AUC 0.98"]}
        },
        "values": {f"domain.{key}": value for key, value in values.items()},
        "reasons": {},
        "notes": ["a note"],
    }


def test_every_value_stands_beside_its_floor() -> None:
    one = result(frechet_distance=3.0)
    one["values"]["domain.frechet_distance.floor"] = 0.5
    one["values"]["domain.frechet_distance.floor_std"] = 0.1
    one["values"]["domain.inception_score"] = 1.0076
    one["values"]["domain.inception_score.std"] = 0.0004
    one["values"]["domain.inception_score.real"] = 1.5
    text = format_result(one)
    assert text.splitlines() == [
        "N = 120 a side, of 240 real images (train; a)",
        "",
        "domain: 6 features, weights abababab",
        "  score             value           floor      ratio  good is",
        "  frechet_distance  3               0.5 ± 0.1  6      low",
        "  inception_score   1.008 ± 0.0004  1.5        0.672  high",
        "",
        "notes:",
        "  a note",
        "  domain: AUC 0.98",
    ]


def test_a_floor_has_its_range() -> None:
    one = result(frechet_distance=3.0)
    key = "domain.frechet_distance.floor"
    one["values"] |= {key: 0.5, f"{key}_low": 0.41, f"{key}_high": 0.678, f"{key}_std": 0.1}
    row = next(line for line in format_result(one).splitlines() if "frechet" in line)
    assert "0.5 (0.41 to 0.678)  6" in row


def test_missing_values_have_their_reason_once() -> None:
    one = result(precision=None, recall=None)
    one["reasons"] = {"domain.precision": "too few", "domain.recall": "too few"}
    text = format_result(one)
    assert "  domain.precision, domain.recall: too few" in text
    assert "  precision  -" in text


def test_floors_round_0_have_no_ratio() -> None:
    one = result(kernel_distance=0.01)
    one["values"]["domain.kernel_distance.floor"] = 0.001
    row = next(line for line in format_result(one).splitlines() if "kernel_distance" in line)
    assert row.split()[:4] == ["kernel_distance", "0.01", "0.001", "-"]


def test_a_floor_of_0_has_no_ratio() -> None:
    one = result(density=0.5)
    one["values"]["domain.density.floor"] = 0.0
    row = next(line for line in format_result(one).splitlines() if "density" in line)
    assert row.split() == ["density", "0.5", "0", "-", "high"]
