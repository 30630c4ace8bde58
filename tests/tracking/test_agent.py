"""Under a W&B agent: a trial is one W&B run, under the agent's id, and never a multirun."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from lungan.runs.folder import read_metrics
from lungan.train import main as train

DOCS = Path(__file__).resolve().parents[2] / "docs" / "wandb.md"
TINY = ["generator.width=8", "discriminator.width=8", "data.num_images=64", "data.num_test=8"]
TINY += ["batch_size=32", "score=none", "threads=1", "precision=fp32", "epochs=2"]
PATIENT = """
import sys
from lungan.tracking import live
from lungan.train import main
live.END_SECONDS = 60.0
sys.exit(main(sys.argv[1:]))
"""


def documented_command() -> list[str]:
    """The command of docs/wandb.md's sweep.yaml, with patience."""
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    command: list[str] = yaml.safe_load(text)["command"]
    assert command[:2] == ["lungan", "train"]
    return [sys.executable, "-c", PATIENT, *command[2:]]


def assert_trials(server: Any, store: Path) -> None:
    """Two trials of one result are two whole W&B runs, under the agent's ids."""
    (folder,) = (path.parent for path in store.glob("*/summary.json"))
    assert set(server.runs) == {"trial1", "trial2"}
    losses = [row["loss_generator"] for row in read_metrics(folder)]
    for run in server.runs.values():
        assert run.values("loss_generator") == losses
        assert "lr=0.0003" in run.properties["displayName"]
        assert run.exit_code == 0


def test_a_trial_is_the_run_that_the_agent_asked_for_also_where_the_result_was_there(
    server: Any, account: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    for key in ("WANDB_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.setenv(key, account[key])
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    arguments = [*TINY, "lr=0.0003", "seed=2", "tracker=wandb", f"store={tmp_path / 'runs'}"]
    for trial in ("trial1", "trial2"):
        monkeypatch.setenv("WANDB_RUN_ID", trial)
        assert train(arguments) == 0
        wandb.teardown()  # an agent's processes have one trial each
    assert_trials(server, tmp_path / "runs")


@pytest.mark.slow
def test_wandbs_own_agent_runs_the_documented_sweep(
    server: Any, account: dict[str, str], tmp_path: Path
) -> None:
    account |= {"LUNGAN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    account |= {"WANDB_AGENT_DISABLE_FLAPPING": "true"}
    server.sweep_command = [*documented_command(), *TINY, f"store={tmp_path / 'runs'}"]
    arguments = {"lr": {"value": 0.0003}, "seed": {"value": 2}}
    server.agent_commands = [
        {"type": "run", "run_id": trial, "program": "", "args": arguments}
        for trial in ("trial1", "trial2")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "agent", "me/mine/sweep1"],
        env=account,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    assert "was finished before" in done.stdout
    assert_trials(server, tmp_path / "runs")
    assert {run.properties["sweep"] for run in server.runs.values()} == {"sweep1"}


@pytest.mark.parametrize("tracker", ["none", "wandb"])
def test_a_multirun_under_an_agent_is_refused_in_a_line(
    tracker: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    arguments = [*TINY, "seed=10,11", f"tracker={tracker}", f"store={tmp_path / 'runs'}"]
    assert train(["--multirun", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ConfigError: a W&B agent (WANDB_SWEEP_ID is set) asks for one run")
    assert not (tmp_path / "runs").exists()
