"""Numbers in README and docs stand in committed files, which commands of this repository make."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shlex
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lungan import train

ROOT = Path(__file__).resolve().parents[1]


def text_of(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def rows_of(name: str) -> list[dict[str, str]]:
    with (ROOT / name).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def summary(name: str, score: str, group: str) -> tuple[float, float]:
    """Mean and half of the 95 % interval, as the committed summary.csv has them."""
    (row,) = [r for r in rows_of(name) if r["score"] == score and r["group"] == group]
    return float(row["mean"]), (float(row["ci95_high"]) - float(row["ci95_low"])) / 2


GROUPS = ("50 epochs / adam", "50 epochs / rmsprop", "100 epochs / adam", "100 epochs / rmsprop")
REPORT, SMALL = "results/report/summary.csv", "results/small_data/summary.csv"


@pytest.mark.parametrize(
    ("document", "title", "score"),
    [
        ("README.md", "Fréchet distance", "frechet_distance"),
        ("README.md", "coverage", "coverage"),
        ("README.md", "Inception Score (in-domain)", "inception_score"),
        ("docs/report.md", "Fréchet distance", "frechet_distance"),
        *(("docs/report.md", name, name) for name in ("precision", "recall", "density")),
        ("docs/report.md", "coverage", "coverage"),
        ("docs/report.md", "in-domain Inception Score", "inception_score"),
    ],
)
def test_tables_of_scores_are_those_of_the_studies(document: str, title: str, score: str) -> None:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"| {title}"))
    cells = [cell.strip(" *") for cell in line.strip("|").split("|")][2:]
    places = [*((REPORT, group) for group in GROUPS), (SMALL, "all runs")]
    assert len(cells) == (5 if document == "README.md" else 4)
    for cell, (file, group) in zip(cells, places, strict=False):
        said = [float(number) for number in cell.split(" ± ")]
        decimals = [len(number.partition(".")[2]) for number in cell.split(" ± ")]
        found = summary(file, f"domain.{score}", group)
        for value, digits, expected in zip(said, decimals, found, strict=True):
            assert value == pytest.approx(expected, abs=0.51 * 10**-digits), (cell, group)


@pytest.mark.parametrize(
    ("document", "sentence", "first", "second"),
    [
        ("README.md", r"by (0\.51) \(95 % CI (0\.45) to (0\.57)\)", GROUPS[1], GROUPS[0]),
        ("README.md", r"and (0\.41) \((0\.32) to (0\.50)\) at 100", GROUPS[3], GROUPS[2]),
        ("docs/report.md", r"by (0\.51) \((0\.45) to (0\.57)", GROUPS[1], GROUPS[0]),
        ("docs/report.md", r"by (0\.41) \((0\.32) to (0\.50)", GROUPS[3], GROUPS[2]),
    ],
)
def test_differences_in_coverage(document: str, sentence: str, first: str, second: str) -> None:
    found = re.search(sentence, text_of(document))
    assert found is not None
    verdicts = (ROOT / "results/report/verdicts.md").read_text(encoding="utf-8")
    row = re.search(
        rf"\| Coverage \(domain\) \| {first} \| {second} \| (\S+) \((\S+) to (\S+)\)", verdicts
    )
    assert row is not None
    for said, committed in zip(found.groups(), row.groups(), strict=True):
        assert float(said) == pytest.approx(float(committed), abs=0.0051)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("study", ["report", "small_data", "small_data/ablation"])
def test_committed_verdicts_are_what_the_present_statistics_say(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = Path("results") / study / "results.csv"
    table.parent.mkdir(parents=True)
    table.write_bytes((ROOT / table).read_bytes())
    made = load("verdicts_of_table").write(table)
    assert made.read_text() == (ROOT / "results" / study / "verdicts.md").read_text()


def test_the_null_simulation_is_quoted_right() -> None:
    rows = rows_of("results/null_simulation/null_simulation.csv")
    kinds = ("difference", "short of the floor", "past the floor", "copying", "first sentences")
    largest = max(float(row[kind]) for row in rows for kind in kinds)
    said = f"each kind of false sentence stood in at most {100 * largest:.1f} % of the reports"
    assert said in text_of("README.md")
    assert largest <= 0.05 + 2 * (0.05 * 0.95 / 1000) ** 0.5  # by chance 5 % is up to 6.4 % of 1000
    document = text_of("docs/scores.md")
    for scores in {row["scores"] for row in rows}:
        cases = [row for row in rows if row["scores"] == scores]
        worst = [max(float(case[kind]) for case in cases) for kind in kinds[:4]]
        assert f"| {scores} | {' | '.join(f'{100 * share:.1f} %' for share in worst)} |" in document


def test_the_simulated_utility_studies_are_quoted_right() -> None:
    document = text_of("docs/utility_details.md")
    rows = rows_of("results/utility_null/utility_null.csv")
    for row in rows:
        tests = ("paired_t", "images_and_seeds", "patients_and_seeds", "answer")
        cells = " | ".join(f"{float(row[test]) * 100:.0f} %" for test in tests)
        expected = f"| {row['seeds']} | {float(row['gain']):g} | {cells} | "
        assert f"{expected}{float(row['detectable']):.3f} |" in document
    few, many = (row for row in rows if float(row["gain"]) == 0)
    one, both = (
        [f"{float(row[test]) * 100:.0f} %" for row in (few, many)]
        for test in ("paired_t", "answer")
    )
    said = f"gain in {one[0]} of studies of {few['seeds']} seeds and in {one[1]} of {many['seeds']}"
    assert said in text_of("docs/utility.md")
    assert f"this answer in {both[0]} and {both[1]}" in text_of("docs/utility.md")


USUAL = "real + synthetic (x1)"
USUAL_CONTROLS = ("real only", "real only, shown as often as beside synthetic (x1)")
AUGMENTED = "real + synthetic, classical augmentation (x1)"
AUGMENTED_CONTROLS = ("real, classical augmentation", "real only")
RARE = "rarer classes filled up with synthetic (x1)"
RARE_CONTROLS = ("real, rarer classes oversampled", "real, class weights")
STUDIES = {
    "pneumoniamnist_20_seeds": ("PneumoniaMNIST, 5 %, 20 seeds", USUAL, USUAL_CONTROLS),
    "pneumoniamnist_2_percent": ("PneumoniaMNIST, 2 %, 20 seeds", USUAL, USUAL_CONTROLS),
    "confirm_2_percent": (
        "PneumoniaMNIST, 2 %, asked again with classical augmentation, 25 of 28 seeds",
        AUGMENTED,
        AUGMENTED_CONTROLS,
    ),
    "synthetic_10_percent": (
        "PneumoniaMNIST, 10 %, augmented, 10 seeds",
        AUGMENTED,
        AUGMENTED_CONTROLS,
    ),
    "synthetic_25_percent": (
        "PneumoniaMNIST, 25 %, augmented, 10 seeds",
        AUGMENTED,
        AUGMENTED_CONTROLS,
    ),
    "synthetic_all": ("PneumoniaMNIST, all, augmented, 10 seeds", AUGMENTED, AUGMENTED_CONTROLS),
    "nih_chest_64": ("NIH films, all, 10 seeds", USUAL, USUAL_CONTROLS),
    "pneumoniamnist_rare_normal": (
        "PneumoniaMNIST, 5 % normal, each shown once, 10 seeds",
        RARE,
        RARE_CONTROLS,
    ),
    "pneumoniamnist_rare_normal_longer": (
        "PneumoniaMNIST, 5 % normal, 10 seeds",
        RARE,
        RARE_CONTROLS,
    ),
}


def arm_of(group: str) -> str:
    """A group's arm, without its number of real images and their shares."""
    return re.split(r", \d+ real images", group)[0]


