"""Utility trials read back: groups, answers against controls, verdicts, and the figure's panels."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lungan.results.report import write_results
from lungan.results.statistics import holm, paired
from lungan.utility.analysis import read_utility, value
from lungan.utility.arms import ARMS, PRIMARY, QUESTIONS
from lungan.utility.manifest import (
    Addition,
    Design,
    Manifest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from lungan.utility.page import report_utility

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
    runs: str = "",
    draw: int = 0,
) -> Path:
    config: dict[str, Any] = {
        "arm": arm,
        "ratio": ratio,
        "seed": seed,
        "data": {
            "fraction": fraction,
            "fraction_seed": draw,
            "num_real_images": NUM_REAL[fraction],
        },
        "classifier": {"classifier": "small", "updates": updates, "batch_size": 64},
    }
    config["shown"] = {"all": 100.0 if ratio is None else 50.0}
    if ARMS[arm].uses_generator:
        config["gan"] = {"name": gan, "runs": [f"run-of-{runs or gan}"]}
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
    """Five seeds of five arms; real + synthetic is ``gain`` above the real ones alone."""
    noise = [0.002, -0.001, 0.0005, -0.002, 0.0005]
    for seed, own in enumerate(noise):
        place: dict[str, Any] = {"fraction": fraction, "seed": seed, **more}
        base = (0.98 if fraction == 1 else 0.92) + 3 * own
        if more.get("gan", "a") == "a":
            write_trial(store, "real", base, **place)
            write_trial(store, "real_classical", base + 0.01, **place)
            write_trial(store, "real_shorter", base - 0.2 * own, ratio=1.0, **place)
        write_trial(store, "real_synthetic", base + gain + own, ratio=1.0, **place)
        write_trial(store, "synthetic", base - 0.05 - own, ratio=1.0, **place)


def sentences(store: Path) -> list[str]:
    utility = read_utility(store)
    assert utility is not None
    return report_utility(utility).verdicts


def caveats_of(store: Path) -> list[str]:
    utility = read_utility(store)
    assert utility is not None
    return report_utility(utility).caveats


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.01, "help a classifier with 4708 real images."),
        (-0.01, "harm a classifier with 4708 real images."),
        (0.0, "are not shown to help with 4708 real images."),
    ],
)
def test_the_answer_in_words(tmp_path: Path, gain: float, words: str) -> None:
    write_study(tmp_path, gain, gan="a")
    first, second, *_ = sentences(tmp_path)
    assert first.startswith(f"Synthetic images {words}")
    assert "no manifest says what was fixed before" in first
    assert second.startswith("With 4708 real images, real + synthetic (x1) has AUC ")
    assert second.count("95 % CI") == 2
    assert "corrected p" in second


def test_a_page_without_scores_opens_with_its_stores_study(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    (tmp_path / "generator").mkdir()
    summary = {"status": "done", "run_id": "a" * 64, "epochs_done": 1, "config": {"seed": 0}}
    (tmp_path / "generator" / "summary.json").write_text(json.dumps(summary))
    results = write_results(tmp_path, None, tmp_path / "out")
    first, second, *_ = results.findings
    assert results.verdicts.count(first) == 1
    assert first.startswith("Synthetic images help a classifier with 4708 real images.")
    assert second.startswith("No finished run has a score")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count(first.partition(".")[0]) == 1 and f'<p class="answer">{first[:20]}' in page


def test_the_answer_must_hold_against_every_control(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    for seed in range(5):
        (tmp_path / "utility").joinpath("x").mkdir(exist_ok=True)
        for path in (tmp_path / "utility").glob("real_shorter-*/summary.json"):
            summary = json.loads(path.read_text())
            if summary["config"]["seed"] == seed:
                summary["scores"]["values"]["auc"] += 0.0095
                path.write_text(json.dumps(summary))
    utility = read_utility(tmp_path)
    assert utility is not None
    (answer,) = utility.answers
    over = {value(one.second.group, "arm"): one.p_holm for one, _ in answer.against}
    assert over["real"] is not None and over["real"] < 0.01
    assert answer.p == pytest.approx(over["real_shorter"]) and answer.direction == 0
    assert sentences(tmp_path)[0].startswith("Synthetic images are not shown to help")


@pytest.mark.parametrize("draw", [0, 10])
def test_a_second_set_of_generators_adds_no_seeds(tmp_path: Path, draw: int) -> None:
    """Of the same draw of real images it is pooled with the first; of another it has no control."""
    write_study(tmp_path, 0.0, fraction=0.05)
    for seed in range(5):
        place: dict[str, Any] = {"fraction": 0.05, "ratio": 1.0, "seed": seed}
        trained = {"runs": "second", "draw": draw + seed if draw else 0}
        write_trial(tmp_path, "real_synthetic", 0.99, **place, **trained)
    utility = read_utility(tmp_path)
    assert utility is not None
    auc = [one for one in utility.comparisons if one.first.score == "auc"]
    found = {
        tuple(value(side.group, "arm") for side in (one.first, one.second)): one for one in auc
    }
    one = found["real_synthetic", "real"]
    base, noise = 0.92, (0.002, -0.001, 0.0005, -0.002, 0.0005)
    gains = [own if draw else (own + 0.07 - 3 * own) / 2 for own in noise]
    assert one.result.difference == pytest.approx(sum(gains) / 5)
    assert (one.result.dof, one.result.test) == (4, "paired t")
    assert one.first.interval.n == (10 if draw else 5)
    assert one.second.interval.mean == pytest.approx(base)
    pooled = any("count once, by their mean" in line for line in report_utility(utility).caveats)
    assert pooled == (draw == 0)


def test_nothing_is_answered_while_a_control_is_missing(tmp_path: Path) -> None:
    for seed in range(3):
        write_trial(tmp_path, "real", 0.9 + 0.01 * seed, seed=seed)
        write_trial(tmp_path, "real_synthetic", 0.95 + 0.012 * seed, ratio=1.0, seed=seed)
    write_manifest(tmp_path, manifest_of(tmp_path, 3))
    said = sentences(tmp_path)
    assert said[0].startswith("Nothing is answered yet: that takes finished trials of real + syn")
    assert not any(line.startswith("Real + synthetic against real only") for line in said)


@pytest.mark.parametrize(("gain", "words"), [(0.02, "better"), (-0.02, "worse")])
def test_an_answer_about_an_arm_without_synthetic_images_says_so(
    tmp_path: Path, gain: float, words: str
) -> None:
    for seed in range(3):
        write_trial(tmp_path, "real", 0.9 + 0.01 * seed, seed=seed)
        write_trial(tmp_path, "real_classical", 0.9 + gain + 0.0101 * seed, seed=seed)
    manifest = manifest_of(tmp_path, 3, asked="real_classical", controls=("real",))
    design = dataclasses.replace(manifest.planned, arms=("real", "real_classical"))
    write_manifest(tmp_path, dataclasses.replace(manifest, planned=design))
    said = sentences(tmp_path)[0]
    expected = f"Real, classical augmentation is {words} than every control with 4708 real images."
    assert said.startswith(expected)


def test_answers_are_paired_by_seed_and_corrected_within_their_question(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_study(tmp_path, 0.001, gan="a", fraction=0.05)
    utility = read_utility(tmp_path)
    assert utility is not None
    answers = [
        answer
        for answer in utility.comparisons
        if answer.first.score == "auc"
        and (value(answer.first.group, "arm"), value(answer.second.group, "arm"))
        == ("real_synthetic", "real")
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
        write_trial(tmp_path, "real_shorter", 0.9 + 0.01 * seed, ratio=1.0, seed=seed)
    for seed in range(1, 5):
        write_trial(tmp_path, "real_synthetic", 0.95 + 0.012 * seed, ratio=1.0, seed=seed)
    utility = read_utility(tmp_path)
    assert utility is not None
    (answer,) = [one for one in utility.comparisons if one.first.score == "auc"]
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
    primary = [answer for answer in utility.comparisons if answer.first.score == "auc"]
    gains = {
        (answer.first.group.label, answer.second.group.label): answer.result.difference
        for answer in primary
        if answer.first.group.label.startswith("real + synthetic (x1)")
        and answer.second.group.label.startswith("real only, 4708")
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
    first = [cell.text for cell in report.arms.rows[0]]
    assert first[:4] == ["real only", "235", "100 times", "5"]
    assert first[4].startswith("0.9200 ± ")
    rows = list(csv.DictReader(io.StringIO(report.files["utility.csv"].decode())))
    assert len(rows) == 50
    assert {row["arm"] for row in rows} == {
        "real",
        "real_classical",
        "real_shorter",
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
    assert [one.name.partition("/")[0] for one in utility.problems] == ["utility"] * 2 + [
        "run-of-a"
    ]
    assert sentences(tmp_path)[-1] == "1 of 26 classifiers diverged."


def test_nothing_to_read(tmp_path: Path) -> None:
    assert read_utility(tmp_path) is None
    (tmp_path / "utility").mkdir()
    assert read_utility(tmp_path) is None


def test_every_question_is_between_arms() -> None:
    assert all(arm in ARMS and control in ARMS for arm, control in QUESTIONS)
    assert all((asked, control) in QUESTIONS for asked, of in PRIMARY.items() for control in of)


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


def write_predicted(
    store: Path, arm: str, shift: float, seed: int, noise: int | None = None
) -> Path:
    """A trial with its predictions; ``noise``: of the images, the seed's where there is none."""
    ratio = 1.0 if ARMS[arm].uses_ratio else None
    folder = write_trial(store, arm, 0.9 + shift * (0.1 + 0.01 * seed), ratio=ratio, seed=seed)
    summary = json.loads((folder / "summary.json").read_text())
    summary["config"]["classifier"]["positive"] = "pneumonia"
    (folder / "summary.json").write_text(json.dumps(summary))
    write_predictions(folder, shift, seed if noise is None else noise)
    return folder


