"""Real signals to real processes: what is stopped goes on, and nothing of it is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import lungan
from lungan.runs.run import StopSignal
from lungan.train import main

EPOCHS = 24
LONG = (f"epochs={EPOCHS}", "checkpoint_every_epochs=3", "batch_size=16")
NUM_KILLS = 3
PATIENCE_SECONDS = 200

SameBits = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_overrides: Sequence[str]) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    assert main([*tiny_overrides, *LONG, f"store={store}"]) == 0
    return store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_checkpoint_and_the_same_command_goes_on(
    number: signal.Signals,
    tmp_path: Path,
    tiny_overrides: Sequence[str],
    undisturbed: Path,
    same_bits: SameBits,
) -> None:
    command = [*tiny_overrides, *LONG]
    process = subprocess.Popen(
        [sys.executable, "-m", "lungan.train", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(lungan.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    store = tmp_path / "runs"
    wait_for(lambda: num_epochs(store) >= 2, process.poll)
    process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 130, errors
    assert output == ""
    assert "Traceback" not in errors
    *_, said, last = errors.splitlines()
    assert said == f"{number.name}: stopping after this step with a checkpoint"
    assert last == "interrupted, checkpoint written; the same command goes on"
    (folder,) = store.glob("phantom*")
    left = {path.name for path in folder.iterdir()}
    assert left == {"config.yaml", "log.txt", "metrics.jsonl", "checkpoint.pt", "figures"}
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)["state"]
    assert saved["epoch"] == num_epochs(store) < EPOCHS

    assert main([*command, f"store={store}"]) == 0
    same_bits(store, undisturbed)


def test_kill_9_at_any_moment_loses_no_bit(
    tmp_path: Path,
    tiny_overrides: Sequence[str],
    undisturbed: Path,
    start_train: Callable[..., Any],
    same_bits: SameBits,
) -> None:
    rng = random.Random(20)
    command = [*tiny_overrides, *LONG]
    store = tmp_path / "runs"
    killed_at = []
    while len(killed_at) < NUM_KILLS:
        process = start_train(*command, f"store={store}")
        began = num_epochs(store)
        wanted = min(began + rng.randrange(1, 7), EPOCHS - 2)
        wait_for(lambda: num_epochs(store) >= wanted, lambda: process.exitcode)  # noqa: B023
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == -signal.SIGKILL
        assert not list(store.glob("*/summary.json"))
        killed_at.append(num_epochs(store))
    assert killed_at[-1] > killed_at[0] > 0

    process = start_train(*command, f"store={store}")
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 0
    same_bits(store, undisturbed)


def num_epochs(store: Path) -> int:
    """Whole lines in the run's metrics."""
    return sum(path.read_bytes().count(b"\n") for path in store.glob("*/metrics.jsonl"))


def wait_for(what: Callable[[], bool], exit_code: Callable[[], int | None]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert exit_code() is None, "the process ended by itself"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def test_an_interrupt_that_an_import_turns_into_another_error_stops_all_the_same() -> None:
    stop = StopSignal()
    with stop.installed():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert stop.requested()