def of_arms(study: str) -> dict[tuple[str, str], dict[str, str]]:
    """AUC over patients and seeds, first minus second, by both arms' titles."""
    rows = rows_of(f"results/utility/{study}/utility_patients.csv")
    return {
        (arm_of(row["first"]), arm_of(row["second"])): row
        for row in rows
        if row["measure"] == "auc"
    }


def interval(row: dict[str, str]) -> str:
    return f"{float(row['ci95_low']):.3f} to {float(row['ci95_high']):.3f}"


def utility_rows(study: str) -> list[str]:
    """A row for each control of the study's question."""
    folder = f"results/utility/{study}"
    means = {
        arm_of(row["group"]): float(row["mean"])
        for row in rows_of(f"{folder}/utility_summary.csv")
        if row["score"] == "auc"
    }
    (name, asked, controls), lines = STUDIES[study], []
    for control in controls:
        row = of_arms(study)[asked, control]
        cells = [name, control, f"{means[asked]:.3f}", f"{means[control]:.3f}"]
        cells.append(f"{float(row['difference']):.3f} ({interval(row)})")
        cells.append(f"{float(row['detectable']):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


@pytest.mark.parametrize("study", STUDIES)
def test_the_utility_studies_are_quoted_right(study: str) -> None:
    for line in utility_rows(study):
        assert line in text_of("results/utility/README.md")
    manifest = json.loads((ROOT / f"results/utility/{study}/{study}.study.json").read_text())
    assert manifest["results_before"] == 0 and not manifest["added"]
    assert f"{manifest['planned']['seeds']} seeds" in STUDIES[study][0]
    page = (ROOT / f"results/utility/{study}/report.html").read_text()
    assert page.split('<p class="answer">')[1].startswith("Synthetic images are not shown to help")


def test_what_is_said_beside_the_utility_studies() -> None:
    found = of_arms("pneumoniamnist_20_seeds")
    assert float(found["real + synthetic (x1)", "real only"]["ci95_high"]) < 0.01
    classical = found["real, classical augmentation", "real only"]
    on_top = found["real + synthetic, classical augmentation (x1)", "real, classical augmentation"]
    for document in ("docs/utility.md", "results/utility/README.md", "README.md"):
        gain = f"{float(classical['difference']):.3f} ({interval(classical)})"
        assert gain in text_of(document)
        words = (f"{float(on_top['difference']):.3f}", interval(on_top))
        assert document == "README.md" or all(one in text_of(document) for one in words)
    whole = {
        arm: summary("results/utility/pneumoniamnist_all_real/utility_summary.csv", "auc", arm)
        for arm in ("real only, 4708 real images", "real, classical augmentation, 4708 real images")
    }
    said = " with classical augmentation ".join(
        f"{m:.3f} ± {half:.3f}," for m, half in whole.values()
    )
    assert f"real images alone {said.rstrip(',')} (mean over" in text_of(
        "results/utility/README.md"
    )
    row = found["real + synthetic (x1)", "real only"]
    said = f"(difference {float(row['difference']):.3f}, 95 % CI {interval(row)}, over test images"
    assert said in text_of("README.md")
    shorter = of_arms("nih_chest_64")[
        "real only, shown as often as beside synthetic (x1)", "real only"
    ]
    low, high = (-float(shorter[end]) for end in ("ci95_high", "ci95_low"))
    worse = f"worse by {-float(shorter['difference']):.3f} ({low:.3f} to {high:.3f})"
    assert worse in text_of("results/utility/README.md")
    sets: dict[int, dict[str, list[float]]] = {number: {} for number in range(5)}
    for one in rows_of("results/utility/pneumoniamnist_20_seeds/utility.csv"):
        of_set = sets[int(one["seed"]) % 5]
        of_set.setdefault(one["arm"], []).append(float(one["auc"]))
    means = [(sum(s["real_synthetic"]) - sum(s["real"])) / len(s["real"]) for s in sets.values()]
    listed = ", ".join(f"{mean:.4f}" for mean in means[:-1])
    assert f"{listed} and {means[-1]:.4f}" in text_of("results/utility/README.md")


def test_secondary_findings_of_2_percent_and_of_a_rare_class_are_quoted_right() -> None:
    arms = (
        "real + synthetic, classical augmentation (x1)",
        "real, classical augmentation",
    )
    row = of_arms("pneumoniamnist_2_percent")[arms]
    difference = f"{float(row['difference']):.3f}"
    for document in ("docs/utility.md", "results/utility/README.md"):
        assert f"{difference} ({interval(row)})" in text_of(document)
    assert f"({difference}, {interval(row)})" in text_of("README.md")
    for study in ("pneumoniamnist_rare_normal", "pneumoniamnist_rare_normal_longer"):
        classical = f"{RARE_CONTROLS[0]}, classical augmentation"
        worse = of_arms(study)[RARE, classical]
        said = f"filling up with synthetic images (by {-float(worse['difference']):.3f})"
        assert said in text_of("results/utility/README.md")
        on_top = of_arms(study)[RARE.replace(" (x1)", ", classical augmentation (x1)"), classical]
        assert float(worse["ci95_high"]) < 0
        assert float(on_top["ci95_low"]) < 0 < float(on_top["ci95_high"])


def test_the_study_that_asked_again_is_quoted_right() -> None:
    study = "confirm_2_percent"
    _, asked, (classical, real) = STUDIES[study]
    found = of_arms(study)
    pairs = {
        "gain": (asked, classical),
        "over_real": (asked, real),
        "of_classical": (classical, real),
        "without": (USUAL, real),
    }
    said = {name: f"{float(found[pair]['difference']):.3f}" for name, pair in pairs.items()}
    span = {name: interval(found[pair]) for name, pair in pairs.items()}
    assert float(found[pairs["gain"]]["ci95_low"]) < 0 < float(found[pairs["gain"]]["ci95_high"])
    first = of_arms("pneumoniamnist_2_percent")[asked, classical]
    assert float(found[pairs["gain"]]["ci95_high"]) < float(first["difference"])
    seeds = {int(row["seed"]) for row in rows_of(f"results/utility/{study}/utility.csv")}
    assert seeds == set(range(20, 20 + len(seeds)))
    assert f"{len(seeds)} of 28 seeds" in STUDIES[study][0]
    new = f"{len(seeds)} new seeds"
    assert f"on {new} and generators does not confirm it ({said['gain']}, {span['gain']})" in (
        text_of("README.md")
    )
    docs = text_of("docs/utility.md")
    assert f"{new} and as many new generators, does not confirm it" in docs
    assert f"the difference is {said['gain']} ({span['gain']})" in docs
    own = text_of("results/utility/README.md")
    assert f"**{len(seeds)} of the 28 planned seeds are whole** (20 to {max(seeds)})" in own
    find = f"{float(found[pairs['gain']]['detectable']):.3f}"
    gain = (
        f"(difference {said['gain']}, {span['gain']}; four of five such studies would find a gain"
    )
    assert f"{gain} of {find})" in own
    assert f"({said['over_real']}, {span['over_real']})" in own
    assert f"against real images alone {said['of_classical']} ({span['of_classical']})" in own
    assert f"against real ones alone {said['without']} ({span['without']})" in own


def said_of(row: dict[str, str]) -> str:
    return f"{float(row['difference']):.3f} ({interval(row)})"


def test_what_synthetic_images_add_to_classical_augmentation_is_quoted_right() -> None:
    """From 94 to all real images: no interval reaches a gain of 0.01."""
    studies = ("synthetic_10_percent", "synthetic_25_percent", "synthetic_all")
    fewer = ("confirm_2_percent", "pneumoniamnist_20_seeds")
    added = [of_arms(study)[AUGMENTED, AUGMENTED_CONTROLS[0]] for study in (*fewer, *studies)]
    assert all(float(row["ci95_high"]) < 0.01 for row in added)
    first, second, third = map(said_of, added[2:])
    for document in ("README.md", "docs/utility.md", "results/utility/README.md"):
        assert f"{first}, {second} and {third}" in text_of(document)
    own = text_of("results/utility/README.md")
    assert f"With 2 and 5 % it was {said_of(added[0])} and {said_of(added[1])}" in own
    for pair in ((USUAL, "real only"), AUGMENTED_CONTROLS):
        first, second, third = (said_of(of_arms(study)[pair]) for study in studies)
        assert f"{first}, {second} and {third}" in own
    row = of_arms("synthetic_all")[USUAL, "real only"]
    low, high = (-float(row[end]) for end in ("ci95_high", "ci95_low"))
    assert low > 0
    worse = (
        f"worse than real ones alone by {-float(row['difference']):.3f} ({low:.3f} to {high:.3f})"
    )
    assert worse in text_of("docs/utility.md")
    alone = []
    for study, num_real in zip(studies, (470, 1178, 4708), strict=True):
        group = f"synthetic only (x1), {num_real} real images"
        alone.append(summary(f"results/utility/{study}/utility_summary.csv", "auc", group)[0])
    assert "alone reach {:.3f}, {:.3f} and {:.3f},".format(*alone) in own


def test_the_larger_generators_are_quoted_right() -> None:
    own, study = text_of("results/utility/README.md"), "conditional_5_percent"
    found: dict[str, list[float]] = {}
    for row in rows_of(f"results/utility/{study}/utility.csv"):
        found.setdefault(row["arm"], []).append(float(row["auc"]))
    real, both, alone = (found[arm] for arm in ("real", "real_synthetic", "synthetic"))
    spread = f"{min(alone):.3f} to {max(alone):.3f}"
    assert f"they reach {sum(alone) / 4:.3f} ({spread}, seed by seed)" in own
    assert f"(AUC {sum(alone) / 4:.3f} at 5 %" in text_of("docs/utility.md")
    assert f"real ones {sum(real) / 4:.3f} (difference" in own
    assert f"images reach {sum(both) / 4:.3f} (difference" in own
    for arm in ("synthetic only (x1)", USUAL):
        row = of_arms(study)[arm, "real only"]
        assert f"(difference {float(row['difference']):.3f}, {interval(row)})" in own
    first_two = sum(both[:2]) / 2 - sum(real[:2]) / 2
    assert f"stood above real ones by {first_two:.3f}" in own


def test_what_was_tried_on_validation_images_is_quoted_right() -> None:
    own, found = text_of("results/utility/README.md"), of_arms("tried_2_percent")
    gain = found[USUAL, "real only"]
    assert f"(difference {float(gain['difference']):.3f}, {interval(gain)})" in own
    for option in ("real + filtered synthetic", "real + synthetic of truncated latents"):
        row = found[f"{option} (x1)", USUAL]
        assert f"({float(row['difference']):.3f}, {interval(row)}" in own
        assert float(row["difference"]) < 0
    row = found["synthetic, then real (x1)", USUAL]
    assert f"({float(row['difference']):.3f}, {interval(row)})" in own
    assert float(row["difference"]) < 0


def test_the_ratios_that_were_tried_are_quoted_right() -> None:
    found = of_arms("tried_ratios_2_percent")
    said = [
        said_of(found[f"real + synthetic (x{ratio})", "real only"]) for ratio in ("0.5", "1", "2")
    ]
    own = text_of("results/utility/README.md")
    assert f"change AUC by {said[0]}, {said[1]} and {said[2]}. No ratio" in own


TRIED = {
    "real + synthetic, soft labels": "real + moved real, soft labels",
    "real + synthetic of unlabelled": "real + unlabelled real",
    "real only, pretrained discriminator": "real only, untrained discriminator",
    "real + synthetic amid real ones": "real + synthetic",
}


def test_what_was_tried_with_other_labels_and_networks_is_quoted_right() -> None:
    folder = "results/utility/tried_labels_2_percent"
    own = text_of("results/utility/README.md")
    means = {
        arm_of(row["group"]).removesuffix(" (x1)"): f"{float(row['mean']):.3f}"
        for row in rows_of(f"{folder}/utility_summary.csv")
        if row["score"] == "auc"
    }
    found = {
        tuple(name.removesuffix(" (x1)") for name in pair): row
        for pair, row in of_arms("tried_labels_2_percent").items()
    }
    for arm, control in TRIED.items():
        row = found[arm, control]
        difference = f"{float(row['difference']):.3f} ({interval(row)})"
        assert f"| {means[arm]} | {control} ({means[control]}) | {difference} |" in own
        assert float(row["ci95_low"]) < 0  # none is better
    row = found["real, classical augmentation", "real only"]
    said = (
        f"{means['real, classical augmentation']} ({float(row['difference']):.3f}, {interval(row)})"
    )
    assert f"Real images alone have {means['real only']}, with classical augmentation {said}" in own
    assert all(means[arm] < means["real, classical augmentation"] for arm in TRIED)
    manifest = json.loads((ROOT / folder / "tried_labels_2_percent.study.json").read_text())
    assert manifest["results_before"] > 0


def test_the_ways_to_choose_weights_are_quoted_right() -> None:
    rows = rows_of("results/classifier_weights/pneumoniamnist.csv")
    ways = ("best_look", "average_0.25", "last")
    best, averaged, last = (
        f"{sum(float(row[way]) for row in rows) / len(rows):.3f}" for way in ways
    )
    said = " ".join(text_of("docs/utility_details.md").split())
    assert (
        f"gave AUC {best} on average over {len(rows)} trainings, the average of the last quarter "
        f"{averaged}, and the last weights alone {last} "
    ) in said


@pytest.mark.parametrize("name", ["soak.json", "soak_before.json"])
def test_the_soak_is_quoted_right(name: str) -> None:
    values = json.loads((ROOT / "results/soak" / name).read_text())
    document = text_of("SECURITY.md")
    tried = f"`{values['command']}`, {values['minutes']:.0f} minutes, {values['cores']} cores"
    assert tried in document
    rows = document.partition(tried)[2]
    kinds = ("tries", "lost", "different", "tracebacks", "wrong_codes", "outside")
    for attack, figures in values["attacks"].items():
        cells = " | ".join(str(figures[kind]) for kind in kinds)
        assert f"| {attack} | {cells} |" in rows


def test_the_tricks_of_a_step_are_quoted_right() -> None:
    figures = json.loads((ROOT / "results/benchmarks/tricks_cpu.json").read_text())
    steps = [key for key in figures if key != "machine"]
    document = text_of("results/benchmarks/README.md")
    assert f"| | {' | '.join(steps)} |" in document
    for trick in {name for step in steps for name in figures[step]["forms"]} - {"all"}:
        found = [figures[step]["forms"].get(trick) for step in steps]
        cells = ["not used" if one is None else f"{100 * one['saved']:.1f} %" for one in found]
        assert f"| {trick} | {' | '.join(cells)} |" in document
    step = figures["small_data bf16"]["forms"]["all"]["ms_per_step"]
    assert f"takes {step:.0f} ms of one core's time in bf16" in text_of("docs/recipes.md")


def figures_of(name: str) -> Any:
    return json.loads((ROOT / f"results/benchmarks/{name}.json").read_text(encoding="utf-8"))


def milliseconds(form: dict[str, float], digits: int = 0) -> str:
    median, low, high = (form[key] for key in ("ms_per_step", "ms_p10", "ms_p90"))
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def rows_of_report() -> Iterator[str]:
    """Each form's times and memory, alone and beside two busy programs."""
    alone, beside = figures_of("train_step_cpu"), figures_of("train_step_beside_cpu")
    peaks = alone["lungan_peak_mebibytes"]
    for title, form, precision, peak in (
        ("lungan, bf16", "lungan", "bf16", f"{peaks['bf16']:.0f} MiB "),
        ("lungan, fp32", "lungan", "fp32", f"{peaks['fp32']:.0f} MiB "),
        ("Keras, fp32", "keras", "fp32", f"{alone['keras_peak_mebibytes']:.0f} MiB "),
        ("PyTorch eager, fp32", "pytorch_eager", "fp32", ""),
    ):
        times, shares = [], []
        for figures in (alone, beside):
            timed = figures[form][precision]
            times.append(milliseconds(timed))
            shares.append(timed["ms_per_step"] / figures["keras"]["fp32"]["ms_per_step"])
        yield f"| {title} | {times[0]} | {shares[0]:.2f} | {peak}| {times[1]} | {shares[1]:.2f} |"


def rows_beside_eager(name: str) -> Iterator[str]:
    """Each form's times, images a second and time of eager's, or on a GPU speed."""
    figures = figures_of(name)
    eager = figures["pytorch_eager"]["fp32"]
    on_gpu = figures["machine"]["gpu"] is not None
    yield f"{figures['size']} pixels, {figures['batch_size']} images a step"
    for title, timed, peak in (
        *((f"lungan, {key}", figures["lungan"][key], key) for key in ("bf16", "fp32")),
        ("PyTorch eager, fp32", eager, ""),
    ):
        start = f"| {title} | {milliseconds(timed, 2 if on_gpu else 0)} "
        start += f"| {timed['images_per_second']:.0f} | "
        share = timed["ms_per_step"] / eager["ms_per_step"]
        if on_gpu:
            yield f"{start}{1 / share:.1f} |"
        else:
            memory = f"{figures['lungan_peak_mebibytes'][peak]:.0f} MiB " if peak else ""
            yield f"{start}{share:.2f} | {memory}|"


GPU = ("train_step_gpu", "train_step_64_gpu", "train_step_128_gpu")


def said_of_performance() -> Iterator[str]:
    """All that performance.md says in figures."""
    alone = figures_of("train_step_cpu")
    yield milliseconds(alone["lungan"]["bf16"])
    torch, keras = (alone["machine"][name].split()[-1] for name in ("torch", "keras"))
    yield f"torch {torch[:4]}, TensorFlow {keras[:4]}"
    yield f"{alone['size']} pixels, {alone['batch_size']} images a step"
    yield from rows_of_report()
    for name in ("train_step_64_cpu", *GPU):
        yield from rows_beside_eager(name)
    for name in GPU:
        figures = figures_of(name)
        machine = figures["machine"]
        yield f"{machine['gpu']} with torch {machine['torch'][:4]}"
        yield f"Timed {figures['steps_timed_together']} steps at a time"
    tenth = figures_of("end_to_end_tenth_cpu")
    share = tenth["processes_2"]["seconds"] / tenth["processes_1"]["seconds"]
    yield f"took {share:.2f} of the time of one process of two threads"
    rates = figures_of("train_step_processes_cpu")["images_per_second_of_processes"]["bf16"]
    yield f"the step alone trains {rates['2']:.0f} images a second and {rates['1']:.0f} "
    tries = [
        figures_of("waiting_cpu"),
        figures_of("waiting_fourth_cpu"),
        *figures_of("waiting_disturbed_cpu"),
    ]
    beside = [each["beside"].get("forms", each["beside"]) for each in tries]
    ours, openmp = (
        [f"{each[way]['ms_per_step']:.0f}" for each in beside]
        for way in ("lungan", "as OpenMP comes")
    )
    yield f"{', '.join(ours[:-1])} and {ours[-1]} ms a step"
    yield f"as OpenMP comes, {', '.join(openmp[:-1])} and {openmp[-1]} "
    whole = figures_of("end_to_end_cpu")
    epochs = sum({run["optimizer"]: run["epochs"] for run in whole["runs"]}.values())
    yield f"({epochs} epochs in all"
    share = 100 * whole["seconds"]["training"] / whole["seconds"]["total"]
    yield f"took {whole['seconds']['total']:.0f} s on two cores of an Intel Xeon, {share:.0f} %"
    overhead = figures_of("sweep_overhead_cpu")
    yield f"costs {overhead['job']['seconds_median']:.1f} s beside its training and scoring"
    yield f"`--help` takes {overhead['start_up']['seconds_median']:.1f} s"
    most = figures_of("results_scale_cpu")["times"][-1]
    yield f"of {most['runs']:,} runs take {most['seconds']:.0f} s"


def test_every_figure_of_performance_stands_in_a_file() -> None:
    left = text_of("docs/performance.md")
    for said in sorted(said_of_performance(), key=len, reverse=True):
        assert said in text_of("docs/performance.md")
        left = left.replace(said, "")
    unit = r"(?:ms|s|seconds?|%|[KMG]iB|images?(?:/s)?|pixels|epochs|runs|times)\b"
    assert re.findall(rf"\b\d[\d,]*\.\d+\b|\d[\d,]*\)? {unit}", left) == []
    precision = figures_of("precision_cpu")
    assert "over three seeds, precisions differ by less than seeds do" in left
    assert precision["seeds"] == 3
    assert all(figure["agrees"] for figure in precision["figures"].values())


def test_the_times_of_a_step_in_readme_stand_in_files() -> None:
    readme = text_of("README.md")
    for name, said in (
        ("train_step_cpu", "takes {:.2f} of Keras' time"),
        ("train_step_beside_cpu", "and {:.2f} beside other busy programs"),
    ):
        figures = figures_of(name)
        step = figures["lungan"]["bf16"]["ms_per_step"]
        assert said.format(step / figures["keras"]["fp32"]["ms_per_step"]) in readme
    figures = figures_of("train_step_gpu")
    eager = figures["pytorch_eager"]["fp32"]["ms_per_step"]
    times = eager / figures["lungan"]["bf16"]["ms_per_step"]
    assert f"on an H100 it has {times:.1f} times eager PyTorch's speed" in readme


def test_what_stacked_runs_give_is_quoted_right() -> None:
    figures = figures_of("stacking_cpu")
    document = " ".join(text_of("results/benchmarks/README.md").split())
    assert max(figures["difference"].values()) < 1e-8
    for difference in figures["difference"].values():
        assert f"{difference:.1e} (" in document
    for row in figures["cpu_ms"].values():
        times = rf"{row['stacked']:.0f} (?:ms stacked )?and {row['single']:.0f} "
        assert re.search(times, document)
    forms = figures["convolution_in_autocast"], figures["stacked_convolution_in_autocast"]
    assert forms == ("torch.bfloat16", "torch.float32")


def test_a_sweep_of_two_processes_is_quoted_right() -> None:
    figures = json.loads((ROOT / "results/benchmarks/end_to_end_tenth_cpu.json").read_text())
    one, two = figures["processes_1"], figures["processes_2"]
    document = " ".join(text_of("results/benchmarks/README.md").split())
    assert f"take {one['seconds']:.1f} s one after another with two threads" in document
    share = two["seconds"] / one["seconds"]
    assert (
        f"{two['seconds']:.1f} s in two processes of one thread, a share of {share:.2f}" in document
    )
    spent = f"{two['cpu_seconds']:.0f} s of CPU time instead of {one['cpu_seconds']:.0f} s"
    assert f"The two processes use {spent}" in document
    assert f"busy for {one['cpu_seconds'] / 2 / one['seconds']:.0%} of" in document.replace(
        " %", "%"
    )
    figures = json.loads((ROOT / "results/benchmarks/train_step_processes_cpu.json").read_text())
    rates = figures["images_per_second_of_processes"]["bf16"]
    assert f"{rates['1']:.0f} images a second in one process of two threads and" in document
    assert f"and {rates['2']:.0f} in two of one thread" in document


def test_a_dry_run_prints_what_sweeps_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/sweeps.md").read_text(encoding="utf-8")
    ((command, said),) = re.findall(r"^\$ python -m lungan\.train (.*)\n([^`]*)```", page, re.M)
    monkeypatch.chdir(tmp_path)
    # Fewer images are drawn sooner; only ids differ, which tests/golden has.
    assert train.main([*shlex.split(command), "data.num_images=400", "data.num_test=8"]) == 0
    printed, said = (
        re.sub(r"-[0-9a-f]{8}\b", "-ID", text) for text in (capsys.readouterr().out, said)
    )
    assert [line for line in said.splitlines() if line not in printed.splitlines()] == []


def test_every_promise_of_security_names_a_test_that_is_there() -> None:
    promises = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(promises) >= 10
    for path, name in promises:
        assert f"def {name}(" in (ROOT / path).read_text(), name


def anchors_of(path: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize(
    "document",
    ["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))],
)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            page = path.parent / target if target else path
            assert page.exists(), link
            assert not anchor or anchor in anchors_of(page), link


def test_what_a_tracker_costs_is_quoted_right() -> None:
    figures = json.loads((ROOT / "results/benchmarks/tracking_cpu.json").read_text())
    longer, document = figures["longer_seconds"], " ".join(text_of("docs/wandb.md").split())
    most = max(case["greatest"] for case in longer.values())
    assert most < figures["limit_seconds"]
    assert f"a whole run took {most:.1f} s longer at most" in document
    online, tensorboard = longer["online"]["median"], longer["tensorboard"]["median"]
    assert f"(medians: {online:.1f} s online, {tensorboard:.1f} s with TensorBoard" in document
    others = [longer[name]["median"] for name in list(longer)[3:]]
    assert f"{min(others):.1f} to {max(others):.1f} s with a server in trouble" in document


SCORE_OF_ROW = {
    "ImageNet Fréchet distance": "efficientnet_lite2.frechet_distance",
    "ImageNet precision": "efficientnet_lite2.precision",
    "ImageNet recall": "efficientnet_lite2.recall",
    "ImageNet coverage": "efficientnet_lite2.coverage",
    "`spectrum`: Fréchet distance": "spectrum.frechet_distance",
    "`spectrum`: coverage": "spectrum.coverage",
    "`contrast`: coverage": "contrast.coverage",
    "near copies (`pixels`)": "pixels.near_copies",
    "ImageNet memorization: distance ratio": "efficientnet_lite2.memorization_distance_ratio",
    "`contrast` memorization: distance ratio": "contrast.memorization_distance_ratio",
}


def runs_at_64_pixels(file: str, part: str = "trained_on") -> list[dict[str, float]]:
    """Scores of each run, in order of the seeds."""
    runs = json.loads(text_of(f"results/small_data_64/{file}"))[part]
    return [runs[name]["values"] for name in sorted(runs, key=lambda name: name[-11:-9])]


def agrees(cell: str, value: float) -> bool:
    number = cell.strip(" *").partition(" ")[0]
    return abs(float(number) - value) <= 0.5001 * 10 ** -len(number.partition(".")[2])


def rows_below(heading: str) -> list[tuple[str, list[str]]]:
    text = (ROOT / "results/small_data_64/README.md").read_text(encoding="utf-8")
    section = text.partition(heading)[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [(cells[0].strip(), cells[1:]) for cells in lines]


def test_the_scores_of_the_recipe_at_64_pixels_are_quoted_right() -> None:
    compared = 0
    for name, cells in rows_below("# 64 pixels on 581 real films"):
        part = "held_out" if name.startswith("held out: ") else "trained_on"
        key = SCORE_OF_ROW.get(name.removeprefix("held out: "))
        if key is None:
            continue
        runs = runs_at_64_pixels("recipe.json", part)
        values = [run[key] for run in runs]
        for cell, value in zip(
            cells[:5],
            [runs[0][f"{key}.floor"], *values, statistics.fmean(values)],
            strict=True,
        ):
            assert agrees(cell, value), (name, cell, value)
        compared += 1
    assert compared == 14


def test_what_length_and_width_bring_at_64_pixels_is_quoted_right() -> None:
    short = [
        run["values"]
        for file in ("fastgan", "seeds")
        for name, run in json.loads(text_of(f"results/small_data_64/{file}.json")).items()
        if "-320ep-" in name
    ]
    wider = json.loads(text_of("results/small_data_64/wider.json"))["trained_on"]
    columns = [
        short,
        runs_at_64_pixels("long.json"),
        runs_at_64_pixels("recipe.json"),
        *([wider[name]["values"]] for name in sorted(wider, key=lambda n: n.endswith("00d8c3c3"))),
    ]
    compared = 0
    for name, cells in rows_below("## What length and width bring"):
        if key := SCORE_OF_ROW.get(name):
            for cell, runs in zip(cells[1:6], columns, strict=True):
                assert agrees(cell, statistics.fmean(run[key] for run in runs)), (name, cell)
            compared += 1
    assert [len(runs) for runs in columns] == [3, 3, 3, 1, 1] and compared == 8


def test_what_readme_says_of_films_at_64_pixels() -> None:
    runs = runs_at_64_pixels("recipe.json")

    def span(score: str, decimals: int) -> str:
        values = [run[f"efficientnet_lite2.{score}"] for run in runs]
        return f"{min(values):.{decimals}f} to {max(values):.{decimals}f}"

    readme = " ".join(text_of("README.md").split())
    assert f"Fréchet distance {span('frechet_distance', 0)} where real films have 21" in readme
    for score in ("precision", "recall", "coverage"):
        assert f"{score} {span(score, 2)} of" in readme
    for run in runs:
        for score in ("precision", "recall", "coverage"):
            key = f"efficientnet_lite2.{score}"
            assert run[key] >= 0.5 * run[f"{key}.floor"]
