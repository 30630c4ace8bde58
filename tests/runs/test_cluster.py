"""Sweeps on a SLURM cluster (tests/slurm/setup.sh makes one of a node), on a local Ray, and by a
cluster's jobs on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lungan.config import presets

Compare = Callable[[Path, Path], None]

SLURM = (
    *("hydra/launcher=slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1"),
    *("hydra.launcher.timeout_min=30", "optimizer=adam,rmsprop", "--sweep", "t"),
)


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command itself, as a user starts it."""
    root = str(presets.conf_folder().parent)
    return subprocess.Popen(
        [sys.executable, "-m", "lungan.train", "--multirun", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )


def end(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def until(happens: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happens():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def statuses(store: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in store.glob("*/summary.json"))


def training(store: Path) -> list[str]:
    """SLURM's ids of the jobs that are in the middle of their longer run."""
    found = []
    for job in queued("--states=RUNNING"):
        logs = store.glob(f"sweeps/t/launcher/*/job-{job.partition('_')[2]}.log")
        if any(" epoch 2/" in path.read_text() for path in logs):
            found.append(job)
    return found


def queued(*options: str) -> list[str]:
    listed = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()


needs_slurm = pytest.mark.skipif(
    shutil.which("sbatch") is None, reason="no SLURM: tests/slurm/setup.sh"
)


@pytest.mark.slurm
@pytest.mark.timeout(900)
@needs_slurm
def test_jobs_that_give_way_or_are_requeued_lose_no_run(
    tmp_path: Path, same_bits: Compare, tiny_overrides: Sequence[str]
) -> None:
    """A job is told to give way, and one is queued again with no warning."""
    sweep = (*tiny_overrides, "epochs=1,1000", "checkpoint_every_epochs=100")
    store = tmp_path / "slurm"
    driver = start(*sweep, *SLURM, f"store={store}")
    gives_way, requeued = until(lambda: found if len(found := training(store)) == 2 else [])
    subprocess.run(["scontrol", "requeue", requeued], check=True)
    # scancel complains of a job that queues itself again before the signal is acknowledged.
    subprocess.run(["scancel", "--signal=USR2", gives_way], check=False, timeout=200)
    code, said = end(driver, 600)
    assert code == 0, said
    logs = "".join(path.read_text() for path in store.glob("sweeps/t/launcher/*/job-*.log"))
    assert "SIGUSR2: stopping after this step with a checkpoint" in logs
    assert statuses(store) == ["done"] * 4

    code, said = end(start(*sweep, *SLURM[-3:], f"store={tmp_path / 'here'}"), 300)
    assert code == 0, said
    same_bits(store, tmp_path / "here")


@pytest.mark.slurm
@pytest.mark.timeout(900)
@needs_slurm
def test_a_killed_job_shows_and_the_command_goes_on(
    tmp_path: Path, tiny_overrides: Sequence[str]
) -> None:
    command = (*tiny_overrides, "epochs=1000", *SLURM, f"store={tmp_path}")
    driver = start(*command)
    checkpoint = until(lambda: list(tmp_path.glob("*/checkpoint.pt")))[0]
    claim = json.loads((checkpoint.parent / "claim.json").read_text())
    os.kill(claim["pid"], signal.SIGKILL)
    code, said = end(driver, 300)
    assert code == 1 and "1 of 2 runs have no result" in said, said
    assert statuses(tmp_path) == ["done"]
    code, said = end(start(*command), 300)
    assert code == 0 and "1 done, 1 to continue" in said, said
    assert statuses(tmp_path) == ["done"] * 2


@pytest.mark.slurm
@pytest.mark.timeout(900)
@needs_slurm
def test_ctrl_c_stops_running_jobs_and_takes_waiting_ones_back(
    tmp_path: Path, tiny_overrides: Sequence[str]
) -> None:
    endless = (*tiny_overrides, "epochs=1000000", "seed=0,1", *SLURM, f"store={tmp_path}")
    driver = start(*endless)
    until(lambda: len(list(tmp_path.glob("*/metrics.jsonl"))) == 2)
    driver.send_signal(signal.SIGINT)
    code, said = end(driver, 300)
    assert code == 130, said
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 2
    assert not list(tmp_path.glob("*/claim.json")) and not queued()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_clusters_path_on_this_machine_goes_on_after_a_job_gave_way(
    tmp_path: Path, same_bits: Compare, tiny_overrides: Sequence[str]
) -> None:
    sweep = (*tiny_overrides, "optimizer=adam,rmsprop", "epochs=1,300", "--sweep", "t")
    store = tmp_path / "jobs"
    driver = start(*sweep, "hydra/launcher=submitit_local", f"store={store}")
    claim = until(lambda: list(store.glob("*-300ep-*/claim.json")))[0]
    until((claim.parent / "metrics.jsonl").exists)
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGUSR2)  # as before the time limit
    code, said = end(driver, 500)
    assert code == 0, said
    logs = [path.read_text() for path in store.glob("sweeps/t/launcher/*/job-*.log")]
    assert len(logs) == 2
    assert sum("SIGUSR2: stopping after this step with a checkpoint" in log for log in logs) == 1
    code, said = end(start(*sweep, f"store={tmp_path / 'here'}"), 500)
    assert code == 0, said
    same_bits(store, tmp_path / "here")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray: lungan[ray]")
def test_a_local_ray_does_what_one_process_does(
    tmp_path: Path, same_bits: Compare, tiny_overrides: Sequence[str]
) -> None:
    sweep = (*tiny_overrides, "optimizer=adam,rmsprop", "epochs=1,2", "--sweep", "t")
    code, said = end(start(*sweep, "hydra/launcher=ray", f"store={tmp_path / 'ray'}"), 900)
    assert code == 0, said
    code, said = end(start(*sweep, f"store={tmp_path / 'here'}"), 600)
    assert code == 0, said
    same_bits(tmp_path / "ray", tmp_path / "here")
