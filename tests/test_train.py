"""The real train command, from overrides to the run folder, on settings of a second."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from lungan.config import RunConfig, compose, rules
from lungan.config.run import run_id
from lungan.models.saving import load_generator
from lungan.runs.folder import read_config, read_metrics
from lungan.scores.table import format_result
from lungan.train import main

TINY = [
    "generator.width=8",
    "discriminator.width=8",
    "data.num_images=64",
    "data.num_test=8",
    "batch_size=32",
    "score=none",
    "threads=1",
    "epochs=2",
]

METRICS = (
    "epoch",
    "images_seen",
    "loss_generator",
    "loss_discriminator",
    "logit_real",
    "logit_fake",
    "grad_norm_generator",
    "grad_norm_discriminator",
    "lr_generator",
    "lr_discriminator",
    "seconds",
    "images_per_second",
)

SUMMARY = (
    "status",
    "reason",
    "run_id",
    "trajectory_id",
    "name",
    "epochs",
    "epochs_done",
    "continued_from",
    "sweeps",
    "versions",
    "git_commit",
    "device",
    "machine",
    "precision",
    "num_train_images",
    "data_hash",
    "num_parameters",
    "seconds",
    "scores",
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run. Tests must leave it as it is."""
    store = tmp_path_factory.mktemp("finished") / "runs"
    assert main([*TINY, f"store={store}"]) == 0
    return only_run(store)


def only_run(store: Path) -> Path:
    (folder,) = (path.parent for path in store.glob("*/config.yaml"))
    return folder


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was changed, and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_cfg_job_prints_and_makes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "epochs=7"]) == 0
    output = capsys.readouterr()
    assert rules.parse(RunConfig, yaml.safe_load(output.out)).epochs == 7
    assert output.err == ""
    assert list(here.iterdir()) == []


def test_the_run_folder_holds_what_the_contract_says(finished: Path) -> None:
    assert {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()} == {
        "config.yaml",
        "metrics.jsonl",
        "samples/epoch_0002.png",
        "figures/losses.png",
        "figures/real_images.png",
        "generator.safetensors",
        "checkpoint.pt",
        "summary.json",
        "log.txt",
    }


def test_the_folder_is_named_after_what_it_is_and_its_run_id(finished: Path) -> None:
    summary = read_json(finished / "summary.json")
    assert finished.name == f"phantom28-dcgan-bce-adam-lr0.001-2ep-s0-{summary['run_id'][:8]}"
    assert summary["name"] == finished.name
    assert summary["run_id"] == run_id(summary["trajectory_id"], 2)


def test_the_saved_config_is_the_run(finished: Path) -> None:
    text = (finished / "config.yaml").read_text(encoding="utf-8")
    assert "${" not in text
    with compose.composer():
        composed = compose.compose([*TINY, f"store={finished.parent}"])
    assert read_config(finished) == composed


def test_metrics_have_a_line_an_epoch_with_every_key(finished: Path) -> None:
    text = (finished / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["images_seen"] for row in rows] == [47, 94]
    for row in rows:
        assert set(METRICS) <= set(row)
        assert all(math.isfinite(value) for value in row.values())
        assert row["lr_generator"] == row["lr_discriminator"] == 0.001
        assert row["images_per_second"] == pytest.approx(47 / row["seconds"])
    # Before it has learned anything the discriminator says 0 to all images: 2 ln 2 and ln 2.
    assert rows[0]["loss_discriminator"] == pytest.approx(2 * math.log(2), rel=0.05)
    assert rows[0]["loss_generator"] == pytest.approx(math.log(2), rel=0.05)


def test_the_summary_says_everything_and_is_written_last(finished: Path) -> None:
    summary = read_json(finished / "summary.json")
    assert set(SUMMARY) <= set(summary)
    assert (summary["status"], summary["reason"], summary["scores"]) == ("done", None, None)
    assert (summary["epochs"], summary["epochs_done"]) == (2, 2)
    assert (summary["continued_from"], summary["sweeps"]) == (None, [])
    assert summary["num_train_images"] == 47
    assert (summary["device"], summary["precision"]) in [
        (device, precision) for device in ("cpu", "cuda:0") for precision in ("fp32", "bf16")
    ]
    assert {"python", "lungan", "torch", "numpy"} <= set(summary["versions"])
    seconds = summary["seconds"]
    assert list(seconds) == ["data", "training", "scoring", "total"]
    assert seconds["total"] == pytest.approx(sum(seconds.values()) - seconds["total"])
    for name in ("run_id", "trajectory_id", "data_hash"):
        assert len(summary[name]) == 64 and int(summary[name], 16)
    times = {name: time for name, (time, _) in contents(finished).items()}
    assert max(times, key=times.__getitem__) == "summary.json"


def test_pictures_are_what_they_should_be(finished: Path) -> None:
    grid = cv2.imread(str(finished / "samples" / "epoch_0002.png"), cv2.IMREAD_UNCHANGED)
    assert grid.shape == (4 * 28 + 3 * 2, 8 * 28 + 7 * 2) and grid.dtype == np.uint8
    curves = cv2.imread(str(finished / "figures" / "losses.png"))
    assert curves.shape[1] > curves.shape[0] > 300


def test_the_generator_stands_alone_and_is_the_checkpoints(finished: Path) -> None:
    generator = load_generator(finished / "generator.safetensors")
    assert not generator.training
    assert generator.latent_dim == 100
    with torch.no_grad():
        images = generator(torch.randn(3, 100))
    assert images.shape == (3, 1, 28, 28)
    assert images.abs().max() <= 1
    saved = torch.load(finished / "checkpoint.pt", weights_only=True)["state"]["generator"]
    loaded = generator.state_dict()
    assert list(loaded) == list(saved)
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor), name


