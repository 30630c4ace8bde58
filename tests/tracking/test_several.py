"""Several trackers at once, one of them a plug-in: each has the whole run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lungan import registry
from lungan.runs.folder import read_metrics, read_summary
from lungan.tracking.tensorboard import FOLDER
from lungan.tracking.wandb import wandb_name
from lungan.train import main as train

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")

TINY = ["generator.width=8", "discriminator.width=8", "data.num_images=128", "data.num_test=32"]
TINY += ["batch_size=32", "threads=1", "precision=fp32", "epochs=3", "samples_every_epochs=1"]
TINY += ["score=fast", "score.encoders=[contrast]"]
PLUGIN = """
import json
from lungan.config import TrackerConfig
from lungan.registry import register

class Lines:
    def __init__(self, config, run):
        self.run = run

    def open(self):
        self.rows = []

    def add(self, epoch):
        self.rows.append({**epoch.metrics, **epoch.scores, "grid": epoch.samples.name})

    def close(self, summary):
        content = {"rows": self.rows, "status": summary["status"], "name": self.run.name}
        (self.run.folder / "lines.json").write_text(json.dumps(content))

register("tracker", "lines", config=TrackerConfig)(Lines)
"""


def test_every_tracker_has_every_epoch_grid_and_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], dict[str, Any]]
) -> None:
    monkeypatch.setattr(registry, "_choices", dict(registry._choices))
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lines.py").write_text(PLUGIN)
    trackers = ["tracker=wandb", "tracker.also=[tensorboard,lines]"]
    plugin = ["--plugin", str(tmp_path / "lines.py")]
    assert train([*plugin, *trackers, *TINY, "seed=2", f"store={tmp_path / 'runs'}"]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/summary.json"))
    losses = [row["loss_generator"] for row in read_metrics(folder)]
    summary = read_summary(folder)
    assert summary is not None and len(losses) == 3
    recall = summary["scores"]["values"]["contrast.recall.floor"]

    lines = json.loads((folder / "lines.json").read_text())
    assert (lines["status"], lines["name"].rpartition(" ")[2]) == ("done", "seed=2")
    assert [row["loss_generator"] for row in lines["rows"]] == losses
    assert [row["grid"] for row in lines["rows"]] == [f"epoch_000{n}.png" for n in (1, 2, 3)]
    assert lines["rows"][-1]["contrast.recall.floor"] == recall

    (recording,) = folder.glob("wandb/offline-run-*")
    history = read(recording)["history"]
    assert [row["loss_generator"] for row in history[:3]] == losses
    assert len([row for row in history if "samples.path" in row]) == 3
    assert history[2][wandb_name("contrast.recall.floor")] == recall

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / FOLDER)).Reload()
    assert [event.value for event in board.Scalars("loss_generator")] == pytest.approx(losses)
    assert [image.step for image in board.Images("samples")] == [1, 2, 3]
    assert board.Scalars("scores/contrast.recall.floor")[-1].value == pytest.approx(recall)
