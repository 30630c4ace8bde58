"""W&B beside a run: what is recorded, W&B's own variables, and W&B in every kind of trouble."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lungan import registry
from lungan.config import TrackerConfig
from lungan.config.run import WandbConfig
from lungan.errors import RunFolderError
from lungan.files import append_line, without_paths, write_json
from lungan.runs import folder as folder_names
from lungan.runs import pictures
from lungan.runs.folder import (
    METRICS,
    SCORES,
    classes_path,
    read_metrics,
    real_images_path,
    sample_path,
)
from lungan.tracking import live, records
from lungan.tracking.live import Followers
from lungan.tracking.records import TrackedRun, TrackerError
from lungan.tracking.wandb import (
    SENT,
    WandbTracker,
    flat_summary,
    init_arguments,
    score_table,
    sent,
    wandb_name,
)

RUN_ID = "0123456789abcdef" * 4
RUN_CONFIG = {"epochs": 3, "optimizer": {"name": "adam", "lr": 1e-3}, "data": {"classes": ["a"]}}
SUMMARY = {
    "run_id": RUN_ID,
    "name": "phantom28",
    "status": "done",
    "reason": None,
    "epochs_done": 4,
    "seconds": {"training": 2.5, "total": 3.0},
    "best_epoch": {"epoch": 2, "score": "domain.frechet_distance", "value": 1.5},
    "machine": "Xeon (2 cores), Linux",
    "config": RUN_CONFIG,
    "data": {
        "counts": {"a": {"train": 7}},
        "skipped": {"jane_doe.png": "it cannot be decoded"},
        "warnings": ["jane_doe.png looks like john_doe.png"],
    },
    "scores": {
        "epoch": 4,
        "num_images": 1900,
        "scoring_id": "f" * 64,
        "encoders": {"domain": {"feature_dim": 128}},
        "values": {
            "domain.recall": 0.25,
            "domain.recall.floor": 0.97,
            "inception.inception_score": None,
        },
        "reasons": {"inception": "no weights"},
    },
}

Read = Callable[[Path], dict[str, Any]]


def config(mode: str | None = "offline", **changed: Any) -> WandbConfig:
    return dataclasses.replace(WandbConfig(name="wandb", mode=mode, project="tests"), **changed)


def tracked(folder: Path, **changed: Any) -> TrackedRun:
    run = TrackedRun(
        folder=folder, run_id=RUN_ID, name="lr=0.001 seed=2", config=RUN_CONFIG, sweep="study"
    )
    return dataclasses.replace(run, **changed)


def metrics(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "loss_generator": 1.0 / epoch, "seconds": 2.0, "penalty": 0.0}


def images(epoch: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(epoch)
    return rng.integers(0, 256, (32, channels, 28, 28), dtype=np.uint8)


def write_epoch(folder: Path, epoch: int, channels: int = 1) -> None:
    append_line(folder / METRICS, metrics(epoch))
    if epoch % 2 == 0:
        path = sample_path(folder, epoch)
        pictures.write_png(path, pictures.grid(images(epoch, channels)))


def record(
    folder: Path,
    epochs: range,
    summary: dict[str, Any] | None = None,
    settings: WandbConfig | None = None,
    **changed: Any,
) -> None:
    """Write what a run of these epochs writes, to its end or, without a summary, until it is
    stopped, and give W&B what the folder holds then."""
    for epoch in epochs:
        write_epoch(folder, epoch)
    if summary is not None:
        write_end(folder, summary)
    tracker = WandbTracker(settings or config(), tracked(folder, **changed))
    tracker.open()
    for each in records.read_records(folder)[0]:
        tracker.add(each)
    tracker.close(summary)


def write_end(folder: Path, summary: dict[str, Any]) -> None:
    rest: dict[str, Any] = {"reasons": {}, "encoders": {}, "config": {}}
    result = {summary["scores"]["scoring_id"]: {**rest, **summary["scores"]}}
    (folder / SCORES).write_text(json.dumps(result))
    write_json(folder / folder_names.SUMMARY, summary)


def recordings(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours; what W&B tells its own loggers goes to its debug log."""
    ours = [record for record in caplog.records if record.name.startswith("lungan")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def wait_for_warnings(caplog: pytest.LogCaptureFixture, count: int) -> list[str]:
    """A tracker's lines are passed on by a thread."""
    deadline = time.monotonic() + 30
    while len(warnings(caplog)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return warnings(caplog)


def test_an_offline_run_holds_every_epoch_grid_score_and_setting(
    tmp_path: Path, read: Read, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, range(1, 5), SUMMARY, question="Which?")

    (recording,) = recordings(tmp_path)
    found = read(recording)
    run = found["run"]
    assert (run["run_id"], run["display_name"]) == (RUN_ID[:16], "lr=0.001 seed=2")
    assert (run["project"], run["run_group"], run["job_type"]) == ("tests", "study", "train")
    assert run["notes"] == "Which?"
    counts = {"counts": {"a": {"train": 7}}, "num_skipped": 1}
    assert found["config"] == {"data_found": counts}, "no names of files"
    assert {key: run["config"]["update"][key] for key in RUN_CONFIG} == RUN_CONFIG

    *rows, table = found["history"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        expected = metrics(row["step"])
        expected["seconds_epoch"] = expected.pop("seconds")
        assert {key: row[key] for key in expected} == expected
        assert ("samples._type" in row) == (row["step"] % 2 == 0)
        if row["step"] % 2 == 0:
            with Image.open(recording / "files" / row["samples.path"]) as saved:
                np.testing.assert_array_equal(
                    np.asarray(saved), pictures.grid(images(row["step"]))[..., 0]
                )
    assert (rows[-1]["domain_recall"], rows[-1]["domain_recall_floor"]) == (0.25, 0.97)
    assert not [row for row in rows[:-1] if "domain_recall" in row]
    content = json.loads((recording / "files" / table["score_table.path"]).read_text())
    assert content["data"][0][:3] == ["domain", "recall", 0.25]

    assert found["metrics"]["loss_generator"]["step_metric"] == "epoch"
    assert found["metrics"]["domain_recall"]["step_metric"] == "epoch"
    summary = found["summary"]
    assert summary["loss_generator"] == {"min": 0.25, "max": 1.0, "last": 0.25}
    assert (summary["domain_recall"], summary["domain_recall_floor"]) == (0.25, 0.97)
    assert (summary["seconds_training"], summary["seconds_total"]) == (2.5, 3.0)
    assert (summary["best_epoch"], summary["best_value"]) == (2, 1.5)
    assert "seconds" not in summary and "machine" not in summary and "config" not in summary
    assert found["exit_code"] == 0
    assert warnings(caplog) == []
    assert capfd.readouterr() == ("", "")


def test_nothing_of_the_machine_is_captured(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "xyzzy-secret")
    monkeypatch.setenv("WANDB_API_KEY", "b" * 40)
    record(tmp_path, range(1, 3), SUMMARY)
    (recording,) = recordings(tmp_path)
    files = [path for path in recording.rglob("*") if path.is_file() and "logs" not in path.parts]
    assert {path.suffix for path in files} == {".wandb", ".png", ".json"}
    content = b"".join(path.read_bytes() for path in files)
    for private in ("xyzzy-secret", "b" * 40, socket.gethostname() + '"'):
        assert private.encode() not in content


def test_paths_become_names() -> None:
    values = {
        "data": {"path": "films/mine", "root": "../films/mine", "classes": ["a"]},
        "store": "/scratch/me/runs",
        "lr": 0.1,
        "score": {"inception_weights": "~/weights.pt"},
        "score.inception_weights": "mine/weights.pt",
    }
    assert without_paths(values) == {
        "data": {"path": "mine", "root": "mine", "classes": ["a"]},
        "store": "runs",
        "lr": 0.1,
        "score": {"inception_weights": "weights.pt"},
        "score.inception_weights": "weights.pt",
    }


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("OSError: {home}/films/x.png is full", "OSError: x.png is full"),
        ("no room: '/mnt/jane doe/runs/log.txt'", "no room: 'log.txt'"),
        ('File "/opt/jane doe/lion.py", line 3', 'File "lion.py", line 3'),
        ("no weights (/scratch/jane/w.pth)", "no weights (w.pth)"),
        (
            "put it into ~/jane/hub or set score.x=/mnt/jane/w.pth",
            "put it into hub or set score.x=w.pth",
        ),
        ("see:/mnt/jane/a.png, file:///mnt/jane/b.png", "see:a.png, file://b.png"),
        ("3 images/s and/or 1/2 / 0.5%/epoch", "3 images/s and/or 1/2 / 0.5%/epoch"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_paths_inside_of_texts_become_names(text: str, sent: str) -> None:
    given = {"reason": text.format(home=Path.home())}
    assert without_paths(given) == {"reason": sent}
    assert without_paths([given]) == [{"reason": sent}]


@pytest.mark.parametrize(
    ("home", "text", "sent"),
    [
        ("/", "3 images/s from /films/x.png and ~/y.png", "3 images/s from x.png and y.png"),
        ("/srv/jane doe", "no room in /srv/jane doe/runs/a", "no room in a"),
        ("/srv/jane", "see /srv/jane, /srv/jane/a and /srv/janet/b.", "see ~, a and b."),
    ],
)
def test_the_home_folder_is_not_named(
    home: str, text: str, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    assert without_paths(text) == sent


def test_of_a_failure_only_the_kind_is_sent() -> None:
    reason = "ProxyError: no way through http://jane:secret@proxy.hospital.org"
    assert flat_summary({"status": "failed", "reason": reason})["reason"] == "ProxyError"
    said = "the generator's loss is nan"
    assert flat_summary({"status": "diverged", "reason": said})["reason"] == said


def test_an_epoch_is_taken_when_its_grid_and_scores_are_there(tmp_path: Path) -> None:
    taken = []

    class Tracker:
        def open(self) -> None: ...

        def add(self, epoch: records.Epoch) -> None:
            taken.append((epoch.epoch, epoch.samples is not None, bool(epoch.scores)))

        def close(self, summary: dict[str, Any] | None) -> None:
            taken.append((0, summary is not None, False))

    def run() -> Iterator[bool]:
        append_line(tmp_path / METRICS, metrics(1))
        yield False
        assert taken == []
        write_epoch(tmp_path, 2)
        yield False
        assert taken == [(1, False, False)]
        yield True

    live.follow(tmp_path, Tracker(), run().__next__)
    # Stopped: the last epoch may lack its grid, and is taken when the run goes on.
    assert taken == [(1, False, False), (0, False, False)]
    taken.clear()
    write_epoch(tmp_path, 3)
    write_epoch(tmp_path, 4)
    write_end(tmp_path, SUMMARY)
    live.follow(tmp_path, Tracker(), lambda: True)
    epochs = [(1, False, False), (2, True, False), (3, False, False), (4, True, True)]
    assert taken == [*epochs, (0, True, False)]


def test_a_continued_run_is_recorded_whole_and_replaces_its_recording(
    tmp_path: Path, read: Read
) -> None:
    record(tmp_path, range(1, 3))
    (before,) = recordings(tmp_path)
    assert read(before)["exit_code"] == 1, "W&B must not call a stopped run finished"
    time.sleep(1.1)  # W&B names recordings by the second
    record(tmp_path, range(3, 5), SUMMARY)
    (recording,) = recordings(tmp_path)
    assert recording != before
    assert [row["step"] for row in read(recording)["history"]] == [1, 2, 3, 4, 5]


def test_colour_grids_keep_their_colours(tmp_path: Path) -> None:
    write_epoch(tmp_path, 2, channels=3)
    record(tmp_path, range(0), SUMMARY)
    (path,) = recordings(tmp_path)[0].rglob("*.png")
    with Image.open(path) as saved:
        np.testing.assert_array_equal(np.asarray(saved), pictures.grid(images(2, channels=3)))


def test_grids_of_classes_say_which_and_real_images_are_there_once_where_asked_for(
    tmp_path: Path, read: Read
) -> None:
    pictures.write_png(real_images_path(tmp_path), pictures.grid(images(9)))
    write_json(classes_path(tmp_path), ["normal"] * 5 + ["pneumonia"] * 27)
    record(tmp_path, range(1, 5), SUMMARY, config(real_images=True))
    rows = read(recordings(tmp_path)[0])["history"]
    captions = {row["samples.caption"] for row in rows if "samples.caption" in row}
    assert captions == {"rows of 8: 5 normal, 27 pneumonia"}
    assert len([row for row in rows if "real_images.path" in row]) == 1


def test_real_images_stay_here_unless_asked_for(tmp_path: Path, read: Read) -> None:
    pictures.write_png(real_images_path(tmp_path), pictures.grid(images(9)))
    record(tmp_path, range(1, 3), SUMMARY)
    assert not [
        row for row in read(recordings(tmp_path)[0])["history"] if "real_images.path" in row
    ]


def test_four_runs_of_a_sweep_in_one_process_are_four_runs(tmp_path: Path, read: Read) -> None:
    found = {}
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        given = {"run_id": f"{number:064x}"[::-1], "name": f"seed={number}"}
        record(folder, range(1, number + 1), SUMMARY, **given)
        content = read(recordings(folder)[0])
        found[content["run"]["run_id"]] = content
    assert len(found) == 4
    assert [each["run"]["display_name"] for each in found.values()] == [
        f"seed={number}" for number in range(4)
    ]


def arguments(environment: dict[str, str], **changed: Any) -> dict[str, Any]:
    open_config = WandbConfig(name="wandb", **changed)
    return init_arguments(open_config, tracked(Path("/runs/x")), environment)


@pytest.mark.parametrize(
    ("variable", "key", "value"),
    [
        ("WANDB_PROJECT=mine", "project", "mine"),
        ("WANDB_ENTITY=team", "entity", "team"),
        ("WANDB_TAGS=a,b", "tags", ["a", "b"]),
        ("WANDB_DIR=/scratch", "dir", "/scratch"),
        ("WANDB_RUN_GROUP=ours", "group", "ours"),
        ("WANDB_JOB_TYPE=ablation", "job_type", "ablation"),
        ("WANDB_NOTES=why", "notes", "why"),
        ("WANDB_NAME=try", "name", "try lr=0.001 seed=2"),
        ("WANDB_MODE=online", "mode", "online"),
        ("WANDB_MODE=dryrun", "mode", "offline"),
        ("WANDB_MODE=disabled", "mode", "disabled"),
        ("WANDB_DISABLED=true", "mode", "disabled"),
        ("WANDB_DISABLED=false", "mode", "offline"),
        ("WANDB_RUN_ID=mine", "id", RUN_ID[:16]),
    ],
)
def test_wandbs_variables_fill_what_the_config_leaves_open(
    variable: str, key: str, value: Any
) -> None:
    name, _, text = variable.partition("=")
    assert arguments({name: text})[key] == value


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("WANDB_PROJECT=mine", {"project": "ours"}),
        ("WANDB_ENTITY=me", {"entity": "team"}),
        ("WANDB_TAGS=a", {"tags": ["b"]}),
        ("WANDB_RUN_GROUP=mine", {"group": "ours"}),
        ("WANDB_MODE=online", {"mode": "offline"}),
    ],
)
def test_what_the_config_sets_comes_before_variables(
    variable: str, setting: dict[str, Any]
) -> None:
    name, _, text = variable.partition("=")
    assert arguments({name: text}, **setting).items() >= setting.items()


def test_without_variables_a_run_is_offline_in_project_lungan() -> None:
    found = arguments({})
    assert (found["mode"], found["project"], found["entity"]) == ("offline", "lungan", None)
    assert (found["group"], found["tags"], found["job_type"]) == ("study", [], "train")


@pytest.mark.parametrize("variable", ["WANDB_MODE=disabled", "WANDB_DISABLED=true"])
def test_a_site_that_forbids_wandb_is_obeyed_whatever_the_config(variable: str) -> None:
    name, _, text = variable.partition("=")
    assert arguments({name: text}, mode="online")["mode"] == "disabled"


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    record(tmp_path, range(1, 3), SUMMARY, settings=config("disabled"))
    assert not (tmp_path / "wandb").exists()


def test_a_run_outside_of_sweeps_takes_the_name_and_id_of_the_environment() -> None:
    run = tracked(Path("/runs/x"), sweep=None)
    found = init_arguments(
        WandbConfig(name="wandb"), run, {"WANDB_NAME": "try", "WANDB_RUN_ID": "abc"}
    )
    assert (found["name"], found["id"], found["group"]) == ("try", "abc", None)


def test_the_sink_alone_does_not_import_wandb() -> None:
    code = "import sys, lungan.tracking.wandb; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], TrackerConfig]:
    """Registers a tracker whose ``open`` is this code."""
    monkeypatch.setattr(registry, "_choices", dict(registry._choices))
    monkeypatch.setattr(registry, "_files", {})

    def load(name: str, code: str) -> TrackerConfig:
        path = tmp_path / f"{name}.py"
        path.write_text(TRACKER.format(name=name, code=code))
        registry.load_file(path)
        return TrackerConfig(name=name)

    return load


TRACKER = """
import sys, time, wandb
from lungan.config import TrackerConfig
from lungan.registry import register
from lungan.tracking.wandb import WandbTracker

class Broken:
    def __init__(self, config, run): ...
    def open(self):
        {code}

register("tracker", "{name}", config=TrackerConfig)(Broken)
"""


def end(folder: Path, *trackers: TrackerConfig) -> float:
    """Follow a run that has ended; gives the seconds that its end waits."""
    write_epoch(folder, 1)
    write_end(folder, SUMMARY)
    followers = Followers(tracked(folder), trackers)
    began = time.monotonic()
    followers.close()
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.modules['wandb'] = None; import wandb", "ModuleNotFoundError: import of wandb"),
        ("sys.exit('broken\\nwith a long story')", "SystemExit: broken"),
        ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left"),
    ],
)
def test_a_tracker_that_fails_is_one_warning(
    code: str,
    said: str,
    plugin: Callable[[str, str], TrackerConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end(tmp_path, plugin("broken", code))
    (message,) = wait_for_warnings(caplog, 1)
    expected = "tracker=broken gets no more of this run, whose folder has it all: "
    assert message.startswith(expected + said)


@pytest.mark.parametrize("method", ["init", "log", "finish"])
def test_a_wandb_that_fails_ends_the_tracker_only(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(*_: Any, **__: Any) -> None:
        raise SystemExit("broken")

    monkeypatch.setattr(wandb if method == "init" else wandb.Run, method, refuse)
    given = {"tracker": dataclasses.asdict(config()), "plugins": []}
    run = dataclasses.asdict(tracked(tmp_path)) | {"folder": str(tmp_path)}
    monkeypatch.setattr(live.follow, "__defaults__", (lambda: True,))
    write_epoch(tmp_path, 1)
    write_end(tmp_path, SUMMARY)
    with pytest.raises(SystemExit, match="whose folder has it all: SystemExit: broken"):
        live.main(json.dumps(given | {"run": run}))
    monkeypatch.undo()
    wandb.finish()


def test_wandb_missing_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackerError, match=r"W&B is not installed.*pip install wandb"):
        record(tmp_path, range(1, 2), SUMMARY)


def test_damaged_metrics_are_named(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text("not JSON\n")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl is damaged: line 1"):
        record(tmp_path, range(0), SUMMARY)


def test_stuck_trackers_hold_neither_the_run_nor_its_end(
    plugin: Callable[[str, str], TrackerConfig],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "END_SECONDS", 0.3)
    stuck = [plugin(name, "time.sleep(8)") for name in ("first", "second")]
    began = time.monotonic()
    assert end(tmp_path, *stuck) < 2.0, "all are waited for at once"
    assert time.monotonic() - began < 4.0
    for name, message in zip(("first", "second"), warnings(caplog), strict=True):
        assert message.startswith(f"tracker={name} needs more than 0.3 s after the run's end")


def test_online_without_a_login_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end(tmp_path, config("online"))
    (message,) = wait_for_warnings(caplog, 1)
    assert "wandb login, then lungan upload" in message


WHOLE_PROCESS = """
import logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_wandb import config, end
from lungan.tracking import live
live.END_SECONDS = float(sys.argv[3])
logging.basicConfig(format="%(message)s")
print(end(Path(sys.argv[1]), config(sys.argv[4])))
"""


def whole_process(
    folder: Path, environment: dict[str, str], seconds: float, mode: str = "online"
) -> tuple[list[str], float]:
    """A run of a moment in a process of its own; gives its warnings, and how long its end took."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", WHOLE_PROCESS, str(folder), here, str(seconds), mode]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=120
    )
    return done.stderr.strip().splitlines(), float(done.stdout)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def hanging_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def test_online_sends_the_run_and_remembers_it(
    server: Any, account: dict[str, str], tmp_path: Path
) -> None:
    said, _ = whole_process(tmp_path, account, 60.0)
    assert said == []
    (run,) = server.runs.values()
    assert run.properties["displayName"] == "lr=0.001 seed=2"
    assert run.values("loss_generator") == [1.0]
    assert run.summary["domain_recall"] == 0.25
    assert run.exit_code == 0
    (destination,) = sent(tmp_path)
    assert destination.split() == [server.address, "tests", RUN_ID[:16]]


@pytest.mark.parametrize(
    "trouble", ["refuses", "hangs", "hangs after the start", "dies midway", "answers 500"]
)
def test_a_server_in_trouble_delays_the_end_of_a_run_by_a_second(
    trouble: str,
    server: Any,
    account: dict[str, str],
    closed_port: int,
    hanging_port: int,
    tmp_path: Path,
) -> None:
    streaming = lambda path: path.endswith("file_stream")  # noqa: E731
    match trouble:
        case "refuses":
            account["WANDB_BASE_URL"] = f"http://127.0.0.1:{closed_port}"
        case "hangs":
            account["WANDB_BASE_URL"] = f"http://127.0.0.1:{hanging_port}"
        case "hangs after the start":
            server.trouble = lambda path: time.sleep(60) if streaming(path) else None
        case "dies midway":
            server.trouble = lambda path: server.die() if streaming(path) else None
        case "answers 500":
            server.trouble = lambda path: 500 if streaming(path) else None
    began = time.monotonic()
    _, seconds = whole_process(tmp_path, account, 1.0)
    assert seconds < 2.0 and time.monotonic() - began < 60, "nor does Python's end wait"
    assert read_metrics(tmp_path), "the run folder has it all"
    assert not (tmp_path / "wandb" / SENT).exists(), "so that an upload sends it"


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_only_online_asks_anything_of_the_network(mode: str, server: Any, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "NO_PROXY"}
    environment.pop("WANDB_ERROR_REPORTING")
    environment.pop("WANDB_BASE_URL")
    environment |= {"HTTP_PROXY": server.address, "HTTPS_PROXY": server.address}
    environment |= {"WANDB_API_KEY": "a" * 40}
    whole_process(tmp_path, environment, 20.0, mode)
    assert bool(server.requests) == (mode == "online")


def test_names_and_summaries_for_wandb() -> None:
    assert wandb_name("domain.frechet_distance.floor") == "domain_frechet_distance_floor"
    assert flat_summary({"status": "done", "reason": None, "scores": None}) == {"status": "done"}


def test_the_score_table_has_a_row_a_score_with_its_floor_and_what_else_is_known() -> None:
    values = {
        "domain.recall": 0.25,
        "domain.recall.floor": 0.97,
        "domain.recall.floor_low": 0.9,
        "domain.recall.floor.std": 0.01,
        "inception.inception_score.real": 2.0,
        "inception.inception_score.splits": 10.0,
    }
    columns, rows = score_table(values)
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert found[0] | {} == dict.fromkeys(columns) | {
        "encoder": "domain",
        "score": "recall",
        "value": 0.25,
        "floor": 0.97,
        "floor_low": 0.9,
        "floor_std": 0.01,
    }
    assert (found[1]["real"], found[1]["splits"], found[1]["value"]) == (2.0, 10.0, None)
