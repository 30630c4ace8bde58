"""docs/extend.md: every file in it is complete, short, holds its contract and works in a run."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lungan import registry, train
from lungan.results import __main__ as results
from lungan.runs.folder import read_metrics
from lungan.runs.naming import name_by_differences
from lungan.scores import catalogue

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
FILES = {
    match[2]: match[3]
    for match in re.finditer(r"```(python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
}
COMMANDS = re.findall(r"```bash\npython -m lungan\.train (.*?)\n```", PAGE)
TINY = [
    "discriminator.width=8",
    "batch_size=32",
    "epochs=1",
    "score=none",
    "threads=1",
    "precision=fp32",
    "samples_every_epochs=0",
]
PHANTOM = ["data.num_images=64", "data.num_test=8", "data.classes=[]"]
NAMES = {
    "lion.py": "lion",
    "flat.py": "flat",
    "patches.py": "patches",
    "softplus.py": "soft_hinge",
    "more.py": "halving noise",
    "circles.py": "circles",
    "mlflow_tracker.py": "mlflow",
    "pixels.py": "mean_distance coarse",
}
SCORED = ["score=fast", "score.encoders=[contrast]", "epochs=2", "samples_every_epochs=1"]


def each_with_mlflow(texts: Iterable[str]) -> list[Any]:
    """The texts; those about MLflow are skipped where it is not installed, as it brings 40 packages
    that nothing else needs: ``pip install mlflow-skinny``."""
    lacks = pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow-skinny")
    return [pytest.param(text, marks=lacks if "mlflow" in text else []) for text in texts]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's files; what they register is forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_choices", dict(registry._choices))
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(catalogue.CATALOGUE))
    monkeypatch.setattr("lungan.tracking.live.END_SECONDS", 60.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    yield tmp_path


def test_every_file_is_short_and_has_its_command() -> None:
    plugins = {name for name in FILES if name.endswith(".py")} - {"test_lion.py"}
    assert plugins == set(NAMES)
    for name in plugins:
        assert len(FILES[name].splitlines()) < 40, name
        assert any(name in command for command in COMMANDS), name


def assert_mlflow_has(folder: Path, summary: dict[str, Any]) -> None:
    """Every epoch, grid and score of the run folder is in MLflow's store, once."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("lungan")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == name_by_differences(
        summary["config"]
    )
    for key in (rows := read_metrics(folder))[0]:
        known = [(row["epoch"], row[key]) for row in rows if row[key] is not None]
        history = client.get_metric_history(run.info.run_id, key)
        assert [(each.step, each.value) for each in history] == known, key
    scores = {key: v for key, v in summary["scores"]["values"].items() if v is not None}
    assert "contrast.recall.floor" in scores
    assert scores.items() <= run.data.metrics.items()
    grids = client.list_artifacts(run.info.run_id, "samples")
    assert [Path(each.path).name for each in grids] == ["epoch_0001.png", "epoch_0002.png"]


@pytest.mark.parametrize("command", each_with_mlflow(COMMANDS))
def test_every_command_trains(command: str, folder: Path) -> None:
    arguments = shlex.split(command)
    more = [] if "data=circles" in arguments else PHANTOM
    if "tracker=mlflow" in arguments:
        more = [*PHANTOM, *SCORED]
    assert train.main([*TINY, *more, *arguments]) == 0
    (path,) = folder.glob("runs/*/summary.json")
    summary: dict[str, Any] = json.loads(path.read_text())
    assert summary["status"] == "done"
    (plugin,) = {text for text in arguments if text.endswith(".py")}
    used = {each["file"] for each in summary["plugins"].values()}
    assert used == {str(folder / plugin)}
    first = (path.parent / "config.yaml").read_text().splitlines()[0]
    assert first.startswith("# plug-in: ") and first.endswith(f"--plugin {folder / plugin}")
    if "tracker=mlflow" in arguments:
        assert_mlflow_has(path.parent, summary)
    if "score.extra" in command:
        values = summary["scores"]["values"]
        assert values["coarse.mean_distance"] > values["coarse.mean_distance.floor"] > 0
    if "optimizer=lion_slow" in arguments:
        assert summary["config"]["optimizer"]["beta1"] == 0.95
        assert summary["config"]["optimizer"]["generator_lr"] == 0.0001
    if "data=circles" in arguments:
        assert summary["class_names"] == ["small", "large"]


def test_a_scores_direction_reaches_tables_verdicts_and_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(catalogue.CATALOGUE))
    (command,) = (command for command in COMMANDS if "score.extra" in command)
    swept = ["--multirun", "seed=0,1,2", "score=fast", "score.nearest_k=1"]
    assert train.main([*TINY, *PHANTOM, *shlex.split(command), *swept]) == 0
    told = {}
    for out, direction in (("recorded", "lower"), ("lower", "lower"), ("higher", "higher")):
        (folder / "pixels.py").write_text(FILES["pixels.py"].replace('"lower"', f'"{direction}"'))
        catalogue.CATALOGUE.pop("mean_distance", None)
        plugin = [] if out == "recorded" else ["--plugin", "pixels.py"]
        assert results.main(["runs", *plugin, "--out", out]) == 0
        row = next(
            line
            for line in (folder / out / "summary.md").read_text().splitlines()
            if "Mean distance (coarse)" in line
        )
        assert f"Mean distance (coarse), {direction} is better" in row
        page = html.unescape((folder / out / "report.html").read_text(encoding="utf-8"))
        told[out] = [line for line in page.split("<li>") if "Mean distance (coarse)" in line]
    assert told["recorded"] == told["lower"]
    # The same numbers, above their floor: bad news where less is better, else too good to be true.
    assert told["lower"][1].startswith("No group comes up to the floor of real images in")
    assert told["higher"][1].startswith("Nearer to real images than real ones are to each other")


@pytest.mark.parametrize("file", each_with_mlflow(NAMES))
def test_every_part_holds_its_contract(file: str, folder: Path) -> None:
    registry.load_file(folder / file)
    for name in NAMES[file].split():
        registry.check(name)


def test_the_pages_own_test_passes(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lion.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(registry.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
