from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lungan.results import report
from lungan.results.apart import drawing
from lungan.results.collect import collect
from lungan.results.comparisons import summarize
from lungan.results.groups import group
from lungan.results.sheet import MAX_SCORE_GROUPS, choose


def test_another_process_draws_the_same(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for samples in study.path.glob("*/samples"):
        (samples / "epoch_9999.png").write_bytes(b"no picture")
    written = []
    for name, limit in (("here", 10**6), ("apart", 1)):
        monkeypatch.setattr(report, "MIN_RUNS", limit)
        report.write_results(study.path, "study", tmp_path / name)
        files = sorted((tmp_path / name).rglob("*.*"))
        written.append({str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files})
    assert written[0] == written[1]
    assert {"figures/losses.png", "figures/scores.png"} < set(written[0])
    assert b"epoch_9999.png is not a usable PNG" in written[0]["problems.csv"]


def test_a_failure_there_is_one_here(study: Any, capfd: pytest.CaptureFixture[str]) -> None:
    groups = group(collect(study.path, "study")).groups
    with (
        drawing(choose(groups, []), apart=True) as good,
        drawing(None, apart=True) as drawn,  # type: ignore[arg-type]
    ):
        assert [figure.file for figure in good()[0]] == ["samples.png", "losses.png"]
        with pytest.raises(subprocess.CalledProcessError):
            drawn()
    assert "AttributeError" in capfd.readouterr().err


def test_the_first_groups_that_have_something_to_show(store: Any) -> None:
    for epochs in range(1, MAX_SCORE_GROUPS + 3):
        store.run(store.config(epochs=epochs), status="diverged" if epochs == 1 else "done")
    groups = group(collect(store.path)).groups
    sheet = choose(groups, summarize(groups))
    assert [sheet.num_done, sheet.num_ended] == [MAX_SCORE_GROUPS + 1, MAX_SCORE_GROUPS + 2]
    assert sheet.with_scores == groups[1 : MAX_SCORE_GROUPS + 1]
    assert sheet.with_curves[0] is groups[0]
    assert all(len(cells) == MAX_SCORE_GROUPS for cells in sheet.summaries.values())
