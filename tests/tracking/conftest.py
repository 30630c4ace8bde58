"""W&B without an account: no login, no variables of the machine's user, and a server of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import wandb_server

Environment = dict[str, str]
PATIENT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def own_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No account of the machine's user, and no W&B session that outlives the test."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-settings"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    # What a tracker records is another question than how long a run waits for it.
    monkeypatch.setattr("lungan.tracking.live.END_SECONDS", PATIENT_SECONDS)
    if sys.modules.get("wandb") is not None:
        sys.modules["wandb"].teardown()
    yield
    if sys.modules.get("wandb") is not None:
        sys.modules["wandb"].teardown()
        sys.modules["wandb"].run = None


@pytest.fixture
def server() -> Iterator[wandb_server.WandbServer]:
    with wandb_server.serving() as state:
        yield state


@pytest.fixture
def account(server: wandb_server.WandbServer) -> Environment:
    """The environment of a process with a login at the server."""
    found = os.environ | {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "a" * 40}
    found.pop("WANDB_SERVICE", None)
    return found


def read_recording(recording: Path) -> dict[str, Any]:
    """What W&B's own reader finds: run, history rows in order, summary, metrics, exit_code."""
    from wandb.util import get_core_path

    (path,) = recording.glob("*.wandb")
    # What `wandb leet inspect --json` runs, without the second that its command line takes.
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command += ["--run-file", str(path), str(recording.parent)]
    # On a busy machine a recording was once read before it held its first record, the run.
    for _ in range(20):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if any(record["type"] == "run" for record in lines):
            break
        time.sleep(0.5)
    found: dict[str, Any] = {"history": [], "summary": {}, "metrics": {}, "exit_code": None}
    for record in lines:
        content = record.get(record["type"], {})
        match record["type"]:
            case "run":
                found["run"] = content
            case "history":
                found["history"].append(content["item"] | {"step": content["step"]["num"]})
            case "config":
                found["config"] = content["update"]
            case "summary":
                found["summary"] |= content["update"]
            case "metric":
                found["metrics"][content.get("name") or content["glob_name"]] = content
            case "exit":
                found["exit_code"] = content["exit_code"]
    return found


@pytest.fixture
def read() -> Callable[[Path], dict[str, Any]]:
    """Reads an offline recording with W&B's own reader."""
    return read_recording
