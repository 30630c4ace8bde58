"""The utility command from tiny generators to tables, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungan.classifiers.measures import area_under_curve
from lungan.classifiers.train import Labelled
from lungan.config import DataConfig
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, DataError, DivergedError
from lungan.launchers.local import LocalLauncher
from lungan.results.report import write_results
from lungan.runs import jobs
from lungan.runs.folder import (
    CLAIM,
    CLASSIFIER,
    CONVINCING,
    GENERATOR,
    PREDICTIONS,
    SUMMARY,
    UTILITY,
    exclusive,
    read_config,
)
from lungan.runs.jobs import STOP, _Launches
from lungan.runs.store import Claim
from lungan.utility import batches, runner
from lungan.utility.__main__ import main
from lungan.utility.analysis import read_utility
from lungan.utility.arms import ARMS, RARE
from lungan.utility.images import (
    RealImages,
    Scenario,
    check_no_leak,
    choose_real,
    read_real,
    whole_data,
)
from lungan.utility.manifest import manifest_path, read_manifest
from lungan.utility.training import base_config

SPLITS = "data.splits=[train]"
QUICK = ("--updates", 2, "--batch-size", 8, "--seeds", 2, "--threads", 1, "--device", "cpu")
HERE = ("--processes", 1)


@pytest.fixture
def pair(train: Any) -> list[Path]:
    """One generator a class."""
    return [train(SPLITS, f"data.classes=[{name}]") for name in ("normal", "pneumonia")]


@pytest.fixture
def half(train: Any) -> list[Path]:
    """As many images as ``pair``'s, from half of them: the same training."""
    return [
        train(SPLITS, f"data.classes=[{name}]", "data.fraction=0.5", "epochs=2")
        for name in ("normal", "pneumonia")
    ]


def utility(store: Path, runs: list[Path], *more: object) -> int:
    arguments = [*runs, *QUICK, *HERE, "--store", store, "--out", store / "out", *more]
    return main([str(argument) for argument in arguments])


def summaries(store: Path) -> list[dict[str, Any]]:
    paths = sorted((store / UTILITY).glob(f"*/{SUMMARY}"))
    return [json.loads(path.read_text()) for path in paths]


def is_shorter(row: dict[str, str]) -> bool:
    return row["second"].startswith("real only, shown as often")


