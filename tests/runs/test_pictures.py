"""No picture fails a run that is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import lungan
from lungan.config import RunConfig
from lungan.errors import RunFolderError
from lungan.runs import pictures
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