def test_patients_and_seeds_are_drawn_again_together(tmp_path: Path) -> None:
    for seed in range(3):
        for arm, shift in (("real_synthetic", 0.3), ("real", 0.05), ("real_shorter", 0.06)):
            folder = write_predicted(tmp_path, arm, shift, seed)
    utility = read_utility(tmp_path)
    assert utility is not None
    by_control = {value(one.second.group, "arm"): over for one, over in utility.tested}
    found = by_control["real"]
    assert found is not None
    assert (found.num_seeds, found.num_images, found.num_patients) == (3, 40, 20)
    assert found.results["auc"].low > 0
    assert found.results["sensitivity"].difference > 0
    report = report_utility(utility)
    assert "(20 test patients and 3 seeds drawn again together" in report.verdicts[1]
    assert report.verdicts[0].startswith("Synthetic images help a classifier with 4708 real")
    table = list(csv.DictReader(io.StringIO(report.files["utility_patients.csv"].decode())))
    assert [row["patients"] for row in table] == ["20"] * 9
    table = list(csv.DictReader(io.StringIO(report.files["utility_classifiers.csv"].decode())))
    assert len(table) == 9
    for row in table:
        low, high = float(row["delong95_low"]), float(row["delong95_high"])
        assert low <= float(row["auc"]) <= high <= 1

    for path in tmp_path.glob("utility/real*/predictions.csv"):
        seed = json.loads((path.parent / "summary.json").read_text())["config"]["seed"]
        write_predictions(path.parent, 0.05, seed + 10 * ("real-" in path.parent.name))
    unclear = read_utility(tmp_path)
    assert unclear is not None
    assert unclear.answers[0].over_patients[0].results["auc"].includes_zero
    assert unclear.answers[0].direction == 0
    of_real = [one.p_holm for one, _ in unclear.answers[0].against]
    assert max(p for p in of_real if p is not None) < 0.05  # the paired t alone would have found it

    (folder / "predictions.csv").write_text("split,image\ntest,0\n")
    damaged = read_utility(tmp_path)
    assert damaged is not None
    assert [over is None for _, over in damaged.tested] == [False, True, True]
    assert "predictions.csv is damaged: it must hold finite" in damaged.problems[0].text

    (folder / "predictions.csv").unlink()  # as trials of lungan before 0.2 are
    older = read_utility(tmp_path)
    assert older is not None
    assert [one.name for one in older.problems] == ["run-of-dcgan-bce-0123abcd"]
    assert not older.answers[0].over_patients


