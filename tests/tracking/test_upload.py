"""A sweep trained without a tracker, uploaded afterwards to a W&B server that has its troubles."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from lungan import upload as command
from lungan.models.saving import load_generator
from lungan.runs.folder import read_metrics, real_images_path, sample_path
from lungan.tracking import upload
from lungan.tracking.records import TrackedRun
from lungan.tracking.wandb import SENT, wandb_name
from lungan.train import main as train

NAMES = ["lr=0.0003 seed=1", "lr=0.0003 seed=2", "lr=0.001 seed=1", "lr=0.001 seed=2"]
EPOCHS = 3

Environment = dict[str, str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a 2x2 sweep with scores, trained with ``tracker=none``."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = ["generator.width=8", "discriminator.width=8", "data.num_images=256"]
    overrides += ["data.num_test=64", "batch_size=64", "threads=1", "precision=fp32"]
    overrides += ["score=fast", "score.encoders=[contrast]"]  # which needs no training
    overrides += ["samples_every_epochs=2", f"epochs={EPOCHS}", f"store={folder / 'runs'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(folder / "cache"))
        swept = ["lr=0.0003,0.001", "seed=1,2"]
        assert train(["--multirun", "--sweep", "study", *overrides, *swept]) == 0
    return folder / "runs"


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def run_upload(
    store: Path, environment: Environment, *options: str, **keywords: Any
) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "lungan.upload", str(store), *options]
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=100, **keywords
    )


def folders(store: Path) -> list[Path]:
    return sorted(path.parent for path in store.glob("*/config.yaml"))


def assert_whole(server: Any, store: Path) -> None:
    """Every run is there, and every metric, grid and score of it exactly once."""
    by_name = {run.properties["displayName"]: run for run in server.runs.values()}
    assert sorted(by_name) == NAMES and len(server.runs) == len(NAMES)
    for folder, name in zip(folders(store), NAMES, strict=True):
        assert_whole_run(by_name[name], folder)


def assert_whole_run(run: Any, folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    rows = read_metrics(folder)
    assert run.values("epoch")[:EPOCHS] == [1, 2, 3]
    for key in rows[0]:
        sent = run.values("seconds_epoch" if key == "seconds" else key)
        assert sent[:EPOCHS] == [row[key] for row in rows], key
        assert len(sent) == EPOCHS or key == "epoch", key
    assert len(run.values("samples")) == len(list((folder / "samples").glob("epoch_*.png")))
    for grid in run.values("samples"):
        epoch = next(row["epoch"] for row in run.history if row.get("samples") == grid)
        with Image.open(sample_path(folder, epoch)) as ours:
            assert run.files[grid["path"]] == sample_path(folder, epoch).read_bytes()
            assert (grid["width"], grid["height"]) == ours.size
    scores = {key: v for key, v in summary["scores"]["values"].items() if v is not None}
    assert any(key.endswith(".floor") for key in scores)
    for key, value in scores.items():
        assert run.values(wandb_name(key)) == [value], key
        assert run.summary[wandb_name(key)] == value
    assert run.summary["loss_generator"]["min"] == min(row["loss_generator"] for row in rows)
    assert run.summary["loss_generator"]["last"] == rows[-1]["loss_generator"]
    assert run.summary["status"] == "done" and run.exit_code == 0
    (table,) = run.values("score_table")
    content = json.loads(run.files[table["path"]])
    assert content["columns"][:3] == ["encoder", "score", "value"]
    recall = next(row for row in content["data"] if row[:2] == ["contrast", "recall"])
    assert recall[2] == scores["contrast.recall"]
    assert recall[content["columns"].index("floor")] == scores["contrast.recall.floor"]


def test_a_sweep_of_untracked_runs_is_there_whole_and_is_sent_once(
    server: Any, account: Environment, store: Path
) -> None:
    done = run_upload(store, account, "--sweep", "study", "--project", "mine", "--entity", "me")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "4 of 4 runs uploaded"
    assert_whole(server, store)
    for run in server.runs.values():
        given = run.properties
        assert (given["project"], given["entity"]) == ("mine", "me")
        assert (given["groupName"], given["jobType"]) == ("study", "train")
        assert run.config["optimizer"]["value"]["name"] == "adam"

    num_requests = len(server.requests)
    done = run_upload(store, account, "--sweep", "study", "--project", "mine", "--entity", "me")
    assert done.stdout.splitlines()[-1] == "0 of 4 runs uploaded"
    assert len(server.requests) == num_requests, "what is there is not even asked for"


@pytest.mark.parametrize("num_streams", [2, 6])
def test_an_upload_that_is_killed_goes_on(
    num_streams: int, server: Any, account: Environment, store: Path
) -> None:
    reached = threading.Event()

    def count(path: str) -> None:
        streams = [line for line in server.requests if "file_stream" in line]
        if path.endswith("file_stream") and len(streams) >= num_streams:
            reached.set()

    server.trouble = count
    process = subprocess.Popen(
        [sys.executable, "-m", "lungan.upload", str(store), "--sweep", "study"],
        env=account,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert reached.wait(60)
    os.killpg(process.pid, signal.SIGKILL)  # wandb's own process too
    process.wait(10)
    server.trouble = lambda _: None
    assert run_upload(store, account, "--sweep", "study").returncode == 0
    assert_whole(server, store)


def test_what_a_run_gained_is_sent_and_nothing_is_there_twice(
    server: Any, account: Environment, store: Path
) -> None:
    run = folders(store)[0]
    assert run_upload(store, account, run.name).returncode == 0
    (stored,) = server.runs.values()
    assert stored.values("real_images") == []

    (run / "wandb" / SENT).unlink()  # the upload lost its own record
    assert run_upload(store, account, run.name).returncode == 0
    assert len(stored.history) == EPOCHS + 1
    assert_whole_run(stored, run)

    summary = json.loads((run / "summary.json").read_text())
    summary["scores"] |= {"scoring_id": "another"}
    summary["scores"]["values"] |= {"other.recall": 0.5}
    (run / "summary.json").write_text(json.dumps(summary))
    for num_new in (1, 0):
        done = run_upload(store, account, run.name, "--real-images")
        assert done.stdout.splitlines()[-1] == f"{num_new} of 1 runs uploaded"
    (grid,) = stored.values("real_images")
    assert stored.files[grid["path"]] == real_images_path(run).read_bytes()
    assert stored.summary["other_recall"] == 0.5
    (table,) = stored.values("score_table")
    assert json.loads(stored.files[table["path"]])["data"][-1][:3] == ["other", "recall", 0.5]
    assert stored.values("other_recall") == []
    assert len(stored.values("loss_generator")) == EPOCHS


def assert_artifacts(server: Any, store: Path) -> None:
    """Data, generators and tables are there once and whole, in their order."""
    found = {key: each for key, each in server.artifacts.items() if "score_table" not in key}
    kinds = [each.given["artifactTypeName"] for each in found.values()]
    assert sorted(kinds) == ["dataset", "model", "model", "model", "model", "results"]
    assert {each.state for each in found.values()} == {"COMMITTED"}
    (data,) = [each for key, each in found.items() if key.startswith("data-")]
    (tables,) = [each for key, each in found.items() if key.startswith("tables-study-")]
    ids = set()
    for folder in folders(store):
        summary = json.loads((folder / "summary.json").read_text())
        run = summary["run_id"][:16]
        ids.add(run)
        assert json.loads(data.files["data.json"]) == {"data_hash": summary["data_hash"]}
        (generator,) = [each for key, each in found.items() if key.startswith(f"generator-{run}")]
        assert generator.made_by == {run} and generator.used_by == tables.made_by
        (copy := store / "copy.safetensors").write_bytes(generator.files["generator.safetensors"])
        ours = load_generator(folder / "generator.safetensors").state_dict()
        for key, tensor in load_generator(copy).state_dict().items():
            assert torch.equal(tensor, ours[key])
    assert data.used_by == ids
    for name in ("results.csv", "summary.csv", "comparisons.csv"):
        with (store / "sweeps" / "study" / name).open(newline="") as ours:
            theirs = csv.DictReader(tables.files[name].decode().splitlines())
            assert list(theirs) == list(csv.DictReader(ours))
    (maker,) = tables.made_by
    properties = server.runs[maker].properties
    assert (properties["displayName"], properties["jobType"]) == ("tables of study", "results")
    assert "groupName" not in properties, "the sweep's charts and W&B report show its runs only"


def test_artifacts_are_there_once_with_what_they_come_from_also_after_a_kill(
    server: Any,
    account: Environment,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reached = threading.Event()

    def watch(_: str) -> None:
        if len([key for key in server.artifacts if key.startswith("generator-")]) == 3:
            reached.set()

    server.trouble = watch
    line = [sys.executable, "-m", "lungan.upload", str(store), "--sweep", "study", "--artifacts"]
    process = subprocess.Popen(line, env=account, stdout=subprocess.DEVNULL, start_new_session=True)
    assert reached.wait(60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    server.trouble = lambda _: None
    done = run_upload(store, account, "--sweep", "study", "--artifacts")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "the tables of study: uploaded"
    assert_artifacts(server, store)

    num_requests = len(server.requests)
    monkeypatch.setenv("WANDB_BASE_URL", account["WANDB_BASE_URL"])
    assert command.main([str(store), "--sweep", "study", "--artifacts"]) == 0
    *_, runs, tables = capsys.readouterr().out.splitlines()
    assert (runs, tables) == ("0 of 4 runs uploaded", "the tables of study: there already")
    assert len(server.requests) == num_requests


def test_a_generators_artifact_has_file_names_in_place_of_paths(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    metadata = {"plugins": {"generator=flat": {"file": "/somewhere/private/flat.py"}}}
    tensors = {"weight": torch.ones(2)}
    safetensors.torch.save_file(
        tensors, run / "generator.safetensors", {"lungan": json.dumps(metadata)}
    )
    summary = {"run_id": "a" * 64, "data_hash": "b" * 64, "epochs_done": 1}
    tracked = TrackedRun(folder=run, run_id="a" * 64, name="", config={}, summary=summary)
    (generator,) = upload.generator_artifacts(tracked, tmp_path)
    content = Path(generator.manifest.entries["generator.safetensors"].local_path).read_bytes()
    assert b"flat.py" in content and b"private" not in content


def test_artifacts_without_tables_or_network_are_refused_in_a_line(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(store), "--sweep", "study", "--artifacts"]
    assert command.main([*arguments, "--offline"]) == 2
    assert "does not go with --offline" in capsys.readouterr().err
    shutil.rmtree(store / "sweeps" / "study")
    assert command.main(arguments) == 2
    assert "has no tables to send; python -m lungan.results" in capsys.readouterr().err


def test_a_server_that_refuses_is_one_line_and_exit_code_2(
    server: Any, account: Environment, store: Path
) -> None:
    run = folders(store)[0]
    for status in (401, 500):
        server.trouble = lambda _, status=status: status
        done = run_upload(store, account | {"WANDB_INIT_TIMEOUT": "1"}, run.name)
        assert done.returncode == 2
        assert "the same command" in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr
    server.trouble = lambda _: None
    assert run_upload(store, account, run.name).returncode == 0
    assert_whole_run(server.runs[next(iter(server.runs))], run)


def test_offline_recordings_are_those_that_wandb_sync_sends(
    server: Any,
    account: Environment,
    store: Path,
    tmp_path: Path,
    read: Callable[[Path], dict[str, Any]],
) -> None:
    offline = functools.partial(run_upload, store, cwd=tmp_path)
    done = offline(dict(os.environ), "--sweep", "study", "--offline")
    assert (done.returncode, done.stderr) == (0, "")
    recordings = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(recordings) == len(NAMES)
    assert sorted(read(each)["run"]["display_name"] for each in recordings) == NAMES

    remembered = tmp_path / "wandb" / SENT
    sent = json.loads(remembered.read_text())
    sent.popitem()
    remembered.write_text(json.dumps(sent))  # as if it had been killed while it recorded the last
    done = offline(dict(os.environ), "--sweep", "study", "--offline")
    assert done.stdout.splitlines()[-2] == "1 of 4 runs recorded"
    recordings = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(recordings) == len(NAMES), "the broken one is replaced"

    line = [sys.executable, "-m", "wandb", "sync", "--yes"]
    subprocess.run(line, env=account, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    assert_whole(server, store)


def test_offline_recordings_lie_where_wandb_dir_says(
    store: Path, tmp_path: Path, read: Callable[[Path], dict[str, Any]]
) -> None:
    there, run = tmp_path / "there", folders(store)[0]
    done = run_upload(
        store, os.environ | {"WANDB_DIR": str(there)}, run.name, "--offline", cwd=tmp_path
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"to send them: cd {there} && wandb sync"
    (recording,) = (there / "wandb").glob("offline-run-*")
    assert read(recording)["run"]["display_name"] == NAMES[0]
    assert not (tmp_path / "wandb").exists() and not (run / "wandb").exists()


def test_an_upload_under_an_agent_is_refused_in_a_line(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    assert command.main([str(store)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a W&B agent's process has one run of its own" in line


def test_without_a_login_the_command_says_what_to_do(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(store)]) == 2
    assert "wandb login" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["WANDB_MODE=disabled", "WANDB_DISABLED=true"])
def test_a_site_that_forbids_wandb_is_obeyed(
    variable: str, server: Any, account: Environment, store: Path
) -> None:
    key, _, value = variable.partition("=")
    done = run_upload(store, account | {key: value}, "--sweep", "study")
    assert done.returncode == 2 and key in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "the store must be a folder of runs, got nowhere"),
        (["{store}", "--sweep", "nope"], "nope.json cannot be read"),
        (["{store}", "12345678"], "has no run named 12345678"),
        (["{store}", "12345678", "--sweep", "study"], "not both"),
    ],
)
def test_what_is_not_there_is_one_line(
    arguments: list[str], complaint: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([each.format(store=store) for each in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_unfinished_runs_are_named_and_passed_over(store: Path) -> None:
    unfinished = folders(store)[1]
    (unfinished / "summary.json").unlink()
    runs, passed_over = upload.choose_runs(store, "study", [])
    assert [run.name for run in runs] == [NAMES[0], *NAMES[2:]]
    assert passed_over == [f"{unfinished.name} has not finished: train it to its end first"]


def test_nothing_of_the_machine_is_sent(server: Any, account: Environment, store: Path) -> None:
    secret = account | {"SECRET_OF_MINE": "xyzzy-secret"}
    run = folders(store)[0]
    assert run_upload(store, secret, run.name).returncode == 0
    (stored,) = server.runs.values()
    sent = json.dumps([stored.properties, stored.config, stored.summary, stored.history])
    sent += " ".join(
        content.decode() for path, content in stored.files.items() if not path.endswith(".png")
    )
    for private in ("xyzzy-secret", "a" * 40, str(store.parent), f'"{socket.gethostname()}"'):
        assert private not in sent
    assert not [path for path in stored.files if path.startswith("/")]
