"""Benchmarks of whole commands, so small that they only show that they run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.slow
def test_end_to_end_gives_each_phase_of_four_runs(tmp_path: Path) -> None:
    small = ["data.num_images=64", "data.num_test=16", "batch_size=32", "score=none"]
    small += ["generator.width=8", "generator.max_width=16", "discriminator.width=8"]
    file = tmp_path / "figures.json"
    command = [sys.executable, str(FOLDER / "end_to_end.py"), "--epochs", "1,2", *small]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, check=True
    )
    figures = json.loads(file.read_text())
    runs = [(run["optimizer"], run["epochs"], run["status"]) for run in figures["runs"]]
    assert runs == [(name, epochs, "done") for name in ("adam", "rmsprop") for epochs in (1, 2)]
    assert figures["runs"][1]["continued_from"].startswith("phantom28-dcgan-bce-adam")
    seconds = figures["seconds"]
    phases = [seconds[name] for name in ("start_up", "data", "training", "scoring", "other")]
    assert sum(phases) == pytest.approx(seconds["total"])
    assert min(phases) >= 0
    assert "start-up" in done.stdout
