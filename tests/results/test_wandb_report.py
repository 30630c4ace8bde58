"""The W&B report of a synthetic sweep: its spec, built offline, and the command round it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lungan import report as command
from lungan.errors import ConfigError
from lungan.results.read import Collection, collect
from lungan.tracking import wandb_report
from lungan.tracking.wandb_report import Place, build_report, place, spec

pytest.importorskip("wandb_workspaces", reason="needs the extra report")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces")

WHERE = Place(entity="", project="lungan-test", group="it's a study")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login of the machine's user, and a server that answers nothing if it is asked."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-settings"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
        sys.modules["wandb"].run = None  # of a test that left one open: W&B takes it for a login


@pytest.fixture
def collection(study: Any) -> Collection:
    return collect(study.path, "study")


def blocks(content: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in content["spec"]["blocks"] if block["type"] == kind]


def panels(content: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [
        panel
        for grid in blocks(content, "panel-grid")
        for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]
        if panel["viewType"] == kind
    ]


def test_the_spec_has_scores_curves_comparer_grids_and_verdicts(collection: Collection) -> None:
    content = spec(build_report(collection, WHERE))
    assert content["displayName"] == "lungan: study"
    assert content["description"] == collection.question

    bars = {tuple(panel["config"]["metrics"]) for panel in panels(content, "Bar Chart")}
    assert bars == {
        ("domain_frechet_distance", "domain_frechet_distance_floor"),
        ("domain_precision", "domain_precision_floor"),
        ("domain_inception_score",),
    }
    lines = panels(content, "Run History Line Plot")
    assert {tuple(panel["config"]["metrics"]) for panel in lines} >= {
        ("loss_generator",),
        ("loss_discriminator",),
    }
    assert {panel["config"]["xAxis"] for panel in lines} == {"epoch"}
    (media,) = panels(content, "Media Browser")
    assert media["config"]["mediaKeys"] == ["samples"]
    (_,) = panels(content, "Run Comparer")

    (listed,) = blocks(content, "list")
    text = json.dumps(listed, ensure_ascii=False)
    assert "Fréchet distance" in text and "adam" in text
    assert text.count("of 20 runs finished") == 1
    assert collection.command in blocks(content, "markdown-block")[0]["content"]


def outline(content: dict[str, Any]) -> str:
    """A line for each heading: what stands below it, panels by their kind."""
    lines: dict[str, list[str]] = {}
    for block in content["spec"]["blocks"]:
        text = "".join(child.get("text", "") for child in block.get("children", []))
        match block["type"]:
            case "heading":
                below = lines.setdefault(text, [])
            case "panel-grid":
                section = block["metadata"]["panelBankSectionConfig"]
                below += dict.fromkeys(panel["viewType"] for panel in section["panels"])
            case kind if text or kind != "paragraph":
                below.append(kind)
    return "\n".join(f"{heading}: {', '.join(below)}" for heading, below in lines.items())


def test_the_documented_structure_is_the_specs(collection: Collection) -> None:
    page = (Path(__file__).parents[2] / "docs" / "wandb.md").read_text(encoding="utf-8")
    assert f"```text\n{outline(spec(build_report(collection, WHERE)))}\n```" in page


def test_runsets_are_the_group_and_its_factors(collection: Collection) -> None:
    content = spec(build_report(collection, WHERE))
    runsets = [grid["metadata"]["runSets"] for grid in blocks(content, "panel-grid")]
    assert all(len(runset) == 1 for runset in runsets)
    for (runset,) in runsets:
        assert WHERE.group in json.dumps(runset["filters"])
    grouped = [[key["name"] for key in runset["grouping"]] for (runset,) in runsets]
    assert grouped == [["optimizer.value.name", "epochs.value"]] * 2 + [[], []]


def test_panels_do_not_overlap(collection: Collection) -> None:
    content = spec(build_report(collection, WHERE))
    for grid in blocks(content, "panel-grid"):
        taken: set[tuple[int, int]] = set()
        for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]:
            box = panel["layout"]
            cells = {
                (x, y)
                for x in range(box["x"], box["x"] + box["w"])
                for y in range(box["y"], box["y"] + box["h"])
            }
            assert not cells & taken
            taken |= cells


def test_the_place_comes_from_the_runs(collection: Collection) -> None:
    assert place(collection, None, None) == Place("", "lungan", "study")
    for run in collection.runs[:3]:
        run.config["tracker.project"] = "elsewhere"
        run.config["tracker.group"] = "other"
    assert place(collection, "me", None) == Place("me", "elsewhere", "other")
    collection.runs[4].config["tracker.project"] = "nowhere"
    with pytest.raises(ConfigError, match=r"tracker\.project \(elsewhere, nowhere\).*--project"):
        place(collection, None, None)
    assert place(collection, None, "here").project == "here"


def test_wandbs_variables_say_where_runs_left_it_open(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in collection.runs:
        run.config.update({"tracker.project": None, "tracker.entity": None})
    assert place(collection, None, None) == Place("", "lungan", "study")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert place(collection, None, None) == Place("team", "mine", "study")
    assert place(collection, "me", "here") == Place("me", "here", "study")


def test_without_the_package_the_error_says_what_to_install(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(ConfigError, match="pip install wandb-workspaces"):
        build_report(collection, WHERE)


def test_the_command_without_a_login_writes_the_spec_and_says_what_to_do(
    study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sent = next(study.path.glob("adam-50ep-s0-*")) / "wandb" / "sent.json"
    sent.parent.mkdir(parents=True)
    sent.write_text('{"lungan 0123456789abcdef": "hash"}')
    arguments = ["--sweep", "study", "--store", str(study.path), "--out", str(out)]
    assert command.main(arguments) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    line = f"W&B lacks 19 of 20 runs: lungan upload {study.path} --sweep study"
    assert line in printed.splitlines()
    (line,) = [line for line in printed.splitlines() if line.startswith("no W&B login")]
    assert "wandb login" in line and str(out / "wandb_report.json") in line
    assert f"python -m lungan.results {study.path} --sweep study --out {out}" in printed
    assert json.loads((out / "wandb_report.json").read_text())["displayName"] == "lungan: study"

    (out / "report.html").touch()
    assert command.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(out / "report.html"))


def test_the_command_with_a_login_saves_and_prints_the_address(
    study: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    asked = []

    def save(_: Collection, where: Place) -> str:
        asked.append(where)
        return "https://wandb.example/report"

    monkeypatch.setattr(command, "save", save)
    arguments = ["--sweep", "study", "--store", str(study.path), "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "--entity", "me", "--project", "p"]) == 0
    assert asked == [Place("me", "p", "study")]
    assert capsys.readouterr().out.splitlines()[-1] == "report: https://wandb.example/report"


def test_a_refusing_wandb_is_one_line(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("project 'me/p' not found\nmore")

    monkeypatch.setattr(wandb_report, "build_report", refuse)
    with pytest.raises(ConfigError, match=r"ValueError: project 'me/p' not found\).*--project"):
        wandb_report.save(collection, Place("me", "p", "study"))


def test_an_unknown_sweep_is_one_line_and_exit_code_2(
    study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--sweep", "nope", "--store", str(study.path)]) == 2
    assert capsys.readouterr().err.startswith("RunFolderError: no sweep named nope")
