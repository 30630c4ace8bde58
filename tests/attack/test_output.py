"""Output that nobody reads, terminals that go away, and signals: the run is what matters."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lungan.cli import INTERRUPTED, run_command
from lungan.runs.run import StopSignal
from tests.attack.conftest import Start

PATIENCE_SECONDS = 200


def summaries(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in folder.glob("runs/*/summary.json")]


def is_done(folder: Path) -> bool:
    return [summary["status"] for summary in summaries(folder)] == ["done"]


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert process.poll() is None, "the process ended by itself"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def num_epochs(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("runs/*/metrics.jsonl"))


def test_a_reader_that_leaves_after_a_line_ends_no_run(start: Start, tmp_path: Path) -> None:
    process = start("train", "epochs=4", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert is_done(tmp_path)


@pytest.mark.parametrize("redirection", ["2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_output_that_cannot_be_written_ends_no_run(
    redirection: str, start: Start, tmp_path: Path
) -> None:
    process = start("train", "epochs=2", before=("sh", "-c", f'exec "$@" {redirection}', "sh"))
    assert process.wait(PATIENCE_SECONDS) == 0
    assert is_done(tmp_path)


def test_a_terminal_that_goes_away_ends_no_run_under_nohup(start: Start, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(
        "train",
        "epochs=6",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    wait_for(lambda: num_epochs(tmp_path) >= 1, process)
    os.close(ours)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert is_done(tmp_path)
    assert "Traceback" not in next(tmp_path.glob("runs/*/log.txt")).read_text()


def test_a_lost_terminal_stops_with_a_checkpoint(start: Start, tmp_path: Path) -> None:
    process = start("train", "epochs=500", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: num_epochs(tmp_path) >= 1, process)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))
    assert not summaries(tmp_path)


@pytest.mark.parametrize("pause_seconds", [0.0, 0.02, 0.1])
def test_two_interrupts_leave_a_run_that_goes_on(
    pause_seconds: float, start: Start, tmp_path: Path
) -> None:
    process = start("train", "epochs=500", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: num_epochs(tmp_path) >= 1, process)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(pause_seconds)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not summaries(tmp_path)
    assert not list(tmp_path.glob("runs/*/claim.json"))


INTERRUPTED_AT = """
import runpy, signal, sys
seconds, module, *arguments = sys.argv[1:]
sys.argv = ["-m", *arguments]
import lungan
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
signal.setitimer(signal.ITIMER_REAL, float(seconds))
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""A command that gets an interrupt so many seconds after its first instruction of lungan's own."""


def assert_one_line_if_interrupted_at(seconds: float, start: Start, *arguments: str) -> None:
    process = start(
        *arguments,
        python=("-c", INTERRUPTED_AT, f"{seconds:.4f}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    # Python takes its handlers away while it ends: then the alarm came too late to interrupt.
    quicker = (0, 2, -signal.SIGALRM)
    assert process.returncode in (*quicker, 130), f"after {seconds:.4f} s: {errors}"
    assert "Traceback" not in errors, f"after {seconds:.4f} s: {errors}"
    if process.returncode == 130:
        assert "interrupted" in errors.splitlines()[-1]


@pytest.mark.parametrize("command", ["train", "results", "generate", "search", "score"])
@pytest.mark.parametrize("seconds", [0.005, 0.1])
def test_an_interrupt_while_a_command_starts_is_one_line(
    command: str, seconds: float, start: Start
) -> None:
    assert_one_line_if_interrupted_at(seconds, start, command)


@pytest.mark.slow
def test_an_interrupt_at_any_moment_is_one_line(start: Start, tmp_path: Path) -> None:
    rng = random.Random(7)
    for _ in range(60):
        assert_one_line_if_interrupted_at(rng.uniform(0.005, 4), start, "train", "epochs=3")
        assert not [s for s in summaries(tmp_path) if s["status"] == "failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_that_python_drops_is_raised_again(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def command() -> int:
        with StopSignal().installed():
            thing = Dropped()
            del thing
            time.sleep(60)
        return 0

    before = signal.signal(number, signal.default_int_handler)  # nohup has SIGHUP ignored
    try:
        assert run_command(command) == INTERRUPTED
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"
