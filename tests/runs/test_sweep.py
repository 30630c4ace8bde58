"""Sweeps: killed, shared, failing, continued, and the same table in the end."""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lungan import train
from lungan.cli import FAILED
from lungan.config import DataConfig, RunConfig
from lungan.errors import ConfigError
from lungan.launchers.local import LocalConfig, LocalLauncher
from lungan.runs import jobs, sweep
from lungan.runs import prepare as prepared
from lungan.runs import run as runs
from lungan.runs.prepare import prepare
from lungan.runs.store import Claimed, Store, store_path

Tiny = Callable[..., RunConfig]
Ledger = Callable[[Path, str], list[dict[str, Any]]]

GRID = ("optimizer=adam,rmsprop", "epochs=2,4")
NUM_RUNS = 4


def run_sweep(*configs: RunConfig, dry_run: bool = False, name: str = "t") -> int:
    """What the command does; gives its exit code."""
    pairs = [(config, {"seed": str(config.seed)}) for config in configs]
    launcher = LocalLauncher(LocalConfig(n_jobs=1))
    return train.sweep(pairs, launcher, name=name, question="Why?", dry_run=dry_run)


def table(store: Path, name: str = "t") -> list[dict[str, str]]:
    with (store / "sweeps" / name / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def outcome(rows: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    """What a table says, without times."""
    timed = ("seconds", "time", "git", "created")
    return [
        tuple(v for k, v in row.items() if not any(word in k for word in timed)) for row in rows
    ]


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def wait(process: Any, seconds: float = 240) -> int:
    process.join(seconds)
    assert process.exitcode is not None, "still running"
    return int(process.exitcode)


def arguments(store: Path, overrides: Sequence[str], tiny_overrides: Sequence[str]) -> list[str]:
    return ["--multirun", "--sweep", "t", *tiny_overrides, f"store={store}", *overrides]


@pytest.mark.timeout(900)
def test_a_sweep_killed_at_random_gives_the_table_of_an_undisturbed_one(
    tmp_path: Path,
    start_train: Callable[..., Any],
    tiny_overrides: Sequence[str],
    same_bits: Callable[[Path, Path], None],
) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert wait(start_train(*arguments(calm, GRID, tiny_overrides))) == 0
    chance = random.Random(5)
    for _ in range(4):
        process = start_train(*arguments(killed, GRID, tiny_overrides))
        enough = count_files(killed) + chance.randint(1, 8)
        while count_files(killed) < enough and process.exitcode is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert wait(start_train(*arguments(killed, GRID, tiny_overrides))) == 0
    same_bits(killed, calm)
    assert outcome(table(killed)) == outcome(table(calm))
    assert len(table(calm)) == NUM_RUNS
    assert not list(killed.glob("*/claim.json")) and not list(killed.glob("*/.*"))


@pytest.mark.parametrize("num_processes", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_many_processes_on_one_store_do_each_run_once(
    tmp_path: Path,
    start_train: Callable[..., Any],
    tiny_overrides: Sequence[str],
    ledger: Ledger,
    num_processes: int,
) -> None:
    command = arguments(tmp_path, GRID, tiny_overrides)
    processes = [start_train(*command) for _ in range(num_processes)]
    assert [wait(process) for process in processes] == [0] * num_processes
    lines = ledger(tmp_path, "t")
    assert len(lines) == len({line["run_id"] for line in lines}) == NUM_RUNS
    assert {line["status"] for line in lines} == {"done"}
    assert [row["status"] for row in table(tmp_path)] == ["done"] * NUM_RUNS
    rows = sum(len(p.read_text().splitlines()) for p in tmp_path.glob("*ep*/metrics.jsonl"))
    assert rows == 2 * (2 + 4)


def test_ctrl_c_stops_with_a_checkpoint_and_the_command_goes_on(
    tmp_path: Path, start_train: Callable[..., Any], tiny_overrides: Sequence[str]
) -> None:
    command = arguments(tmp_path, ["epochs=300"], tiny_overrides)
    process = start_train(*command)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    assert wait(process) == 130
    folder = next(tmp_path.glob("*300ep*"))
    assert (folder / "checkpoint.pt").exists() and not (folder / "summary.json").exists()
    assert not (folder / "claim.json").exists()
    assert not (tmp_path / "sweeps" / "t.ledger.jsonl").exists()


@pytest.mark.usefixtures("no_curves")
def test_one_bad_run_does_not_stop_the_others(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    real = runs.train

    def broken(config: RunConfig, *rest: Any, **named: Any) -> None:
        if config.seed == 1:
            raise RuntimeError("the cable is out")
        real(config, *rest, **named)

    configs = [tiny(f"seed={seed}", "epochs=1") for seed in (0, 1, 2)]
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", broken)
        assert run_sweep(*configs) == FAILED
    assert [line["status"] for line in ledger(store, "t")] == ["done", "failed", "done"]
    assert ledger(store, "t")[1]["reason"] == "RuntimeError: the cable is out"
    rows = {row["seed"]: row["status"] for row in table(store)}
    assert rows == {"0": "done", "1": "failed", "2": "done"}
    log = next(store.glob("*-s1-*")) / "log.txt"
    assert "Traceback" in log.read_text() and "the cable is out" in log.read_text()

    assert run_sweep(*configs) == 0
    assert [row["status"] for row in table(store)] == ["done"] * 3
    assert len(ledger(store, "t")) == 4


@pytest.mark.usefixtures("no_curves")
def test_a_diverged_run_is_a_result_of_the_sweep(tiny: Tiny, tmp_path: Path) -> None:
    configs = [tiny("optimizer=sgd", "epochs=1", f"lr={lr}") for lr in ("0.001", "1e30")]
    assert run_sweep(*configs) == 0
    assert sorted(row["status"] for row in table(tmp_path / "store")) == ["diverged", "done"]


@pytest.mark.usefixtures("no_curves")
def test_what_was_not_done_shows_as_missing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    configs = [tiny(f"seed={seed}", "epochs=1") for seed in (0, 1)]
    run_sweep(configs[0])
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "run", interrupted)
        assert run_sweep(*configs) == 130
    sweep.write_results(tmp_path / "store", "t")
    assert [row["status"] for row in table(tmp_path / "store")] == ["done", "missing"]


@pytest.mark.usefixtures("no_curves")
def test_extending_a_sweep_pays_only_for_what_is_new(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(tiny("epochs=2"))
    assert run_sweep(tiny("epochs=2"), tiny("epochs=5"), tiny("epochs=3")) == 0
    said = capsys.readouterr().out
    assert "3 runs on 1 trajectories: 1 done, 2 to continue" in said
    assert "3 epochs to train, 5 saved" in said
    manifest = json.loads((tmp_path / "store" / "sweeps" / "t.json").read_text())
    assert sorted(run["epochs"] for run in manifest["runs"]) == [2, 3, 5]
    longest = next((tmp_path / "store").glob("*-5ep-*"))
    summary = json.loads((longest / "summary.json").read_text())
    assert "-3ep-" in summary["continued_from"]


def test_a_dry_run_writes_nothing(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_sweep(tiny("epochs=1"), tiny("epochs=2"), dry_run=True) == 0
    said = capsys.readouterr().out
    assert "1 to continue, 1 to start" in said and "continue  epochs=2 (phantom28-dcgan-" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("no_curves")
def test_a_damaged_run_folder_fails_alone(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configs = [tiny(f"seed={seed}", "epochs=1") for seed in (0, 1)]
    with caplog.at_level("INFO", "lungan"):
        assert run_sweep(*configs) == 0
    for seed in (0, 1):
        assert f"seed={seed}: epoch 1/1: losses generator" in caplog.text
        assert f"seed={seed} (phantom28-dcgan-bce-adam" in caplog.text
    summary = next((tmp_path / "store").glob("*-s0-*")) / "summary.json"
    summary.write_text("{")
    caplog.clear()
    assert run_sweep(*configs) == FAILED
    assert "seed=0 (phantom28-dcgan-bce-adam" in caplog.text
    assert caplog.messages[-2].startswith("  seed=0 (phantom28-dcgan-bce-adam")
    summary.unlink()
    assert run_sweep(*configs) == 0


@pytest.mark.usefixtures("no_curves")
def test_a_renamed_run_folder_is_still_the_runs(tiny: Tiny, tmp_path: Path) -> None:
    run_sweep(tiny("epochs=1"))
    folder = next((tmp_path / "store").glob("*ep*"))
    folder.rename(folder.with_name("mine-" + folder.name.rpartition("-")[2]))
    assert run_sweep(tiny("epochs=1")) == 0
    assert [row["status"] for row in table(tmp_path / "store")] == ["done"]


def test_one_store_for_all_runs(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="store must be the same for all runs of a sweep"):
        run_sweep(tiny("epochs=1"), tiny("epochs=2", store="x"))


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_another_process_has_is_waited_for_and_said_once(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny("epochs=1")
    claimed = Store(store_path(config)).claim(prepare(config).identity)
    assert isinstance(claimed, Claimed)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    tries = []

    def released_at_the_third(*given: Any, **more: Any) -> object:
        tries.append(given)
        if len(tries) == 3:
            claimed.claim.release()
        return runs.run(*given, **more)

    monkeypatch.setattr(sweep, "run", released_at_the_third)
    with caplog.at_level(logging.INFO, "lungan"):
        assert run_sweep(config) == 0
    said = [record.getMessage() for record in caplog.records]
    assert sum(f"is under way in process {os.getpid()} on " in text for text in said) == 1
    assert said[-1].endswith(": done")


@pytest.mark.parametrize(("most", "read"), [(1, "aba"), (2, "ab")])
def test_a_data_set_is_read_once_while_it_is_kept(
    most: int, read: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"a": tiny("data.seed=1").data, "b": tiny("data.seed=2").data}
    asked: list[DataConfig] = []
    monkeypatch.setattr(prepared, "load_sets", asked.append)
    load = prepared.reader_of_sets(most)
    for name in "aabba":
        load(sets[name])
    assert asked == [sets[name] for name in read]