def test_a_finished_run_is_found_and_left_as_it_is(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    assert main([*TINY, f"store={finished.parent}"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0].startswith(f"{finished.name} was finished before: done")
    said = output.err.splitlines()
    assert said[0] == "data=phantom: 72 images, taken as grey at 28x28 pixels"
    assert said[-1].startswith("  to train on: 47 images"), "nothing was trained"
    assert contents(finished) == before


def test_the_last_lines_are_paths_that_exist(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*TINY, f"store={finished.parent}"])
    paths = [Path(line.split()[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [path.name for path in paths] == [
        "epoch_0002.png",
        "losses.png",
        "generator.safetensors",
        "metrics.jsonl",
        "summary.json",
    ]
    assert all(path.exists() for path in paths)


def test_a_combination_of_two_optimizers_and_two_lengths_is_four_runs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--multirun", *TINY[:-1], "optimizer=adam,rmsprop", "epochs=1,2"]
    assert main(command) == 0
    found = {}
    for path in (here / "runs").glob("*/summary.json"):
        summary = read_json(path)
        assert summary["status"] == "done"
        found[summary["config"]["optimizer"]["name"], summary["epochs"]] = summary
    assert set(found) == {("adam", 1), ("adam", 2), ("rmsprop", 1), ("rmsprop", 2)}
    for optimizer in ("adam", "rmsprop"):
        short, long = (found[optimizer, epochs] for epochs in (1, 2))
        assert long["trajectory_id"] == short["trajectory_id"]
        assert long["continued_from"] == short["name"]
    capsys.readouterr()
    before = contents(here / "runs")
    assert main(command) == 0
    assert "4 done" in capsys.readouterr().out
    unchanged = contents(here / "runs")
    for name in before:
        if name.split("/")[0] in {summary["name"] for summary in found.values()}:
            assert unchanged[name] == before[name], name


def test_a_diverged_run_is_recorded_and_not_repeated(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TINY, "epochs=6", "optimizer=sgd", "lr=1e30", "precision=fp32"]
    assert main(command) == 3
    output = capsys.readouterr()
    folder = only_run(here / "runs")
    summary = read_json(folder / "summary.json")
    assert summary["status"] == "diverged"
    reason = summary["reason"]
    epoch = summary["epochs_done"] + 1
    assert reason.endswith(f" in epoch {epoch}; try a lower lr or another loss")
    *_, last = output.err.splitlines()
    assert last == (
        f"DivergedError: {reason} (recorded in {folder.relative_to(here)}; "
        "retry=diverged runs it again)"
    )
    assert "Traceback" not in output.err
    assert len(read_metrics(folder)) == summary["epochs_done"]

    before = contents(folder)
    assert main(command) == 3
    assert "was finished before: diverged" in capsys.readouterr().out
    assert contents(folder) == before

    assert main([*command, "retry=diverged"]) == 3
    assert "was finished before" not in capsys.readouterr().out
    again = read_json(folder / "summary.json")
    assert (again["status"], again["reason"]) == ("diverged", reason)
    assert contents(folder)["summary.json"] != before["summary.json"]


def test_a_fault_of_lungans_own_is_recorded_with_its_traceback_and_tried_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lungan.runs import run

    with monkeypatch.context() as patch:
        patch.setattr(run, "serialize_generator", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(TINY)
    folder = only_run(here / "runs")
    summary = read_json(folder / "summary.json")
    assert (summary["status"], summary["reason"]) == (
        "failed",
        "ZeroDivisionError: division by zero",
    )
    assert "Traceback" in (folder / "log.txt").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(TINY) == 0
    assert read_json(folder / "summary.json")["status"] == "done"


SCORED = [
    *TINY,
    "data.num_images=400",
    "data.num_test=100",
    "score=fast",
    "score.num_images=60",
    "score.kernel_subset_size=30",
]


@pytest.mark.slow
def test_scores_end_to_end_and_added_to_a_run_that_was_finished_without(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = [text.replace("score=fast", "score=none") for text in SCORED]
    assert main(without) == 0
    folder = only_run(here / "runs")
    generator = (folder / "generator.safetensors").read_bytes()
    assert read_json(folder / "summary.json")["scores"] is None
    capsys.readouterr()

    assert main(SCORED) == 0
    assert "was finished before" in capsys.readouterr().out
    assert (folder / "generator.safetensors").read_bytes() == generator
    summary = read_json(folder / "summary.json")
    (first,) = read_json(folder / "scores.json").values()
    assert summary["scores"] == first
    assert (first["epoch"], first["num_images"]) == (2, 60)
    values = first["values"]
    assert values["domain.frechet_distance"] > values["domain.frechet_distance.floor"] > 0
    assert all(value is None or math.isfinite(value) for value in values.values())

    before = contents(folder)
    assert main(SCORED) == 0
    assert contents(folder) == before

    assert main([*SCORED, "score.seed=1"]) == 0
    scores = read_json(folder / "scores.json")
    assert scores.pop(first["scoring_id"]) == first
    (second,) = scores.values()
    assert second["config"]["seed"] == 1
    assert read_json(folder / "summary.json")["scores"] == second


@pytest.mark.slow
def test_a_run_that_is_scored_at_its_end_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SCORED, "score.memorization=true"]) == 0
    folder = only_run(here / "runs")
    summary = read_json(folder / "summary.json")
    assert summary["scores"]["values"]["domain.frechet_distance"] > 0
    assert summary["seconds"]["scoring"] > 0
    assert (folder / "figures" / "closest_pairs_domain.png").is_file()
    output = capsys.readouterr()
    assert "scoring with domain" in output.err
    assert format_result(summary["scores"]) in output.out
    assert Path(output.out.splitlines()[-2].split()[0]).name == "scores.json"
