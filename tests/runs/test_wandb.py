"""Runs recorded offline and read back with W&B's own reader, and W&B in every kind of trouble."""

from __future__ import annotations

import http.server
import json
import logging
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lungan.config import WandbConfig
from lungan.runs import folder as names
from lungan.runs import pictures
from lungan.tracking.wandb import (
    CLOSE_SECONDS,
    MAX_PENDING,
    START_SECONDS,
    WandbSink,
    flat_summary,
    sync_command,
    wandb_name,
)
from lungan.training.events import Checkpoint, EpochEnd, RunEnd, Samples, StepEnd

PATIENT_SECONDS = 60.0
RUN_ID = "0123456789abcdef" * 4
RUN_CONFIG = {"epochs": 3, "optimizer": {"name": "adam", "lr": 1e-3}, "data": {"classes": ["a"]}}
SUMMARY = {
    "status": "done",
    "reason": None,
    "epochs_done": 3,
    "versions": {"python": "3.11"},
    "config": RUN_CONFIG,
    "data": {"counts": {"a": {"train": 7}}},
    "scores": {
        "epoch": 3,
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


def config(mode: str = "offline") -> WandbConfig:
    return WandbConfig(
        name="wandb", mode=mode, project="lungan-test", entity=None, group=None, tags=["a", "b"]
    )


def sink(folder: Path, mode: str = "offline", run_id: str = RUN_ID, **changed: Any) -> WandbSink:
    arguments: dict[str, Any] = {
        "folder": folder,
        "run_id": run_id,
        "name": folder.name,
        "run_config": RUN_CONFIG,
        "group": "study",
        "job_type": "train",
        "tags": ["a", "b"],
    }
    return WandbSink(config(mode), **(arguments | changed))


def metrics(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "images_seen": 100 * epoch, "loss_generator": 1.0 / epoch}


def images(epoch: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(epoch)
    return rng.integers(0, 256, (32, channels, 28, 28), dtype=np.uint8)


def emit(tracker: WandbSink, epochs: range, summary: dict[str, Any] | None = None) -> None:
    for epoch in epochs:
        tracker(StepEnd(epoch, 1, 100))
        tracker(EpochEnd(epoch, metrics(epoch)))
        if epoch % 2 == 0:
            tracker(Samples(epoch, images(epoch)))
        tracker(Checkpoint(epoch, {}))
    if summary is not None:
        tracker(RunEnd(summary))


def recordings(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def read(recording: Path) -> dict[str, Any]:
    """What W&B's reader finds: ``run``, ``history`` by step, ``summary``, ``exit_code``."""
    from wandb.util import get_core_path

    (path,) = recording.glob("*.wandb")
    # What `wandb leet inspect --json` runs, without the second that its command line takes.
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command += ["--run-file", str(path), str(recording.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = {"history": {}, "summary": {}, "metrics": {}, "exit_code": None}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        content = record.get(record["type"], {})
        match record["type"]:
            case "run":
                found["run"] = content
            case "history":
                found["history"][content["step"]["num"]] = content["item"]
            case "config":
                found["config"] = content["update"]
            case "summary":
                found["summary"] |= content["update"]
            case "metric":
                found["metrics"][content.get("name") or content["glob_name"]] = content
            case "exit":
                found["exit_code"] = content["exit_code"]
    return found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours; what W&B tells its own loggers goes to its debug log."""
    ours = [record for record in caplog.records if record.name.startswith("lungan")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def own_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No account of the machine's user, and no W&B session that outlives the test."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-settings"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    # What W&B records is another question than how long a run waits for it.
    monkeypatch.setattr("lungan.tracking.wandb.CLOSE_SECONDS", PATIENT_SECONDS)
    yield
    if sys.modules.get("wandb") is not None:
        sys.modules["wandb"].teardown()


def test_an_offline_run_holds_every_epoch_config_summary_and_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = sink(tmp_path)
    emit(tracker, range(1, 5), SUMMARY)
    tracker.close()

    (recording,) = recordings(tmp_path)
    found = read(recording)
    run = found["run"]
    assert run["run_id"] == RUN_ID[:16]
    assert run["display_name"] == tmp_path.name
    assert (run["project"], run["run_group"], run["job_type"]) == ("lungan-test", "study", "train")
    assert run["tags"] == ["a", "b"]
    assert {key: run["config"]["update"][key] for key in RUN_CONFIG} == RUN_CONFIG
    assert found["config"] == {"data_found": SUMMARY["data"]}
    assert "resume" not in run

    assert sorted(found["history"]) == [1, 2, 3, 4]
    for epoch, item in found["history"].items():
        assert {key: item[key] for key in metrics(epoch)} == metrics(epoch)
        assert ("samples._type" in item) == (epoch % 2 == 0)
        if epoch % 2 == 0:
            saved = cv2.imread(
                str(recording / "files" / item["samples.path"]), cv2.IMREAD_UNCHANGED
            )
            np.testing.assert_array_equal(saved, pictures.grid(images(epoch))[..., 0])
    assert found["metrics"]["*"]["step_metric"] == "epoch"

    summary = found["summary"]
    assert summary["status"] == "done"
    assert (summary["domain_recall"], summary["domain_recall_floor"]) == (0.25, 0.97)
    assert summary["scores_num_images"] == 1900
    assert not [key for key in summary if "inception_score" in key or key.startswith("config")]
    assert found["exit_code"] == 0
    assert warnings(caplog) == []
    assert capfd.readouterr() == ("", "")


def test_nothing_of_the_machine_is_captured(tmp_path: Path) -> None:
    tracker = sink(tmp_path)
    emit(tracker, range(1, 3))
    tracker.close()
    (recording,) = recordings(tmp_path)
    files = {path.name for path in (recording / "files").rglob("*") if path.is_file()}
    assert {path for path in files if not path.endswith(".png")} == set()
    assert read(recording)["exit_code"] == 1, "no RunEnd: W&B must not call the run finished"


def test_colour_grids_keep_their_colours(tmp_path: Path) -> None:
    tracker = sink(tmp_path)
    tracker(Samples(1, images(1, channels=3)))
    tracker.close()
    (recording,) = recordings(tmp_path)
    (path,) = recording.rglob("*.png")
    saved = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(saved, pictures.grid(images(1, channels=3)))


def test_four_runs_of_a_sweep_in_one_process_are_four_runs(tmp_path: Path) -> None:
    expected = {}
    for number, (optimizer, epochs) in enumerate(
        (optimizer, epochs) for optimizer in ("adam", "rmsprop") for epochs in (1, 2)
    ):
        folder = tmp_path / f"{optimizer}-{epochs}"
        folder.mkdir()
        run_config = {"optimizer": {"name": optimizer}, "epochs": epochs}
        tracker = sink(folder, run_id=f"{number:064x}"[::-1], run_config=run_config)
        emit(tracker, range(1, epochs + 1), SUMMARY)
        tracker.close()
        expected[folder] = run_config
    ids = set()
    for folder, run_config in expected.items():
        (recording,) = recordings(folder)
        found = read(recording)
        ids.add(found["run"]["run_id"])
        update = found["run"]["config"]["update"]
        assert {key: update[key] for key in run_config} == run_config
        assert sorted(found["history"]) == list(range(1, run_config["epochs"] + 1))
    assert len(ids) == 4


def test_a_continued_run_is_recorded_whole_under_its_id(tmp_path: Path) -> None:
    for epoch in (1, 2):
        names.append_line(tmp_path / names.METRICS, metrics(epoch))
    pictures.write_png(names.sample_path(tmp_path, 2), pictures.grid(images(2)))
    tracker = sink(tmp_path)
    emit(tracker, range(3, 5), SUMMARY)
    tracker.close()
    (recording,) = recordings(tmp_path)
    found = read(recording)
    assert found["run"]["run_id"] == RUN_ID[:16]
    assert sorted(found["history"]) == [1, 2, 3, 4]
    saved = recording / "files" / found["history"][2]["samples.path"]
    np.testing.assert_array_equal(
        cv2.imread(str(saved), cv2.IMREAD_UNCHANGED), pictures.grid(images(2))[..., 0]
    )


def test_damaged_metrics_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / names.METRICS).write_text("not JSON\n")
    sink(tmp_path, mode="offline").close()
    assert len(warnings(caplog)) == 1
    assert "W&B lacks this run's earlier epochs" in warnings(caplog)[0]


def test_sync_command_names_the_newest_recording(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    assert sync_command(folder) is None
    for stamp in ("20260102_000000-b", "20260101_000000-a"):
        (folder / "wandb" / f"offline-run-{stamp}").mkdir(parents=True)
    newest = folder / "wandb" / "offline-run-20260102_000000-b"
    assert sync_command(folder) == f"wandb sync '{newest}'"
    (newest / "run-b.wandb.synced").touch()
    assert sync_command(folder) is None


def test_disabled_writes_nothing_and_starts_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    tracker = sink(tmp_path, mode="disabled")
    assert threading.active_count() == before
    emit(tracker, range(1, 3), SUMMARY)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_sink_does_not_import_wandb() -> None:
    code = "import sys, lungan.tracking.wandb; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_wandb_missing_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = sink(tmp_path)
    emit(tracker, range(1, 4), SUMMARY)
    tracker.close()
    tracker.close()
    (message,) = warnings(caplog)
    assert message.startswith("W&B gets nothing; pip install wandb, or tracker=none: ")


def test_wandb_that_cannot_start_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def init(**_: Any) -> None:
        raise SystemExit("no room")

    monkeypatch.setattr(wandb, "init", init)
    tracker = sink(tmp_path)
    emit(tracker, range(1, 4), SUMMARY)
    tracker.close()
    assert warnings(caplog) == ["W&B cannot start, so it gets nothing: SystemExit: no room"]


def test_a_broken_log_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken\nwith a long story")

    monkeypatch.setattr(wandb.Run, "log", refuse)
    tracker = sink(tmp_path)
    emit(tracker, range(1, 6), SUMMARY)
    tracker.close()
    (message,) = warnings(caplog)
    assert message.startswith("W&B refused a record") and message.endswith("RuntimeError: broken")
    assert read(recordings(tmp_path)[0])["summary"]["status"] == "done"


def test_a_stuck_wandb_does_not_hold_events_or_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    release = threading.Event()
    monkeypatch.setattr(wandb, "init", lambda **_: release.wait(30))
    monkeypatch.setattr("lungan.tracking.wandb.CLOSE_SECONDS", 0.3)
    tracker = sink(tmp_path)
    began = time.monotonic()
    for epoch in range(1, MAX_PENDING + 51):
        tracker(EpochEnd(epoch, metrics(epoch)))
    assert time.monotonic() - began < 1.0
    tracker.close()
    assert time.monotonic() - began < 2.0
    release.set()
    assert warnings(caplog) == [
        "W&B did not finish within 0 s and is left behind",
        f"W&B lacks {MAX_PENDING + 50} of this run's records; the run folder has them all",
    ]


def test_online_without_a_login_records_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = sink(tmp_path, mode="online")
    emit(tracker, range(1, 3), SUMMARY)
    tracker.close()
    (message,) = warnings(caplog)
    assert message.startswith("W&B has no login here, so this run is recorded offline")
    assert sorted(read(recordings(tmp_path)[0])["history"]) == [1, 2]


@pytest.fixture
def hanging_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


WHOLE_PROCESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_wandb import SUMMARY, emit, sink
import logging
from lungan.tracking import wandb
wandb.CLOSE_SECONDS = float(sys.argv[4])
wandb.START_SECONDS = wandb.FINISH_SECONDS = float(sys.argv[3])
logging.basicConfig(format="%(message)s")
began = time.monotonic()
tracker = sink(Path(sys.argv[1]), mode="online")
emit(tracker, range(1, 4), SUMMARY)
emitted = time.monotonic()
tracker.close()
print(emitted - began, time.monotonic() - began, time.time())
"""


def whole_process(
    code: str,
    folder: Path,
    start_seconds: float,
    environment: dict[str, str],
    close_seconds: float = CLOSE_SECONDS,
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, str(folder), str(Path(__file__).parent)]
    command += [str(start_seconds), str(close_seconds)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=120
    )


def assert_delayed_by_seconds(done: subprocess.CompletedProcess[str], ended: float) -> None:
    emitted, closed, left = map(float, done.stdout.split())
    assert emitted < 2.0, "emitting must not wait for W&B"
    assert closed < CLOSE_SECONDS + 2.0
    assert ended - left < 10, "leaving the process must not wait for W&B either"


LEFT_BEHIND = f"W&B did not finish within {CLOSE_SECONDS:.0f} s and is left behind"


@pytest.mark.parametrize(
    ("trouble", "start_seconds"),
    [
        ("hanging_port", 2.0),
        pytest.param("closed_port", START_SECONDS, marks=pytest.mark.slow),
        pytest.param("hanging_port", START_SECONDS, marks=pytest.mark.slow),
    ],
)
def test_a_server_in_trouble_delays_a_whole_process_by_seconds(
    trouble: str, start_seconds: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    port = request.getfixturevalue(trouble)
    environment = os.environ | {
        "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        "WANDB_API_KEY": "a" * 40,
    }
    done = whole_process(WHOLE_PROCESS, tmp_path, start_seconds, environment)
    assert_delayed_by_seconds(done, time.time())
    messages = done.stderr.strip().splitlines()
    if LEFT_BEHIND in messages:  # a machine so busy that wandb's own start took all the time
        assert messages[-1].startswith("W&B lacks ")
    else:
        (message,) = messages
        assert message.startswith("W&B cannot be reached, recording offline: CommError")
        assert sorted(read(recordings(tmp_path)[0])["history"]) == [1, 2, 3]


def test_what_an_unreachable_server_does_not_take_is_recorded_offline(
    closed_port: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("lungan.tracking.wandb.START_SECONDS", 0.5)
    tracker = sink(tmp_path, mode="online")
    emit(tracker, range(1, 4), SUMMARY)
    tracker.close()
    (message,) = warnings(caplog)
    assert message.startswith("W&B cannot be reached, recording offline: CommError")
    found = read(recordings(tmp_path)[0])
    assert sorted(found["history"]) == [1, 2, 3]
    assert found["summary"]["domain_recall"] == 0.25


class Server(http.server.BaseHTTPRequestHandler):
    """As much of a W&B server as an upload asks for; subclasses have state of their own."""

    requests: list[str]
    history: dict[int, dict[str, Any]]
    images: dict[str, bytes]
    hangs: bool

    def do_POST(self) -> None:
        self.requests.append(self.requestline)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/graphql":
            if self.hangs:
                time.sleep(60)
            rows = body.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
            for number, row in enumerate(rows["content"], start=rows["offset"]):
                self.history[number] = json.loads(row)
            self.answer({})
            return
        project = {"id": "p", "name": "lungan-test", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": RUN_ID[:16], "config": "{}", "project": project}
        host = f"http://{self.headers['Host']}/upload/"
        names = body["variables"].get("files", [])
        files = [{"name": name, "uploadUrl": host + name} for name in names]
        self.answer(
            {
                "data": {
                    "model": None,
                    "upsertBucket": {"bucket": bucket, "inserted": True},
                    "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files},
                    "viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}"},
                    "serverInfo": {"features": []},
                }
            }
        )

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.images[self.path.rpartition("/")[2]] = content
        self.answer({})

    def do_CONNECT(self) -> None:
        self.requests.append(self.requestline)
        self.send_error(503)

    def answer(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    state = {"requests": [], "history": {}, "images": {}, "hangs": False}
    handler = type("Handler", (Server,), state)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_online_sends_every_epoch_and_grid(
    server: tuple[type[Server], str], tmp_path: Path
) -> None:
    handler, address = server
    environment = os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40}
    done = whole_process(WHOLE_PROCESS, tmp_path, PATIENT_SECONDS, environment, PATIENT_SECONDS)
    assert done.stderr == ""
    assert [handler.history[number]["epoch"] for number in range(3)] == [1, 2, 3]
    (grid,) = [content for name, content in handler.images.items() if name.endswith(".png")]
    sent = cv2.imdecode(np.frombuffer(grid, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(sent, pictures.grid(images(2))[..., 0])
    assert sync_command(tmp_path) is None


@pytest.mark.slow
def test_a_server_that_hangs_after_the_start_costs_seconds(
    server: tuple[type[Server], str], tmp_path: Path
) -> None:
    handler, address = server
    handler.hangs = True
    environment = os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40}
    done = whole_process(WHOLE_PROCESS, tmp_path, 1.5, environment)
    assert_delayed_by_seconds(done, time.time())
    (recording,) = (tmp_path / "wandb").glob("run-*")
    message = done.stderr.strip().splitlines()[0]
    rest = f"W&B has not taken all within 2 s; upload the rest with: wandb sync {recording}"
    assert message in (rest, LEFT_BEHIND)
    assert sorted(read(recording)["history"]) == [1, 2, 3]


def test_the_sync_line_uploads_a_continued_run_whole(
    server: tuple[type[Server], str], tmp_path: Path
) -> None:
    handler, address = server
    for epoch in (1, 2):
        names.append_line(tmp_path / names.METRICS, metrics(epoch))
    tracker = sink(tmp_path)
    emit(tracker, range(3, 5), SUMMARY)
    tracker.close()
    line = sync_command(tmp_path)
    assert line is not None
    command = [sys.executable, "-m", *shlex.split(line)]
    environment = os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40}
    environment.pop("WANDB_SERVICE", None)
    subprocess.run(command, capture_output=True, env=environment, check=True, timeout=60)
    assert [handler.history[number]["epoch"] for number in range(4)] == [1, 2, 3, 4]
    assert sync_command(tmp_path) is None, "uploaded, so there is nothing left to say"


@pytest.mark.parametrize("mode", ["offline", pytest.param("online", marks=pytest.mark.slow)])
def test_only_online_asks_anything_of_the_network(
    mode: str, server: tuple[type[Server], str], tmp_path: Path
) -> None:
    handler, proxy = server
    environment = {key: value for key, value in os.environ.items() if key != "NO_PROXY"}
    environment.pop("WANDB_ERROR_REPORTING")
    environment |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "WANDB_API_KEY": "a" * 40}
    code = WHOLE_PROCESS.replace("online", mode)
    whole_process(code, tmp_path, 1.0, environment, PATIENT_SECONDS)
    assert bool(handler.requests) == (mode == "online")
    assert len(recordings(tmp_path)) == 1


def test_names_and_summaries_for_wandb() -> None:
    assert wandb_name("domain.frechet_distance.floor") == "domain_frechet_distance_floor"
    assert flat_summary({"status": "done", "reason": None, "scores": None}) == {"status": "done"}