def is_asked(row: dict[str, str]) -> bool:
    return row["first"].startswith("real + synthetic (x1)")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_study_of_two_fractions_and_two_generators(
    pair: list[Path], half: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert utility(tmp_path, [*pair, *half]) == 0
    found = summaries(tmp_path)
    assert len(found) == 2 * 2 * 6
    assert {summary["status"] for summary in found} == {"done"}
    by_arm: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for summary in found:
        config = summary["config"]
        by_arm.setdefault((config["arm"], config["data"]["fraction"]), []).append(summary)
        assert summary["scores"]["num_images"] == 40
        assert set(summary["scores"]["values"]) >= {"auc", "expected_calibration_error"}
        uses = "synthetic" in config["arm"]
        runs = half if config["data"]["fraction"] == 0.5 else pair
        assert config.get("gan", {}).get("runs", []) == ([p.name for p in runs] if uses else [])
    assert len({s["config"]["gan"]["name"] for s in found if "gan" in s["config"]}) == 1
    whole, part = (by_arm["real", fraction][0]["num_train_images"] for fraction in (1.0, 0.5))
    assert part == pytest.approx(whole / 2, abs=1)
    updates = {arm: of[0]["config"]["updates"] for (arm, _), of in by_arm.items()}
    assert updates == dict.fromkeys(updates, 2) | {"real_shorter": 1}
    often = {arm: of[0]["config"]["shown"]["all"] for (arm, one), of in by_arm.items() if one == 1}
    assert often["real"] == pytest.approx(2 * 8 / whole)
    assert often["real_synthetic"] == often["real_shorter"] == often["real"] / 2
    assert often["synthetic"] == 0
    for path in tmp_path.glob(f"{UTILITY}/*/{PREDICTIONS}"):
        table = [row for row in rows(path) if row["split"] == "test"]
        truth = [row["class"] == "pneumonia" for row in table]
        area = area_under_curve(
            np.array([float(row["p.pneumonia"]) for row in table]), np.array(truth)
        )
        value = json.loads((path.parent / SUMMARY).read_text())["scores"]["values"]["auc"]
        assert area == pytest.approx(value, abs=1e-7)
        validation = [row["image"] for row in rows(path) if row["split"] == "val"]
        assert len(validation) == (8 if "-f0.5" in path.parent.name else 16)
    assert len(list(tmp_path.glob(f"{UTILITY}/*/{PREDICTIONS}"))) == 24
    kept = {path.parent.name[:5] for path in tmp_path.rglob(CLASSIFIER)}
    assert kept == {"real-"}
    assert len(list(tmp_path.rglob(CONVINCING))) == 2

    said = capsys.readouterr().out
    assert "24 trials, 0 of them done, about" in said
    assert f"With {part} real images, real + synthetic (x1) has AUC" in said
    page = (tmp_path / "out/report.html").read_text()
    answer = page.split('<p class="answer">')[1].split("</p>")[0]
    assert answer.startswith("Synthetic images ") and answer in said
    manifest = json.loads((tmp_path / UTILITY / "study.study.json").read_text())
    assert manifest["planned"]["fractions"] == [0.5, 1] and manifest["results_before"] == 0
    assert (manifest["asked"], manifest["controls"]) == ("real_synthetic", ["real", "real_shorter"])
    assert sorted(manifest["trials"]) == sorted(summary["run_id"] for summary in found)
    table = rows(tmp_path / "out/utility.csv")
    assert len(table) == 24
    answers = rows(tmp_path / "out/utility_comparisons.csv")
    primary = [
        row for row in answers if row["score"] == "auc" and is_shorter(row) and is_asked(row)
    ]
    assert len(primary) == 2
    of = {
        arm: [s["scores"]["values"]["auc"] for s in by_arm[arm, 1.0]]
        for arm in ("real_synthetic", "real_shorter")
    }
    expected = np.mean(of["real_synthetic"]) - np.mean(of["real_shorter"])
    assert float(primary[1]["difference"]) == pytest.approx(expected, abs=1e-12)
    assert primary[1]["test"] in ("paired t", "")
    over = rows(tmp_path / "out/utility_patients.csv")
    assert {row["measure"] for row in over} == {"auc", "average_precision", "sensitivity"}
    over = [row for row in over if row["measure"] == "auc" and is_shorter(row) and is_asked(row)]
    assert [(row["seeds"], row["images"], row["patients"]) for row in over] == [
        ("2", "40", "40")
    ] * 2
    assert float(over[1]["difference"]) == pytest.approx(expected, abs=1e-7)
    assert float(over[1]["ci95_low"]) <= expected <= float(over[1]["ci95_high"])
    assert said.count("(40 test images and 2 seeds drawn again together") == 2
    for name in ("utility.png", "utility_convincing.png"):
        assert (tmp_path / "out/figures" / name).stat().st_size > 1000


def test_what_is_done_is_not_done_again(
    pair: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = ("--arms", "real_synthetic", "--ratios", "0.5")
    real_train = runner.train_classifier
    calls: list[int] = []

    def stopped(*arguments: Any, **settings: Any) -> Any:
        calls.append(settings["seed"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real_train(*arguments, **settings)

    monkeypatch.setattr(runner, "train_classifier", stopped)
    assert utility(tmp_path, pair, *few) == 130
    assert "the same command goes on" in capsys.readouterr().err
    before = summaries(tmp_path)
    assert len(before) == 3
    assert not list(tmp_path.rglob(CLAIM))
    assert utility(tmp_path, pair, *few) == 0
    assert "4 trials, 3 of them done" in capsys.readouterr().out
    assert len(calls) == 5
    after = summaries(tmp_path)
    assert len(after) == 4 and all(summary in after for summary in before)
    monkeypatch.setattr(runner, "train_classifier", real_train)
    again = tmp_path / "again"
    assert utility(again, pair, *few) == 0
    values = {summary["run_id"]: summary["scores"]["values"] for summary in after}
    assert {s["run_id"]: s["scores"]["values"] for s in summaries(again)} == values
    # Controls know nothing of generators, so another study has them already.
    capsys.readouterr()
    assert utility(tmp_path, pair, "--arms", "synthetic", "--dry-run") == 0
    assert "4 trials, 2 of them done" in capsys.readouterr().out
    manifest = json.loads((tmp_path / UTILITY / "study.study.json").read_text())
    assert manifest["added"] == []  # a dry run writes nothing
    assert utility(tmp_path, pair, "--arms", "synthetic") == 0
    manifest = json.loads((tmp_path / UTILITY / "study.study.json").read_text())
    assert manifest["planned"]["arms"] == ["real", "real_synthetic"]
    assert [(one["results_before"], one["design"]["arms"]) for one in manifest["added"]] == [
        (4, ["real", "synthetic"])
    ]
    capsys.readouterr()
    assert utility(tmp_path, pair, "--updates", 3) == 2
    said = capsys.readouterr().err
    assert "study study has recipe." in said and "--study NAME" in said


def test_what_another_process_does_is_waited_for(
    pair: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its result is taken; what it leaves undone is done here."""
    assert utility(tmp_path / "other", pair, "--arms", "real") == 0
    theirs = sorted((tmp_path / "other" / UTILITY).glob("real-*"))
    root = tmp_path / UTILITY
    with exclusive(root):
        claims = [Claim(root / path.name) for path in theirs]

    def sleep(_: float) -> None:
        for name in (PREDICTIONS, SUMMARY):
            shutil.copy(theirs[0] / name, root / theirs[0].name / name)
        for claim in claims:
            claim.release()

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    capsys.readouterr()
    assert utility(tmp_path, pair, "--arms", "real") == 0
    assert capsys.readouterr().err.count("is under way in process") == 2
    mine, others = summaries(tmp_path), summaries(tmp_path / "other")
    assert mine[0] == others[0] and mine[1] != others[1]
    assert mine[1]["scores"] == others[1]["scores"]


SPREAD = ("--arms", "real,real_synthetic", "--seeds", 3)


def same_trials(store: Path, other: Path) -> None:
    """That both have the same trials, bit by bit, and no claim."""
    paths = sorted((store / UTILITY).glob(f"*/{PREDICTIONS}"))
    assert len(paths) == len(list((other / UTILITY).glob(f"*/{PREDICTIONS}"))) == 6
    for path in paths:
        assert path.read_bytes() == (other / path.relative_to(store)).read_bytes()
    for mine, theirs in zip(summaries(store), summaries(other), strict=True):
        for summary in (mine, theirs):
            del summary["seconds"]
        assert mine == theirs
    assert not list(store.rglob(CLAIM))


def test_processes_do_what_one_does_though_one_is_killed(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(SPLITS, "data.classes=[]", "generator.conditional=true")
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for path in (tmp_path / UTILITY).glob(f"*/{CLAIM}"):
                with contextlib.suppress(FileNotFoundError):
                    killed.append(json.loads(path.read_text())["pid"])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert utility(tmp_path, [run], *SPREAD, "--processes", 2) == 0
    thread.join()
    said = capsys.readouterr()
    assert "by 2 processes at a time, each of " in said.out
    assert "1 of 2 processes ended early" in said.err
    assert utility(tmp_path / "one", [run], *SPREAD) == 0
    same_trials(tmp_path, tmp_path / "one")


@pytest.mark.slow
def test_a_clusters_jobs_do_what_one_process_does(train: Any, tmp_path: Path) -> None:
    run = train(SPLITS, "data.classes=[]", "generator.conditional=true")
    asked = [run, *QUICK, *SPREAD, "--store", tmp_path, "--out", tmp_path / "out"]
    assert main([str(word) for word in (*asked, "hydra/launcher=submitit_local")]) == 0
    assert utility(tmp_path / "one", [run], *SPREAD) == 0
    same_trials(tmp_path, tmp_path / "one")
    logs = (tmp_path / UTILITY).glob("sweeps/study/launcher/*/job-*.log")
    assert [path.read_text().count(": done") for path in logs] == [2, 2, 2]


def test_ctrl_c_stops_a_study_in_other_processes(
    pair: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = threading.Event()
    real_report = _Launches._report

    def launch(_: Any, folder: Path, num_jobs: int, __: Any) -> None:
        assert num_jobs == 2
        begun.set()
        while not (folder / STOP).exists():
            time.sleep(0.01)

    def report(self: Any) -> None:
        real_report(self)
        if begun.is_set():
            begun.clear()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LocalLauncher, "launch", launch)
    monkeypatch.setattr(_Launches, "_report", report)
    assert utility(tmp_path, pair, "--arms", "real", "--processes", 2) == 130
    said = capsys.readouterr().err
    assert "SIGINT: stopping after the trials under way" in said
    assert said.endswith("\ninterrupted; the same command goes on\n")


def test_a_trial_that_fails_is_one_line_and_tried_again(
    pair: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real_train = runner.train_classifier

    def broken(*given: Any, seed: int, **more: Any) -> Any:
        if not seed:
            raise DataError("the cable is out")
        return real_train(*given, seed=seed, **more)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "train_classifier", broken)
        assert utility(tmp_path, pair, "--arms", "real") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("seed 0 failed: DataError: the cable is out")
    assert "1 of 2 trials have no result, such as real-f1-s0-" in said[-1]
    (ledger,) = tmp_path.glob(f"{UTILITY}/sweeps/study.ledger.jsonl")
    assert [json.loads(line)["status"] for line in ledger.open()] == ["failed", "done"]
    assert utility(tmp_path, pair, "--arms", "real") == 0
    assert len(summaries(tmp_path)) == 2


def test_the_arms_that_are_asked_for_by_name(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(SPLITS, "data.classes=[]", "generator.conditional=true")
    names = "real_filtered,real_truncated,pretrained,real_mixup,class_weights,synthetic_on_top"
    more = ("--arms", names, "--seeds", 1, "--try-on-validation")
    assert utility(tmp_path, [run], *more) == 0
    found = {summary["config"]["arm"] for summary in summaries(tmp_path)}
    assert found == {"real", *names.split(",")}
    assert {summary["scores"]["num_images"] for summary in summaries(tmp_path)} == {16}
    assert "Nothing is answered yet" in capsys.readouterr().out
    assert "Measured on validation images" in (tmp_path / "out/report.html").read_text()


def test_filtering_by_density_removes_outliers_and_keeps_what_is_like_real_images(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a generator that makes real images with a little noise, black ones and noise alone."""
    run = train(SPLITS, "data.classes=[]", "generator.conditional=true")
    real = read_real(whole_data(read_config(run).data)).draw("train", Scenario(1.0), 0)
    rng = np.random.default_rng(0)
    alike = real.images // 4 * 4 + rng.integers(0, 4, real.images.shape, dtype=np.uint8)

    def sample(_: Any, __: Any, label: int, *___: Any) -> torch.Tensor:
        images = rng.choice(alike[real.labels == label], batches.BLOCK_SIZE)
        images[::4] = 0
        images[2::4] = rng.integers(0, 256, images[2::4].shape)
        return torch.from_numpy(images)

    made: list[Labelled] = []
    real_plan = runner.plan_phases

    def plan(arm: Any, real: Labelled, synthetic: Labelled | None, *more: Any) -> Any:
        made.extend([] if synthetic is None else [synthetic])
        return real_plan(arm, real, synthetic, *more)

    monkeypatch.setattr(batches, "sample_block", sample)
    monkeypatch.setattr(runner, "plan_phases", plan)
    more = ("--arms", "real_dense", "--seeds", 1, "--updates", 30, "--try-on-validation")
    assert utility(tmp_path, [run], *more) == 0
    known = {image.tobytes() for image in alike}
    assert len(made) == 1
    kept = [image.tobytes() in known for image in made[0].images]
    assert len(kept) >= batches.LEAST_SYNTHETIC - 1
    # Of all that was made, half. After 30 updates the network's features, and so this share, differ
    # between processors.
    assert np.mean(kept) > 0.75

    few = train(
        SPLITS,
        "data.classes=[]",
        "generator.conditional=true",
        "data.fraction=0.02",
        "batch_size=2",
    )
    said = refused(capsys, tmp_path / "few", [few], *more[:4])
    assert "two real training images of each class, and fraction 0.02 has 1 of" in said


def test_an_override_may_be_longer_than_a_file_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_command(tmp_path, f"data.classes=[{'a' * 300}]") == 2
    assert capsys.readouterr().err.startswith("ConfigError: data.classes")


def test_another_classifier_is_another_study(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(SPLITS, "data.classes=[]", "generator.conditional=true")
    for name in ("small", "resnet18"):
        more = ("--arms", "real", "--seeds", 1, "--classifier", name, "--study", name)
        assert utility(tmp_path, [run], *more) == 0
    capsys.readouterr()
    for also in ((), ("--dry-run",)):
        assert utility(tmp_path, [run], *more, "--updates", 3, *also) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "study resnet18 has recipe.updates=2, and this command recipe.updates=3;" in said
    found = read_utility(tmp_path)
    assert found is not None
    assert [group.label.split(" / ")[1] for group in found.groups] == ["resnet18", "small"]


def test_the_report_of_the_store_has_it(pair: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "runs"
    store.mkdir()
    for run in pair:
        shutil.copytree(run, store / run.name)
    few = ("--arms", "real_synthetic,real_shorter")
    few = (*few, "--out", tmp_path / "tables")
    assert utility(store, [store / run.name for run in pair], *few) == 0
    assert (store / UTILITY).is_dir()
    assert utility(store, sorted(store.iterdir()), *few, "--dry-run") == 0
    results = write_results(store, None, tmp_path / "out")
    assert not results.problems
    assert [run.name for run in results.runs] == sorted(run.name for run in pair)
    assert any("shown as often as beside" in verdict for verdict in results.verdicts)
    page = (tmp_path / "out/report.html").read_text()
    for words in ("Does it help a classifier?", "real + synthetic", "The generators and their"):
        assert words in page
    assert pair[0].name in page
    for summary in (store / UTILITY).glob(f"real_sy*/{SUMMARY}"):
        summary.write_text("{")
    damaged = write_results(store, None, tmp_path / "out")
    assert len(damaged.problems) == 2
    shutil.rmtree(store / UTILITY)
    write_results(store, None, tmp_path / "out")
    assert not list((tmp_path / "out").glob("utility*"))


def test_only_trials_of_the_runs_that_are_asked_for(
    pair: list[Path], half: list[Path], tmp_path: Path
) -> None:
    assert utility(tmp_path, [*pair, *half], "--arms", "synthetic", "--seeds", 1) == 0
    found = read_utility(tmp_path, runs=[path.name for path in half])
    assert found is not None
    assert sorted(str(t.config["arm"]) for t in found.trials) == ["real", "synthetic"]
    assert {t.config["data.fraction"] for t in found.trials} == {0.5}
    assert read_utility(tmp_path, runs=["other"]) is None


def refused(
    capsys: pytest.CaptureFixture[str], store: Path, runs: list[Path], *more: object
) -> str:
    capsys.readouterr()
    assert utility(store, runs, *more) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert not (store / UTILITY).exists()
    return said


def test_a_generator_that_saw_validation_is_refused(
    train: Any, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = train("data.splits=[train,val]", "data.classes=[pneumonia]")
    said = refused(capsys, tmp_path, [pair[0], leaky])
    assert "was trained on 12 of the 16 images of val" in said
    assert "data.splits=[train]" in said


def test_a_generator_of_more_images_is_refused(
    half: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, tmp_path, half, "--fractions", "0.25,0.5")
    assert "needs generators of the fraction 0.25, and the runs given were trained on 0.5" in said
    assert "data.fraction=0.25" in said


def test_runs_that_do_not_fit_together(
    train: Any, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = train(SPLITS, "data.classes=[]")
    both = train(SPLITS, "data.classes=[]", "generator.conditional=true")
    other = train(SPLITS, "data.classes=[normal]", "data.seed=1")
    weights = pair[0] / GENERATOR
    for runs, words in (
        ([pair[0]], "no run makes pneumonia for data.fraction=1 and seed=0"),
        ([mixed], "makes images of several classes without labels"),
        ([*pair, both], "both make normal for data.fraction=1"),
        ([other, pair[1]], "the runs must be trained on the same images"),
        ([weights], "utility needs run folders"),
        ([tmp_path], "holds no finished run"),
    ):
        assert words in refused(capsys, tmp_path, runs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ratios", "0"), "--ratios must be greater than 0, got 0"),
        (("--ratios", "1,1"), "--ratios must be different numbers"),
        (("--fractions", "2"), "--fractions must be greater than 0, at most 1, got 2"),
        (("--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("--arms", "fake"), "--arms must be among real, real_shorter"),
        (("--imbalance", "normal"), "--imbalance must be a class and different shares"),
        (("--imbalance", "normal=2"), "--imbalance must be a class and different shares"),
        (("--imbalance", "x=0.1"), "--imbalance must be of normal or pneumonia, got x"),
        (("--question", "real"), "--question must be ASKED:CONTROL,CONTROL, got real"),
        (("--question", "synthetic:fake"), "--question must be of arms of the study"),
        (("seed=1",), "give run folders or settings, not both"),
        (("--positive", "x"), "--positive must be one of normal, pneumonia, got x"),
        (("--classifier", "x"), "--classifier must be one of small, resnet18, got x"),
        (("hydra/launcher=ray",), "--processes is for this machine: leave out hydra/launcher=ray"),
        (("--processes", "0"), "--processes must be at least 1, got 0"),
        (("--ratios", "a"), "argument --ratios: invalid"),
        (("--tune", "--try-on-validation"), "--tune chooses recipes by the images that --try-on"),
    ],
)
def test_wrong_options(
    pair: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, str],
    message: str,
) -> None:
    try:
        said = refused(capsys, tmp_path, pair, *options)
    except SystemExit as stop:
        assert stop.code == 2
        said = capsys.readouterr().err
    assert message in said


def make_set(copies: bool = False) -> ImageSet:
    """40 train, 12 val and 12 test images of two classes; with copies, the first two of val equal
    one of train and one of test."""
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
    if copies:
        images[40], images[41] = images[0], images[52]
    return ImageSet(
        images=images,
        labels=(np.arange(64) % 2).astype(np.int64),
        splits=np.repeat([0, 1, 2], [40, 12, 12]).astype(np.int64),
        class_names=("a", "b"),
        split_names=("train", "val", "test"),
        source="made up",
    )


ANY = DataConfig(name="phantom", size=8, channels=1)


def draw(real: RealImages, fraction: float = 1.0) -> Labelled:
    return real.draw("train", Scenario(fraction), 0)


def test_copies_across_splits_are_left_out_of_the_later_one() -> None:
    assert choose_real(make_set(), ANY).num_dropped == {"test": 0, "val": 0}
    real = choose_real(make_set(copies=True), ANY)
    assert real.num_dropped == {"test": 0, "val": 2}
    assert (len(real.validation), len(real.test), len(draw(real))) == (10, 12, 40)
    assert len(real.draw("val", Scenario(1.0), 0)) == 10
    assert len(real.draw("val", Scenario(0.5), 0)) in (4, 5)  # of each class about half


def test_patients_across_splits_are_left_out_of_the_later_one() -> None:
    groups = np.arange(64)
    groups[52], groups[[40, 41]] = 0, (53, 54)  # test with train, val with test
    grouped = dataclasses.replace(make_set(), groups=groups, group_names=tuple(map(str, range(64))))
    real = choose_real(grouped, ANY)
    assert real.num_dropped == {"test": 1, "val": 2}
    assert (len(real.validation), len(real.test)) == (10, 11)
    assert real.test.groups is not None
    assert real.test.groups.tolist() == list(range(53, 64))


def test_leaks_are_found_by_content_alone() -> None:
    whole = make_set()
    real = choose_real(whole, ANY)
    train, test = whole.select(["train"], []), whole.select(["test"], [])
    check_no_leak("run", train, real, draw(real), Scenario(1.0))
    renamed = ImageSet(
        images=np.concatenate([train.images, test.images[:1]]),
        labels=np.zeros(41, dtype=np.int64),
        splits=np.zeros(41, dtype=np.int64),
        class_names=("other",),
        split_names=("train",),
        source="renamed",
    )
    with pytest.raises(DataError, match="run was trained on 1 of the 12 images of test"):
        check_no_leak("run", renamed, real, draw(real), Scenario(1.0))
    with pytest.raises(DataError, match="run was trained on 30 real images that the classifiers"):
        check_no_leak("run", train, real, draw(real, 0.25), Scenario(0.25))


def test_splits_and_classes_that_are_missing() -> None:
    whole = make_set()
    only = ImageSet(
        images=whole.images,
        labels=whole.labels,
        splits=np.zeros(64, dtype=np.int64),
        class_names=whole.class_names,
        split_names=whole.split_names,
        source="no splits",
    )
    with pytest.raises(DataError, match="val has none of a, b"):
        choose_real(only, ANY)


def test_a_class_is_made_rare_in_training_and_validation_and_whole_elsewhere() -> None:
    real = choose_real(make_set(), ANY)
    scenario = Scenario(1.0, "b", 0.1)
    train = real.draw("train", scenario, 3)
    assert np.bincount(train.labels).tolist() == [20, 2]
    assert np.bincount(real.draw("val", scenario, 3).labels).tolist() == [6, 1]
    smaller = real.draw("train", Scenario(0.5, "b", 0.1), 3)
    assert np.bincount(smaller.labels).tolist() == [10, 1]
    assert np.bincount(real.test.labels).tolist() == [6, 6]
    with pytest.raises(ConfigError, match="needs 30 images of b in train, which has 20"):
        real.draw("train", Scenario(1.0, "b", 0.6), 3)


STUDY = (
    *("data=phantom", "data.num_images=160", "data.num_test=40", "batch_size=8", "epochs=1"),
    *("generator.width=8", "generator.max_width=8", "generator.latent_dim=4", "score=none"),
    *("discriminator.width=8", "precision=fp32", "loss=bce", "augment=none"),
)


def one_command(store: Path, *more: object) -> int:
    arguments = [*STUDY, *QUICK, *HERE, "--store", store, "--out", store / "out", *more]
    return main([str(argument) for argument in arguments])


def test_one_command_plans_trains_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    design = ("--fractions", "0.5,1", "--arms", "real_synthetic,real_shorter")
    assert one_command(tmp_path, *design, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "generators: 4 runs on 4 trajectories: 4 to start" in said
    assert "6 epochs to train" in said  # one, or two of half of the images, for each seed
    assert "measured speed" in said and "unknown" not in said
    assert "classifiers: 12 trials, 0 of them done, about" in said
    assert not list(tmp_path.glob("*/summary.json")) and not (tmp_path / UTILITY).exists()

    stopped = iter([False] * 5 + [True])
    real_do = runner.TrialRunner.do

    def do(self: Any, *given: Any) -> Any:
        if next(stopped):
            raise KeyboardInterrupt
        return real_do(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(runner.TrialRunner, "do", do)
        assert one_command(tmp_path, *design) == 130
    capsys.readouterr()
    assert main(["--store", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "None of the 2 planned seeds is whole: each takes 6 trials." in capsys.readouterr().out
    manifest = json.loads((tmp_path / UTILITY / "study.study.json").read_text())
    capsys.readouterr()
    assert one_command(tmp_path, *design) == 0
    said = capsys.readouterr().out
    assert "3 runs on 3 trajectories: 3 done" in said  # the fourth one's trials are all done
    assert "12 trials, 5 of them done" in said
    assert "nothing to compare" not in said  # which is about scores of generators
    assert json.loads((tmp_path / UTILITY / "study.study.json").read_text()) == manifest
    configs = [json.loads(path.read_text())["config"] for path in tmp_path.glob(f"*/{SUMMARY}")]
    chosen = {(c["data"]["fraction"], c["data"]["fraction_seed"], c["seed"]) for c in configs}
    assert chosen == {(1.0, 0, 0), (1.0, 0, 1), (0.5, 0, 0), (0.5, 1, 1)}
    assert {c["epochs"] for c in configs} == {1, 2}
    page = (tmp_path / "out/report.html").read_text()
    assert page.split('<p class="answer">')[1].startswith("Synthetic images ")


def test_a_study_without_synthetic_arms_trains_no_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its trials are those of a study with generators, which finds them done."""
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    design = ("--fractions", "0.5,1", "--arms", "real_classical")
    assert one_command(tmp_path, *design, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "generators: none, since no arm has synthetic images" in said
    assert "classifiers: 8 trials, 0 of them done" in said
    assert not (tmp_path / UTILITY).exists()

    assert one_command(tmp_path, *design) == 0
    assert not list(tmp_path.glob(f"*/{SUMMARY}"))
    drawn = {
        (s["config"]["data"]["fraction"], s["config"]["seed"], s["config"]["data"]["fraction_seed"])
        for s in summaries(tmp_path)
    }
    assert drawn == {(0.5, 0, 0), (0.5, 1, 1), (1, 0, 0), (1, 1, 0)}
    page = (tmp_path / "out/report.html").read_text()
    answer = page.split('<p class="answer">')[1].split("</p>")[0]
    assert answer.startswith("Real, classical augmentation is ")
    assert 'class="chips"' not in page and "runs finished" not in page
    assert "<h2>Runs</h2>" not in page and "Do synthetic images help" not in page
    capsys.readouterr()
    assert one_command(tmp_path, "--arms", "real_synthetic", "--study", "other") == 0
    assert "4 trials, 2 of them done" in capsys.readouterr().out


def test_a_page_is_made_again_without_the_generators(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the same command, by the study's name alone, and by neither where run folders are given;
    more seeds train only the generators that these need."""
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    design = ("--arms", "real_synthetic", "--one-a-class", "--seeds", 1)
    assert one_command(tmp_path, *design) == 0
    out = tmp_path / "out"
    tables = {path.name: path.read_bytes() for path in out.glob("utility*.*")}
    before, page = summaries(tmp_path), (out / "report.html").read_text()
    runs = sorted(tmp_path.glob("phantom*"))
    (runs[0] / GENERATOR).unlink()
    shutil.rmtree(runs[1])
    answer = page.split('<p class="answer">')[1].split("</p>")[0]
    for again in (
        [*STUDY, *QUICK, *HERE, "--store", tmp_path, "--out", out, *design],
        ["--store", tmp_path, "--out", out],
    ):
        shutil.rmtree(out)
        capsys.readouterr()
        assert main([str(word) for word in again]) == 0
        said = capsys.readouterr()
        assert answer in said.out and f"passed over {runs[1].name}" in said.err
        assert {path.name: path.read_bytes() for path in out.glob("utility*.*")} == tables
        assert answer in (out / "report.html").read_text()
        assert "lungan utility --study study --store STORE" in (out / "report.html").read_text()
    assert summaries(tmp_path) == before and not (runs[0] / GENERATOR).exists()

    assert one_command(tmp_path, *design, "--seeds", 2) == 0
    said = capsys.readouterr().out
    assert "2 runs on 2 trajectories: 2 to start" in said
    assert "4 trials, 2 of them done" in said
    assert len(summaries(tmp_path)) == 4

    for wrong, words in (
        (
            [runs[1], *QUICK, "--store", tmp_path],
            "is written again by lungan utility --study study",
        ),
        (["--store", tmp_path, "--seeds", 3], "--seeds needs settings of the generators"),
        (["--store", tmp_path, "--study", "other"], "has study, not other"),
        (["--store", tmp_path / "none"], "has none, not study"),
    ):
        assert main([str(word) for word in wrong]) == 2
        said = capsys.readouterr().err
        assert words in said and len(said.splitlines()) == 1
    monkeypatch.chdir(tmp_path.parent)
    assert main([f"{tmp_path.name}/{runs[1].name}"]) == 2
    assert f"by lungan utility --study study --store {tmp_path.name}\n" in capsys.readouterr().err


def test_what_a_store_has_is_counted_and_what_it_lost_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials that another study did; a trial without predictions; a study's own generator."""
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    design = ("--arms", "real_synthetic", "--seeds", 1)
    assert one_command(tmp_path, *design) == 0
    capsys.readouterr()
    assert one_command(tmp_path, *design, "--study", "other", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "generators: none, since all trials with synthetic images are done" in said
    assert "2 trials, 2 of them done" in said

    (lost,) = tmp_path.glob(f"{UTILITY}/real_synthetic-*/{PREDICTIONS}")
    before = lost.read_bytes()
    lost.unlink()
    assert one_command(tmp_path, *design) == 0
    assert "2 trials, 1 of them done" in capsys.readouterr().out
    assert lost.read_bytes() == before

    (generator,) = tmp_path.glob(f"phantom*/{GENERATOR}")
    summary = generator.with_name(SUMMARY).read_text()
    more = ("--arms", "synthetic", "--seeds", 1, "--study", "third")
    for content, status, words in (
        (None, "done", f"{generator}, which makes images for study third, is missing"),
        (b"x", "done", f"{generator}, which makes images for study third, is damaged"),
        (b"x", "diverged", "1 of 1 generators of study third diverged, such as"),
    ):
        generator.unlink(missing_ok=True)
        if content:
            generator.write_bytes(content)
        generator.with_name(SUMMARY).write_text(summary.replace('"done"', f'"{status}"', 1))
        assert one_command(tmp_path, *more) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert words in said
    shutil.rmtree(generator.parent)
    assert one_command(tmp_path, *more) == 0
    assert "2 trials, 1 of them done" in capsys.readouterr().out


def test_a_study_of_later_seeds_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    design = ("--fractions", "0.5", "--arms", "real_synthetic", "--sets", 1)
    assert one_command(tmp_path, *design, "seed=20") == 0
    drawn = {
        (s["config"]["arm"], s["config"]["seed"], s["config"]["data"]["fraction_seed"])
        for s in summaries(tmp_path)
    }
    assert drawn == {(arm, seed, 20) for arm in ("real", "real_synthetic") for seed in (20, 21)}
    (run,) = [json.loads(path.read_text()) for path in tmp_path.glob(f"*/{SUMMARY}")]
    assert (run["config"]["seed"], run["config"]["data"]["fraction_seed"]) == (20, 20)
    (picture,) = tmp_path.rglob(CONVINCING)
    assert "-s20-" in picture.parent.name
    page = (tmp_path / "out/report.html").read_text()
    assert "They are of the study&#39;s first seed (20) and of no other" in page
    manifest = read_manifest(manifest_path(tmp_path, "study"))
    assert (manifest.planned.first_seed, manifest.planned.seeds) == (20, 2)
    collected = read_utility(tmp_path, study="study")
    assert collected is not None and all(map(manifest.is_planned, collected.trials))
    capsys.readouterr()
    assert one_command(tmp_path, *design) == 2
    assert (
        "study study has seed=20, and this command seed=0; give --study" in capsys.readouterr().err
    )


def test_a_tuned_classifier_has_the_best_recipe_on_its_own_validation_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    recipes: list[tuple[int, float, float]] = []
    believed: list[NDArray[np.float64]] = []
    real_train, real_probabilities = runner.train_classifier, runner.probabilities_of

    def train_classifier(phases: Any, *, recipe: Any, **more: Any) -> Any:
        updates = sum(phase.updates for phase in phases)
        recipes.append((updates, recipe.peak_lr, recipe.weight_decay))
        if len(recipes) == 1:
            raise DivergedError("as one of them may")
        return real_train(phases, recipe=recipe, **more)

    def probabilities_of(*given: Any) -> NDArray[np.float64]:
        believed.append(real_probabilities(*given))
        return believed[-1]

    monkeypatch.setattr(runner, "train_classifier", train_classifier)
    monkeypatch.setattr(runner, "probabilities_of", probabilities_of)
    asked = ("--arms", "real_classical", "--seeds", 1, "--tune")
    assert one_command(tmp_path, *asked) == 0
    assert "each the best of 6 recipes on its validation images" in capsys.readouterr().out
    updates, rate, decay = recipes[0]
    changed = [(1, 1, 1), (2, 1, 1), (1, 1 / 3, 1), (1, 3, 1), (1, 1, 0.1), (1, 1, 10)]
    assert recipes == [
        (updates * one, pytest.approx(rate * two), pytest.approx(decay * three))
        for one, two, three in 2 * changed
    ]
    names = ["as given", "twice the updates", "a third of the peak rate"]
    names += ["three times the peak rate", "a tenth of the weight decay"]
    names += ["ten times the weight decay"]
    for summary, tried in zip(summaries(tmp_path), (names[1:], names), strict=True):
        table = rows(tmp_path / UTILITY / summary["name"] / "predictions.csv")
        of_val = [row for row in table if row["split"] == "val"]
        own = [("normal", "pneumonia").index(row["class"]) for row in of_val]
        losses = [-np.log(believed.pop(0)[range(len(own)), own]).mean() for _ in tried]
        assert summary["config"]["recipe"] == tried[int(np.argmin(losses))]
        kept = np.array([float(row[f"p.{row['class']}"]) for row in of_val])
        assert -np.log(kept).mean() == pytest.approx(min(losses))
        del believed[:2]  # of the chosen one, on test and validation images

    assert one_command(tmp_path, *asked[:-1], "--study", "other") == 0
    assert "2 trials, 0 of them done" in capsys.readouterr().out
    assert one_command(tmp_path, *asked[:-1]) == 2
    assert "study study has recipe." in capsys.readouterr().err


def test_one_command_for_a_rare_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    assert one_command(tmp_path, "--imbalance", "normal=0.2", "--sets", 1) == 0
    (run,) = [json.loads(path.read_text()) for path in tmp_path.glob(f"*/{SUMMARY}")]
    assert run["config"]["data"]["classes"] == ["normal"]
    found = summaries(tmp_path)
    assert {s["config"]["arm"] for s in found} == set(RARE)
    for summary in found:
        config = summary["config"]
        assert config["classifier"]["positive"] == "normal"
        assert config["data"]["prevalence"] == 0.2 and config["data"]["rare"] == "normal"
        assert config["data"]["num_real_images"] == 134  # of 107 and 37
        often = config["shown"]["normal"] / config["shown"]["pneumonia"]
        balanced = ARMS[config["arm"]].balanced
        expected = 4 / (1 + ARMS[config["arm"]].uses_generator) if balanced else 1
        assert often == pytest.approx(expected, rel=0.2)
    (picture,) = tmp_path.rglob(CONVINCING)
    assert picture.parent.name.startswith("oversampled_synthetic-") and "-s0-" in str(picture)
    said = capsys.readouterr().out.lower()
    assert "rarer classes filled up with synthetic (x1) has auc" in said
    assert "0.2 of them normal" in said
    runs = sorted(tmp_path.glob("phantom*"))
    more = ("--imbalance", "normal=0.2", "--arms", "real_synthetic")
    assert utility(tmp_path / "x", runs, *more) == 2
    assert "--imbalance makes synthetic images of normal alone" in capsys.readouterr().err


def test_generators_of_one_class_each_and_options_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    more = ("--one-a-class", "--sets", 1, "--dry-run")
    assert one_command(tmp_path, *more) == 0
    assert "2 runs on 2 trajectories" in capsys.readouterr().out
    for wrong, words in (
        (("epochs=1,2",), "epochs=1,2 is a sweep: give one value"),
        (("--sets", 0), "--sets must be at least 1, got 0"),
        (("--data-path", "x"), "--data-path is for run folders"),
        (("--imbalance", "normal=0.9"), "needs"),
        (("--study", "a/b"), "--study must be letters"),
    ):
        assert one_command(tmp_path, *wrong) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / UTILITY).exists()


@pytest.mark.parametrize(("size", "network", "width"), [(28, "dcgan", 32), (64, "fastgan", 16)])
def test_generators_that_a_study_trains_have_the_recipe_of_their_size(
    size: int, network: str, width: int
) -> None:
    config = base_config(["data=phantom", f"data.size={size}"])
    assert (config.generator.name, config.generator.width) == (network, width)
    assert (config.augment.name, config.score.memorization) == ("diffaugment", True)
    assert (
        base_config(["data=phantom", f"data.size={size}", "generator.width=8"]).generator.width == 8
    )
