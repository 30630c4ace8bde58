"""The wheel, installed in an empty folder: all that the commands need travels with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TRAVELS = ("conf", "sweeps")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel is installed, and nothing else."""
    scratch = tmp_path_factory.mktemp("wheel")
    source, wheels, target = (scratch / name for name in ("source", "wheels", "installed"))
    # From a copy: building leaves files in its folder, and would take old ones of the checkout.
    source.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("lungan", *TRAVELS):
        shutil.copytree(REPOSITORY / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    options = ("--no-deps", "--no-index")
    call(*pip, "wheel", *options, "--no-build-isolation", "-w", str(wheels), str(source))
    (wheel,) = wheels.iterdir()
    call(*pip, "install", *options, "--target", str(target), str(wheel))
    return target


def call(*command: str, installed: Path | None = None, folder: Path | None = None) -> str:
    """Run a command, with lungan from ``installed``; gives its stdout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    if folder is not None:
        environment |= {"LUNGAN_CACHE": str(folder.parent / "cache")}
    if installed is not None:
        environment |= {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


def test_every_module_and_every_setting_travels(installed: Path) -> None:
    package = installed / "lungan"
    assert files(package, "*.py") == files(REPOSITORY / "lungan", "*.py")
    for name in TRAVELS:
        assert files(package / name, "*.yaml") == files(REPOSITORY / name, "*.yaml")
    templates = files(REPOSITORY / "lungan" / "results" / "templates", "*")
    assert files(package / "results" / "templates", "*") == templates > {"report.html.j2"}
    assert files(installed / "bin", "*") == {"lungan"}
    others = {path.name for path in installed.iterdir()} - {"lungan", "bin"}
    assert all(name.endswith(".dist-info") for name in others), "tests and docs stay at home"


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent for path in (REPOSITORY / "lungan").glob("*/**/*.py")}
    found = {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}
    listed = settings["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({"lungan", *found, *(f"lungan.{name}" for name in TRAVELS)})


def test_the_commands_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    python = sys.executable
    where = call(
        python, "-c", "import lungan; print(lungan.__file__)", installed=installed, folder=folder
    )
    assert Path(where.strip()).is_relative_to(installed)
    shown = call(python, "-m", "lungan.train", "--help", installed=installed, folder=folder)
    assert "optimizer      adam, adamw, rmsprop, sgd" in shown
    assert "report, " in shown
    tiny = "generator.width=8 discriminator.width=8 data.num_images=64 data.num_test=8"
    more = "batch_size=32 score=none threads=1 epochs=1,2 optimizer=rmsprop --multirun --sweep tiny"
    call(
        *(python, "-m", "lungan.train", *tiny.split(), *more.split()),
        installed=installed,
        folder=folder,
    )
    assert {path.name for path in folder.iterdir()} == {"runs"}
    summaries = [json.loads(path.read_text()) for path in folder.glob("runs/*/summary.json")]
    assert sorted(summary["epochs"] for summary in summaries) == [1, 2]
    assert {summary["status"] for summary in summaries} == {"done"}
    assert {summary["git_commit"] for summary in summaries} == {None}
    assert (folder / "runs" / "sweeps" / "tiny" / "report.html").is_file()
