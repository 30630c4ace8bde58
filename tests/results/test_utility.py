"""Utility trials read back: groups, answers against controls, verdicts, and the figure's panels."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lungan.results.arms import ARMS, QUESTIONS
from lungan.results.statistics import holm, paired
from lungan.results.utility import read_utility
from lungan.results.utility_report import report_utility

NUM_REAL = {0.05: 235, 1.0: 4708}


def write_trial(
    store: Path,
    arm: str,
    auc: float | None,
    *,
    fraction: float = 1.0,
    ratio: float | None = None,
    seed: int = 0,
    gan: str = "dcgan-bce-0123abcd",
    updates: int = 800,
) -> Path:
    config: dict[str, Any] = {
        "arm": arm,
        "ratio": ratio,
        "seed": seed,
        "data": {"fraction": fraction, "fraction_seed": 0, "num_real_images": NUM_REAL[fraction]},
        "classifier": {"classifier": "small", "updates": updates, "batch_size": 64},
    }
    if ARMS[arm].uses_generator:
        config["gan"] = {"name": gan, "runs": [f"run-of-{gan}"]}
    digits = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    folder = store / "utility" / f"{arm}-{digits[:8]}"
    folder.mkdir(parents=True)
    summary = {
        "status": "diverged" if auc is None else "done",
        "reason": None,
        "run_id": digits,
        "trajectory_id": digits,
        "data_hash": "da" * 32,
        "num_train_images": 1,
        "device": "cpu",
        "precision": "fp32",
        "seconds": {"total": 1.0},
        "scores": {
            "values": {} if auc is None else {"auc": auc, "expected_calibration_error": 1 - auc},
            "num_images": 624,
        },
        "config": config,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_study(store: Path, gain: float, *, fraction: float = 1.0, **more: Any) -> None:
    """Five seeds of five arms; real + synthetic is ``gain`` above the duplicates."""
    noise = [0.002, -0.001, 0.0005, -0.002, 0.0005]
    for seed, own in enumerate(noise):
        place: dict[str, Any] = {"fraction": fraction, "seed": seed, **more}
        base = (0.98 if fraction == 1 else 0.92) + 3 * own
        if more.get("gan", "a") == "a":
            write_trial(store, "real", base, **place)
            write_trial(store, "real_classical", base + 0.01, **place)
            write_trial(store, "real_duplicates", base, ratio=1.0, **place)
        write_trial(store, "real_synthetic", base + gain + own, ratio=1.0, **place)
        write_trial(store, "synthetic", base - 0.05 - own, ratio=1.0, **place)


def sentences(store: Path) -> list[str]:
    utility = read_utility(store)
    assert utility is not None
    return report_utility(utility).verdicts


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.01, "these synthetic images help."),
        (-0.01, "these synthetic images harm."),
        (0.0, "no significant difference, so nothing shows that synthetic images do more"),
    ],
)
def test_the_answer_in_words(tmp_path: Path, gain: float, words: str) -> None:
    write_study(tmp_path, gain, gan="a")
    first, *_ = sentences(tmp_path)
    assert first.startswith("With 4708 real images, real + synthetic (x1) has AUC ")
    assert words in first
    assert "95 % CI" in first


def test_answers_are_paired_by_seed_and_corrected_within_their_question(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_study(tmp_path, 0.001, gan="a", fraction=0.05)
    utility = read_utility(tmp_path)
    assert utility is not None
    answers = [
        answer
        for answer in utility.answers
        if answer.first.score == "auc" and answer.second.group.label.startswith("real + dup")
    ]
    assert [answer.first.runs[0].config["data.fraction"] for answer in answers] == [0.05, 1.0]
    noise = [0.002, -0.001, 0.0005, -0.002, 0.0005]
    by_hand = [paired([gain + one for one in noise], [0.0] * 5) for gain in (0.001, 0.01)]
    for answer, expected in zip(answers, by_hand, strict=True):
        assert answer.result.test == "paired t"
        assert answer.result.difference == pytest.approx(expected.difference, abs=1e-9)
        assert answer.result.p == pytest.approx(expected.p, rel=1e-6)
    adjusted = holm([expected.p or 0 for expected in by_hand])
    assert [answer.p_holm for answer in answers] == pytest.approx(adjusted, rel=1e-6)


def test_only_seeds_that_both_have_are_compared(tmp_path: Path) -> None:
    for seed in range(3):
        write_trial(tmp_path, "real_duplicates", 0.9 + 0.01 * seed, ratio=1.0, seed=seed)
    for seed in range(1, 5):
        write_trial(tmp_path, "real_synthetic", 0.95 + 0.012 * seed, ratio=1.0, seed=seed)
    utility = read_utility(tmp_path)
    assert utility is not None
    (answer,) = [one for one in utility.answers if one.first.score == "auc"]
    assert answer.result.dof == 1
    assert answer.result.difference == pytest.approx(0.05 + 0.002 * 1.5, abs=1e-9)


def test_other_generators_ratios_and_classifiers_stay_apart(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_study(tmp_path, -0.01, gan="b")
    write_trial(tmp_path, "real_synthetic", 0.5, ratio=2.0, gan="a")
    write_trial(tmp_path, "real_synthetic", 0.6, ratio=1.0, gan="a", updates=20)
    utility = read_utility(tmp_path)
    assert utility is not None
    labels = {group.label for group in utility.groups}
    assert {label for label in labels if label.startswith("real + synthetic")} == {
        "real + synthetic (x1), 4708 real images / 20 updates / a",
        "real + synthetic (x1), 4708 real images / 800 updates / a",
        "real + synthetic (x1), 4708 real images / 800 updates / b",
        "real + synthetic (x2), 4708 real images / 800 updates / a",
    }
    primary = [answer for answer in utility.answers if answer.first.score == "auc"]
    gains = {
        (answer.first.group.label, answer.second.group.label): answer.result.difference
        for answer in primary
        if answer.second.group.label.startswith("real + duplicates")
    }
    assert sorted(round(gain, 3) for gain in gains.values()) == [-0.01, 0.01]


def test_the_pages_parts_and_that_they_repeat(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_study(tmp_path, 0.02, gan="a", fraction=0.05)
    picture = Image.new("L", (238, 118), 128)
    for folder in (tmp_path / "utility").glob("real_synthetic-*"):
        picture.save(folder / "convincing.png")
    utility = read_utility(tmp_path)
    assert utility is not None
    report, again = report_utility(utility), report_utility(utility)
    assert report.files == again.files
    assert [figure.file for figure in report.figures] == ["utility.png", "utility_convincing.png"]
    assert len(report.arms.rows) == 10
    assert [cell.text for cell in report.arms.rows[0]][:3] == ["real only", "235", "5"]
    assert report.arms.rows[0][3].text.startswith("0.9200 ± ")
    rows = list(csv.DictReader(io.StringIO(report.files["utility.csv"].decode())))
    assert len(rows) == 50
    assert {row["arm"] for row in rows} == {
        "real",
        "real_classical",
        "real_duplicates",
        "real_synthetic",
        "synthetic",
    }
    assert [problem.name for problem in report.problems] == ["run-of-a"]
    assert not any("too few" in line for line in report.caveats)


def test_diverged_and_damaged_and_unfinished_trials(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_trial(tmp_path, "real", None, seed=7)
    (tmp_path / "utility/real-under-way").mkdir()
    write_trial(tmp_path, "real", 0.9, seed=8).joinpath("summary.json").write_text("{")
    odd = write_trial(tmp_path, "real", 0.9, seed=9)
    odd.joinpath("summary.json").write_text(
        odd.joinpath("summary.json").read_text().replace('"arm": "real"', '"arm": "other"')
    )
    utility = read_utility(tmp_path)
    assert utility is not None
    assert len(utility.problems) == 2
    assert sentences(tmp_path)[0] == "1 of 26 classifiers diverged."


def test_nothing_to_read(tmp_path: Path) -> None:
    assert read_utility(tmp_path) is None
    (tmp_path / "utility").mkdir()
    assert read_utility(tmp_path) is None


def test_every_question_is_between_arms() -> None:
    assert all(arm in ARMS and control in ARMS for arm, control in QUESTIONS)
    assert QUESTIONS[0] == ("real_synthetic", "real_duplicates")


def write_predictions(folder: Path, shift: float, seed: int) -> None:
    """Twenty patients of two images in each split; a higher shift separates the classes better."""
    rng = random.Random(seed)
    lines = ["split,image,patient,class,p.normal,p.pneumonia"]
    for split in ("val", "test"):
        for image in range(40):
            sick = image // 2 % 2
            p = min(max(0.3 + shift * sick + 0.2 * rng.random(), 0.0), 1.0)
            name = ("normal", "pneumonia")[sick]
            lines.append(f"{split},{split}{image},{image // 2},{name},{1 - p},{p}")
    (folder / "predictions.csv").write_text("\n".join(lines))


def test_patients_and_seeds_are_drawn_again_together(tmp_path: Path) -> None:
    for seed in range(3):
        for arm, ratio, shift in (("real_synthetic", 1.0, 0.3), ("real_duplicates", 1.0, 0.05)):
            folder = write_trial(
                tmp_path, arm, 0.9 + shift * (0.1 + 0.01 * seed), ratio=ratio, seed=seed
            )
            summary = json.loads((folder / "summary.json").read_text())
            summary["config"]["classifier"]["positive"] = "pneumonia"
            (folder / "summary.json").write_text(json.dumps(summary))
            write_predictions(folder, shift, seed)
    utility = read_utility(tmp_path)
    assert utility is not None
    (found,) = utility.over_patients
    assert (found.num_seeds, found.num_images, found.num_patients) == (3, 40, 20)
    assert found.results["auc"].low > 0
    assert found.results["sensitivity"].difference > 0
    report = report_utility(utility)
    assert "With 20 patients and 3 seeds drawn again together" in " ".join(report.verdicts)
    assert "these synthetic images help." in report.verdicts[0]
    table = list(csv.DictReader(io.StringIO(report.files["utility_patients.csv"].decode())))
    assert [row["patients"] for row in table] == ["20"] * 3

    for path in tmp_path.glob("utility/real_*/predictions.csv"):
        seed = json.loads((path.parent / "summary.json").read_text())["config"]["seed"]
        write_predictions(path.parent, 0.05, seed + 10 * ("duplicates" in path.parent.name))
    unclear = read_utility(tmp_path)
    assert unclear is not None
    assert unclear.over_patients[0].results["auc"].includes_zero
    assert "but not shown for other patients." in report_utility(unclear).verdicts[0]

    (folder / "predictions.csv").write_text("split,image\ntest,0\n")
    damaged = read_utility(tmp_path)
    assert damaged is not None
    assert damaged.over_patients == []
    assert "predictions.csv cannot be read" in damaged.problems[0].text

    (folder / "predictions.csv").unlink()  # as trials of lungan before 0.2 are
    older = read_utility(tmp_path)
    assert older is not None
    assert (older.over_patients, older.problems) == ([], [])
    assert "utility_patients.csv" not in report_utility(older).files