def manifest_of(store: Path, seeds: int, **changes: Any) -> Manifest:
    design = Design(arms=("real", "real_shorter", "real_synthetic"), fractions=(1.0,), seeds=seeds)
    paths = sorted((store / "utility").glob("*/summary.json"))
    made = Manifest(
        name="mine",
        created="2026-01-01T00:00:00+00:00",
        command="lungan utility",
        asked="real_synthetic",
        controls=("real", "real_shorter"),
        score="auc",
        planned=design,
        settings={},
        results_before=0,
        trials=tuple(json.loads(path.read_text())["run_id"] for path in paths),
    )
    return dataclasses.replace(made, **changes)


def test_what_was_added_after_a_look_is_exploratory_and_not_the_answer(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    for seed in range(5, 9):  # later seeds say the opposite
        write_trial(tmp_path, "real", 0.99, seed=seed)
        write_trial(tmp_path, "real_shorter", 0.99 + 0.001 * seed, ratio=1.0, seed=seed)
        write_trial(tmp_path, "real_synthetic", 0.5, ratio=1.0, seed=seed, gan="a")
    manifest = manifest_of(tmp_path, 5)
    more = dataclasses.replace(manifest.planned, seeds=9, arms=("real", "real_classical"))
    manifest = dataclasses.replace(
        manifest, added=(Addition("2026-01-02T00:00:00+00:00", 25, more),)
    )
    write_manifest(tmp_path, manifest)
    assert read_manifest(manifest_path(tmp_path, "mine")) == manifest
    utility = read_utility(tmp_path, study="mine")
    assert utility is not None
    report = report_utility(utility)
    assert report.verdicts[0] == "Synthetic images help a classifier with 4708 real images." + (
        " This rests on seeds alone, since predictions were not kept."
    )
    exploratory = [line for line in report.verdicts if line.startswith("Exploratory")]
    assert len(exploratory) == 1
    assert all("exploratory" in row[0].text for row in report.arms.rows)
    assert "Added on 2026-01-02 00:00 UTC, after 25 results" in report.caveats[0]

    write_manifest(tmp_path, dataclasses.replace(manifest, added=(), results_before=3))
    late = read_utility(tmp_path)  # the store's only study
    assert late is not None
    assert (
        "the question was written down after results were there" in report_utility(late).verdicts[0]
    )


def test_a_study_cut_short_is_of_its_whole_seeds_and_says_which(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_manifest(tmp_path, manifest_of(tmp_path, 5))
    whole = read_utility(tmp_path)
    assert whole is not None and not any("planned seeds" in line for line in sentences(tmp_path))

    write_trial(tmp_path, "real", 0.5, seed=5)  # and no other arm of that seed
    write_trial(tmp_path, "real_synthetic", 0.99, seed=6, ratio=1.0, gan="a")
    write_trial(tmp_path, "real_shorter", None, seed=6, ratio=1.0)
    write_manifest(tmp_path, manifest_of(tmp_path, 8))
    cut = read_utility(tmp_path)
    assert cut is not None and cut.whole_seeds == [0, 1, 2, 3, 4]
    assert cut.answers[0].p == whole.answers[0].p
    assert [one.interval for one in cut.summaries] == [one.interval for one in whole.summaries]
    report = report_utility(cut)
    assert report.verdicts[2] == (
        "5 of the 8 planned seeds are whole (0 to 4). The answer has the power of so many seeds, "
        "likely less than that of all that were planned. Trials of seeds that are not whole are "
        "left out: 3."
    )
    seeds = {row[0].text: row[3] for row in report.arms.rows}
    assert seeds["real only"] == ("5 of 8", 5)
    assert seeds["synthetic only (x1), exploratory"] == ("5", 5)  # which was not planned

    write_trial(tmp_path, "real", 0.9, seed=6)
    assert "6 of the 8 planned seeds are whole (0 to 4, 6)." in sentences(tmp_path)[2]  # diverged
    for path in (tmp_path / "utility").glob("real_shorter-*/summary.json"):
        path.unlink()
    none = sentences(tmp_path)
    assert none[0].startswith("Nothing is answered yet")
    assert none[1] == "None of the 8 planned seeds is whole: each takes 3 trials."


def test_secondary_sentences_say_what_both_tests_allow(tmp_path: Path) -> None:
    """Of arms that are better or worse in both tests, in the t-test alone, and in none."""
    for seed in range(4):
        for arm, shift in (
            ("real", 0.05),
            ("real_shorter", 0.05),
            ("real_synthetic", 0.05),
            ("real_classical", 0.3),
            ("synthetic", -0.2),
        ):
            write_predicted(tmp_path, arm, shift, seed)
        folder = write_predicted(tmp_path, "real_mixup", 0.3, seed)
        write_predictions(folder, 0.05, seed + 50)  # as good as real ones, patient by patient
    said = sentences(tmp_path)
    real = "real only, in AUC:"
    where = "with 4708 real images."
    assert f"Real, classical augmentation against {real} better {where}" in said
    assert f"Synthetic only against {real} worse {where}" in said
    alone = "better over seeds alone, not shown for other patients"
    assert f"Real, mixup against {real} {alone} {where}" in said
    shorter = f"Real only, shown as often as beside synthetic against {real}"
    assert f"{shorter} no difference shown {where}" in said
    assert not any(line.startswith("Real + synthetic against real only") for line in said)
    assert said[-1] == (
        "Trained on synthetic images alone, a classifier reaches AUC 0.877 at most (generators of "
        "4708 real images, synthetic only (x1)), where the real ones reach 0.906."
    )
    for path in (tmp_path / "utility").glob("synthetic-*/predictions.csv"):
        path.unlink()
    worse = "worse over seeds alone (no predictions were kept)"
    assert f"Synthetic only against {real} {worse} {where}" in sentences(tmp_path)


def test_caveats_say_how_the_numbers_came_about(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    unplanned, *standing = caveats_of(tmp_path)
    assert unplanned.endswith("before the results: the whole study is exploratory.")
    assert standing[0].startswith(
        "The question is whether real + synthetic is better than each of: real only and real only,"
        " shown as often as beside synthetic."
    )
    assert [line.split()[0] for line in standing[1:]] == (
        ["The", "Intervals", "Weights", "How", "Seeds"]
    )
    assert standing[-1].startswith("Seeds share 1 set of generators")

    manifest = manifest_of(tmp_path, 5)
    write_manifest(tmp_path, manifest)
    assert caveats_of(tmp_path)[0] == (
        "Study mine, written down on 2026-01-01 00:00 UTC before the first result: 5 seeds "
        "from 0 on, fractions 1, ratios 1, arms real, real_shorter, real_synthetic."
    )
    more = dataclasses.replace(
        manifest.planned, seeds=7, rare="normal", prevalences=(0.05,), fractions=(0.05, 1.0)
    )
    added = (Addition("2026-01-02T00:00:00+00:00", 15, more),)
    write_manifest(tmp_path, dataclasses.replace(manifest, results_before=2, added=added))
    late = caveats_of(tmp_path)[0]
    assert "written down on 2026-01-01 00:00 UTC when 2 results were there: 5 seeds" in late
    assert (
        "Added on 2026-01-02 00:00 UTC, after 15 results, and exploratory: 7 seeds from 0 on, "
        "fractions 0.05, 1, normal at shares 0.05, ratios 1, arms" in late
    )
    assert late.endswith("the answer is therefore of the planned seeds.")


def test_caveats_name_few_seeds_validation_images_and_the_recipes_that_were_chosen(
    tmp_path: Path,
) -> None:
    for seed, recipe in enumerate(["as given", "twice the updates", "as given"]):
        folder = write_trial(tmp_path, "real", 0.9 + 0.01 * seed, seed=seed)
        summary = json.loads((folder / "summary.json").read_text())
        summary["config"] |= {"recipe": recipe, "tested_on": "val"}
        summary["config"]["shown"]["all"] = 60.0 * (1 + (recipe != "as given"))
        (folder / "summary.json").write_text(json.dumps(summary))
    said = caveats_of(tmp_path)
    assert "Some groups have 3 seeds only, too few to see a small difference." in said
    assert said[-1] == "Measured on validation images: for trying options, not for an answer."
    (chosen,) = [line for line in said if line.startswith("Each classifier has that of six")]
    assert "real only (4708 real images): as given 2, twice the updates 1. Arms may" in chosen
    utility = read_utility(tmp_path)
    assert utility is not None
    report = report_utility(utility)
    assert report.arms.rows[0][2].text == "80 times"
    rows = list(csv.DictReader(io.StringIO(report.files["utility.csv"].decode())))
    assert sorted(row["recipe"] for row in rows) == ["as given", "as given", "twice the updates"]


def test_validation_images_are_not_called_test_images(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01)
    for path in tmp_path.rglob("summary.json"):
        summary = json.loads(path.read_text())
        summary["config"] |= {"tested_on": "val"}
        path.write_text(json.dumps(summary))
    utility = read_utility(tmp_path)
    assert utility is not None and utility.measured_on == "validation"
    report = report_utility(utility)
    assert ", on validation images." in report.verdicts[0]
    assert not any("test image" in line for line in (*report.verdicts, *report.caveats))


def test_only_planned_arms_of_a_study_are_not_exploratory(tmp_path: Path) -> None:
    write_study(tmp_path, 0.01, gan="a")
    write_manifest(tmp_path, manifest_of(tmp_path, 5))
    utility = read_utility(tmp_path, study="mine")
    assert utility is not None
    marked = {value(g, "arm") for g in utility.groups if g.label.endswith("/ exploratory")}
    assert marked == {"real_classical", "synthetic"}
    path = manifest_path(tmp_path, "mine")
    path.write_text("{")
    damaged = read_utility(tmp_path)
    assert damaged is not None
    assert "mine.study.json is damaged" in damaged.problems[0].text
