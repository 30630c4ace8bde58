"""Every script of benchmarks/ runs through its command, on settings so small that they only show
that it runs and gives what it is there to give."""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lungan.data.phantom import CLASS_NAMES, draw_factors
from lungan.data.phantom_drawing import draw_images
from lungan.scores.domain import RECIPE, load_encoder
from lungan.train import main

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
LIBRARIES = {"figures", "peak_memory", "turns"}
SMALL = ("generator.width=8", "generator.max_width=16", "discriminator.width=8")
SPLITS = {"train": 480, "val": 160, "test": 240}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """npz: as PneumoniaMNIST's, of drawn images. films: the same in folders. run: a small one."""

    npz: Path
    films: Path
    run: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    root = tmp_path_factory.mktemp("inputs")
    made = Inputs(root / "pneumoniamnist.npz", root / "films", root / "run")
    arrays = {}
    for seed, (split, count) in enumerate(SPLITS.items()):
        labels = np.arange(count) % 2
        images = draw_images(draw_factors(np.random.default_rng(seed), labels), 28)[:, 0]
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = made.films / split / CLASS_NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    np.savez(made.npz, **arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(root / "cache"))
        given = ["data=phantom", "data.num_images=80", "data.num_test=8", "data.classes=[]"]
        given += ["epochs=1", "batch_size=16", "score=none", "device=cpu", "threads=1", *SMALL]
        assert main([*given, f"store={root / 'runs'}"]) == 0
        (summary,) = root.glob("runs/*/summary.json")
        summary.parent.rename(made.run)
        yield made


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Runs a script's ``main`` with these arguments of its command; gives its module."""

    def run(name: str, *arguments: object) -> ModuleType:
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        if hasattr(module, "load_encoder") and name != "encoder_stability":
            shorter = dataclasses.replace(RECIPE, min_updates=2, max_updates=2)
            monkeypatch.setattr(module, "load_encoder", lambda *a: load_encoder(*a, shorter))
        module.main()
        return module

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def finite(row: dict[str, str], *columns: str) -> bool:
    return all(np.isfinite(float(row[column])) for column in columns)


