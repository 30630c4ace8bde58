"""TensorBoard's files, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lungan.config import TrackerConfig
from lungan.files import append_line, without_paths
from lungan.runs.folder import METRICS, SCORES, sample_path
from lungan.tracking.records import TrackedRun, read_records
from lungan.tracking.tensorboard import FOLDER, TensorBoardTracker

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")

VALUES = {"domain.recall": 0.25, "domain.recall.floor": 0.97, "domain.density": None}


def write_run(folder: Path) -> dict[str, Any]:
    for epoch in (1, 2):
        row = {"epoch": epoch, "loss_generator": 1.0 / epoch, "seconds": 2.0, "penalty": None}
        append_line(folder / METRICS, row)
    (folder / "samples").mkdir()
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(sample_path(folder, 2))
    scores = {"epoch": 2, "values": VALUES}
    rest: dict[str, Any] = {"reasons": {}, "encoders": {}, "config": {}}
    (folder / SCORES).write_text(json.dumps({"a": {**rest, **scores}}))
    return {"status": "done", "epochs_done": 2, "scores": scores}


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / FOLDER)).Reload()


def follow(folder: Path, summary: dict[str, Any]) -> None:
    config = {"lr": 0.1, "data": {"name": "folder", "path": "/home/me/films"}, "tags": ["a"]}
    run = TrackedRun(folder=folder, run_id="0" * 64, name="lr=0.1", config=without_paths(config))
    tracker = TensorBoardTracker(TrackerConfig(name="tensorboard"), run)
    tracker.open()
    for epoch in read_records(folder)[0]:
        tracker.add(epoch)
    tracker.close(summary)


def test_scalars_grids_and_hyperparameters_are_there(tmp_path: Path) -> None:
    follow(tmp_path, write_run(tmp_path))
    found = read(tmp_path)
    losses = [(event.step, event.value) for event in found.Scalars("loss_generator")]
    assert losses == [(1, 1.0), (2, 0.5)]
    recall = found.Scalars("scores/domain.recall")
    assert {(event.step, event.value) for event in recall} == {(2, 0.25)}
    assert "penalty" not in found.Tags()["scalars"]
    (image,) = found.Images("samples")
    assert (image.step, image.width, image.height) == (2, 6, 4)
    hparams = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"data.path" in hparams and b"films" in hparams and b"/home/me" not in hparams


def test_a_run_that_goes_on_is_there_once(tmp_path: Path) -> None:
    summary = write_run(tmp_path)
    follow(tmp_path, summary)
    follow(tmp_path, summary)
    assert [event.step for event in read(tmp_path).Scalars("loss_generator")] == [1, 2]
