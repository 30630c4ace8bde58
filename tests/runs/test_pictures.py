"""No picture fails a run that is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

import lungan
from lungan.config import RunConfig
from lungan.data.images import ImageSet
from lungan.errors import RunFolderError
from lungan.files import read_json
from lungan.runs import folder, pictures
from lungan.runs.prepare import prepare
from lungan.runs.run import run


def test_a_notebooks_backend_that_is_not_here_changes_nothing(
    tmp_path: Path, tiny_overrides: Sequence[str]
) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(Path(lungan.__file__).parents[1]),
        "MPLBACKEND": "module://no_such_notebook.backend_inline",
    }
    command = [sys.executable, "-m", "lungan.train", "--multirun", "--sweep", "s", *tiny_overrides]
    done = subprocess.run(
        [*command, "epochs=1", "seed=0,1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["done", "done"]
    assert len(list(tmp_path.glob("runs/*/figures/losses.png"))) == 2
    assert (tmp_path / "runs" / "sweeps" / "s" / "figures" / "losses.png").exists()


@pytest.mark.parametrize("picture", ["write_loss_curves", "grid"])
def test_a_picture_that_cannot_be_drawn_is_a_warning(
    picture: str,
    tiny: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such color")

    monkeypatch.setattr(pictures, picture, broken)
    done = run(prepare(tiny("epochs=1", "samples_every_epochs=1")))
    assert done.summary["status"] == "done"
    assert "ValueError: no such color" in caplog.text


def test_a_full_disk_is_still_said() -> None:
    with pytest.raises(RunFolderError, match="no space"), pictures.spared("loss curves"):
        raise RunFolderError("no space")


@pytest.mark.parametrize("conditional", [False, True])
def test_real_images_have_the_classes_and_places_of_the_sample_grids(
    conditional: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2], [10, 90]).astype(np.int64)
    shades = (labels.astype(np.uint8) * 100).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(shades, (100, 1, 4, 4)).copy()
    images += rng.integers(0, 9, images.shape, dtype=np.uint8)
    names = ("few", "none", "many")
    image_set = ImageSet(
        images=images,
        labels=labels,
        splits=np.zeros(100, np.int64),
        class_names=names,
        split_names=("train",),
        source="made",
    )
    pictures.write_real_images(tmp_path, image_set, seed=3, conditional=conditional)
    sheet = cv2.imread(str(folder.real_images_path(tmp_path)), cv2.IMREAD_GRAYSCALE)
    tops = range(0, 4 * 6, 6)
    shown = [sheet[top : top + 4, left : left + 4] for top in tops for left in range(0, 8 * 6, 6)]
    assert folder.classes_path(tmp_path).exists() == conditional
    if conditional:
        classes = read_json(folder.classes_path(tmp_path), [str])
        assert len(classes) == 32 and set(classes) == {"few", "many"}
        for name, image in zip(classes, shown, strict=True):
            assert (image.mean() > 100) == (name == "many")
    assert all(any((image == own[0]).all() for own in images) for image in shown)


def test_pairs_show_generated_above_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    training = rng.integers(0, 200, (16, 1, 8, 8), dtype=np.uint8)
    generated = rng.integers(0, 200, (16, 1, 8, 8), dtype=np.uint8)
    pictures.write_pairs(tmp_path / "pairs.png", generated, training)
    sheet = cv2.imread(str(tmp_path / "pairs.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (2 * (8 + 2 + 8 + 4) + 2, 8 * (8 + 2) - 2)
    np.testing.assert_array_equal(sheet[:8, :8], generated[0, 0])
    np.testing.assert_array_equal(sheet[10:18, :8], training[0, 0])
    np.testing.assert_array_equal(sheet[24:32, 10:18], generated[9, 0])