def test_changed_films(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    module = script("changed_films", inputs.films, out, "--size", 28, "--encoders", "spectrum")
    rows = rows_of(out)
    assert [row["change"] for row in rows] == list(module.CHANGES)
    assert all(finite(row, "frechet_distance", "coverage", "floor_high") for row in rows)


@pytest.mark.slow
def test_classifier_weights(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    small = ["--seeds", "1", "--fractions", "0.5", "--updates", "10", "--peak-lrs", "0.05"]
    module = script("classifier_weights", inputs.npz, *small, "--out", tmp_path)
    (row,) = rows_of(tmp_path / "pneumoniamnist.csv")
    assert finite(row, *module.COLUMNS)


@pytest.mark.slow
def test_encoder_stability(
    script: Any, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    monkeypatch.setattr(importlib.import_module("encoder_stability"), "SPLITS", 3)
    script("encoder_stability", inputs.npz, out, "--seeds", 1, "--updates", 2)
    rows = rows_of(out)
    assert [row["labels"] for row in rows] == ["with", "without"]
    assert all(finite(row, "whitened.floor", "raw.mirrored") for row in rows)


@pytest.mark.slow
def test_known_sets(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    script("known_sets", inputs.npz, out)
    rows = {row["score"]: row for row in rows_of(out)}
    row = rows["domain.frechet_distance"]
    assert finite(row, *list(row)[1:])


@pytest.mark.slow
def test_near_copies(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    script("near_copies", inputs.npz, out)
    rows = {row["images"]: row for row in rows_of(out)}
    assert rows["copied"]["pixels.near_copies found"] == "True"
    assert rows["unseen"]["pixels.near_copies found"] == "False"


@pytest.mark.parametrize(
    ("name", "train", "test", "message"),
    [
        ("known_sets", 40, 198, "100 different images of class 1 in test that are in neither"),
        ("near_copies", 599, 0, "at least 600 different images outside of test"),
    ],
)
def test_too_few_held_out_images_are_said_before_the_encoder_is_trained(
    name: str, train: int, test: int, message: str, script: Any, tmp_path: Path, capsys: Any
) -> None:
    arrays = {}
    for split, count in (("train", train), ("val", 0), ("test", test)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        arrays |= {f"{split}_images": pixels, f"{split}_labels": np.arange(count)[:, None] % 2}
    np.savez(tmp_path / "small.npz", **arrays)
    with pytest.raises(SystemExit) as ended:
        script(name, tmp_path / "small.npz", tmp_path / "out.csv")
    assert ended.value.code == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
    assert message in error
    assert f"got {99 if name == 'known_sets' else 599}; " in error
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_null_simulation(script: Any, tmp_path: Path) -> None:
    small = ["--studies", 1, "--feature-studies", 1]
    module = script("null_simulation", *small, "--out", tmp_path)
    assert len(rows_of(tmp_path / "null_simulation.csv")) == len(module.CASES)


def test_phantom_sheet(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    script("phantom_sheet", "--real", inputs.npz, "--out", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"phantom_28.png", "phantom_128.png"}


def test_precision(script: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    small = ["data.num_images=64", "data.num_test=16", "batch_size=16", *SMALL]
    module = script("precision", "--epochs", 1, "--seeds", 2, *small, "--json", out)
    figures = json.loads(out.read_text())["figures"]
    assert list(figures) == list(module.FIGURES)
    assert {figure["agrees"] for figure in figures.values()} <= {True, False}


def test_side_by_side(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    script("side_by_side", f"small={inputs.run}", "--out", out)
    width, height = Image.open(out).size
    assert width > 2 * 8 * 28
    assert height > 4 * 28


def test_texture(script: Any, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script("texture", inputs.run, "--num-images", 64, "--json", out)
    (result,) = json.loads(out.read_text()).values()
    assert result["real"]["power_across"] == 1
    assert np.isfinite(list(result["generated"].values())).all()


def test_utility_null_simulation(script: Any, tmp_path: Path) -> None:
    module = script("utility_null_simulation", "--studies", 1, "--out", tmp_path)
    rows = rows_of(tmp_path / "utility_null.csv")
    assert all(finite(row, *module.TESTS, "detectable") for row in rows)
    assert len(rows) == 6


def test_verdicts_of_table(script: Any, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_bytes((FOLDER.parent / "results" / "small_data" / "results.csv").read_bytes())
    script("verdicts_of_table", table)
    assert "| score | first | second |" in (tmp_path / "verdicts.md").read_text()


STEP = ["--experiment", "small_data", "--size", 28, "--steps", 1, "--precision", "fp32"]
STEP += ["batch_size=2", "discriminator.hidden_width=8", *SMALL]


def test_train_step(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    step = importlib.import_module("train_step")
    monkeypatch.setattr(step, "peak_mebibytes", lambda *_: 1.0)
    monkeypatch.setattr(step, "WARMUP_STEPS", 1)
    script("train_step", *STEP, "--json", out)
    result = json.loads(out.read_text())
    assert result["steps_timed_together"] == 4
    for form in ("lungan", "pytorch_eager"):
        assert result[form]["fp32"]["ms_per_step"] > 0


@pytest.mark.slow
def test_stacking(script: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script("stacking", "--runs", 2, "--rounds", 1, "--json", out)
    assert max(json.loads(out.read_text())["difference"].values()) < 1e-8


def command(name: str, *arguments: object) -> Any:
    """The figures of a script that runs as a process of its own, as it starts others."""
    given = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run([*given, "--json", "-"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_train_step_beside_keras_and_others(tmp_path: Path) -> None:
    """Keras: a program that answers as keras_step.py does, since the tests have no TensorFlow."""
    keras = tmp_path / "python"
    keras.write_text(
        f"#!{sys.executable}\nimport sys\nprint('tensorflow 0', flush=True)\n"
        "for _ in sys.stdin:\n    print(2.0, flush=True)\nprint(100)\n"
    )
    keras.chmod(0o755)
    others = ["--keras", keras, "--beside", 1, "--processes", "1,2"]
    result = command("train_step", "--steps", 1, *others)
    assert result["keras"]["fp32"]["ms_per_step"] == 2
    assert result["machine"]["keras"] == "tensorflow 0"
    assert result["keras_peak_mebibytes"] == 100
    for precision in ("fp32", "bf16"):
        assert result["lungan_peak_mebibytes"][precision] > 100
        assert list(result["images_per_second_of_processes"][precision]) == ["1", "2"]


@pytest.mark.slow
def test_waiting(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = importlib.import_module("turns")
    monkeypatch.setattr(turns, "take", functools.partial(turns.take, others=turns.ANY))
    out = tmp_path / "out.json"
    script("waiting", "--rounds", 1, "--beside", 1, "--json", out)
    result = json.loads(out.read_text())
    assert result["idle"]["forms"].keys() == result["beside"]["forms"].keys()


@pytest.mark.slow
def test_tricks() -> None:
    result = command("tricks", "--rounds", 1, "--workload", "small_data fp32")
    forms = result["small_data fp32"]["forms"]
    assert {"all", "turned weights", "kept freed memory"} < set(forms)


@pytest.mark.slow
def test_sweep_overhead() -> None:
    result = command("sweep_overhead", "--rounds", 1, "--jobs", 1, "--steps", 3)
    assert result["start_up"]["seconds_min"] > 0
    assert {"StepEnd", "EpochEnd", "Checkpoint"} < set(result["sinks"]["ms"])


@pytest.mark.slow
def test_results_scale() -> None:
    result = command("results_scale", "--runs", "10")
    assert [row["runs"] for row in result["times"]] == [10]


@pytest.mark.slow
def test_tracking() -> None:
    result = command("tracking", "--rounds", 1)
    assert set(result["longer_seconds"]) == set(result["waited_seconds"])


@pytest.mark.slow
def test_score_throughput(script: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script("score_throughput", "--num-images", 2, "--rounds", 1, "--json", out)
    assert set(json.loads(out.read_text())["images_per_second"]) == {
        *("lungan", "torch-fidelity", "torchvision")
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium draws the picture")
def test_wandb_report_sketch(tmp_path: Path) -> None:
    heading = {"type": "heading", "children": [{"text": "Losses"}]}
    spec, picture = tmp_path / "report.json", tmp_path / "report.png"
    spec.write_text(json.dumps({"displayName": "Runs", "spec": {"blocks": [heading]}}))
    given = [str(FOLDER / "wandb_report_sketch.py"), str(spec), str(picture)]
    subprocess.run([sys.executable, *given], check=True, capture_output=True)
    assert Image.open(picture).width == 1000


@pytest.mark.slow
def test_end_to_end_gives_each_phase_of_four_runs() -> None:
    small = ["data.num_images=64", "data.num_test=16", "batch_size=32", "score=none", *SMALL]
    figures = command("end_to_end", "--epochs", "1,2", *small)
    runs = [(run["optimizer"], run["epochs"], run["status"]) for run in figures["runs"]]
    assert runs == [(name, epochs, "done") for name in ("adam", "rmsprop") for epochs in (1, 2)]
    assert figures["runs"][1]["continued_from"].startswith("phantom28-dcgan-bce-adam")
    seconds = figures["seconds"]
    phases = [seconds[name] for name in ("start_up", "data", "training", "scoring", "other")]
    assert sum(phases) == pytest.approx(seconds["total"])
    assert min(phases) >= 0


def test_every_script_has_a_test() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    scripts = {path.stem for path in FOLDER.glob("*.py")} - LIBRARIES - {"keras_step"}
    assert {name for name in scripts if f'("{name}"' not in tests} == {"wandb_report_sketch"}
