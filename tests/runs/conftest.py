"""Runs of a second or less, and the train command in processes that can be killed."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lungan.config import RunConfig, compose
from lungan.runs import pictures

TINY = (
    "generator.width=8",
    "discriminator.width=8",
    "data.num_images=64",
    "data.num_test=8",
    "batch_size=32",
    "score=none",
    "threads=1",
    "precision=fp32",
    "samples_every_epochs=0",
    "checkpoint_every_epochs=2",
)

Start = Callable[..., Any]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def quiet_machine(shared_cache: Path) -> Iterator[None]:
    """A cache of its own and one thread, here and in processes started from here."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(shared_cache))
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@functools.cache
def _compose(*overrides: str) -> RunConfig:
    with compose.composer():
        return compose.compose([*TINY, *overrides])


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., RunConfig]:
    """A tiny run's config from overrides, in the store ``tmp_path / store``."""

    def make(*overrides: str, store: str = "store") -> RunConfig:
        return dataclasses.replace(_compose(*overrides), store=str(tmp_path / store))

    return make


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process without the plot, which takes longer than their training."""
    monkeypatch.setattr(pictures, "write_loss_curves", lambda *_: None)


@pytest.fixture(scope="session")
def tiny_overrides() -> Sequence[str]:
    """What makes a run take well under a second."""
    return TINY


@pytest.fixture
def start_train() -> Start:
    """The train command in a process of its own: ``start_train("--multirun", ...)``.

    The processes are forked from one that has imported everything, so that each is cheap.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["lungan.runs.sweep", "lungan.config.compose", "lungan.results.report"]
    )

    def start(*arguments: str) -> Any:
        code = (
            "import sys\n"
            "import lungan.runs.jobs\n"
            "import lungan.train\n"
            "lungan.runs.jobs.POLL_SECONDS = 0.2\n"
            f"sys.exit(lungan.train.main({list(arguments)!r}))\n"
        )
        process = context.Process(target=exec, args=(code, {}))
        process.start()
        return process

    return start


@pytest.fixture
def stopped_sweep(
    tmp_path: Path, start_train: Start, tiny_overrides: Sequence[str]
) -> Callable[..., None]:
    """``stopped_sweep(signal, under_way, *launcher)``: a sweep of three endless runs gets the
    signal once ``under_way`` of them train, and must leave their checkpoints and no claim."""

    def stopped(signal_number: int, under_way: int, *launcher: str) -> None:
        process = start_train(
            *["--multirun", "--sweep", "t", *tiny_overrides, "checkpoint_every_epochs=1000"],
            *["epochs=1000", "seed=0,1,2", f"store={tmp_path}", *launcher],
        )
        deadline = time.monotonic() + 200
        while len(list(tmp_path.glob("*/metrics.jsonl"))) < under_way:
            assert time.monotonic() < deadline and process.is_alive()
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(process.pid, signal_number)
        process.join(100)
        assert process.exitcode == 130
        assert len(list(tmp_path.glob("*/checkpoint.pt"))) == under_way
        assert not list(tmp_path.glob("*/claim.json"))

    return stopped


@pytest.fixture
def same_bits() -> Callable[[Path, Path], None]:
    """Asserts that two stores hold the same runs: weights, metrics, samples and outcomes."""

    def compare(store: Path, other: Path) -> None:
        assert _folders(store) == _folders(other)
        for name in _folders(store):
            for file in ("generator.safetensors", "config.yaml"):
                ours, theirs = (_without(root, root / name / file) for root in (store, other))
                assert ours == theirs, f"{name}/{file}"
            assert _untimed(store / name) == _untimed(other / name)
            for path in sorted((store / name / "samples").iterdir()):
                assert path.read_bytes() == (other / name / "samples" / path.name).read_bytes()
            ours, theirs = (_summary(root / name) for root in (store, other))
            for key in ("status", "run_id", "trajectory_id", "epochs_done", "continued_from"):
                assert ours[key] == theirs[key], f"{name}: {key}"

    return compare


@pytest.fixture
def ledger() -> Callable[[Path, str], list[dict[str, Any]]]:
    """A sweep's ledger, line by line."""

    def read(store: Path, sweep: str) -> list[dict[str, Any]]:
        text = (store / "sweeps" / f"{sweep}.ledger.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return read


@pytest.fixture
def untimed() -> Callable[[Path], list[dict[str, float]]]:
    """A run's metrics.jsonl, without what was timed."""
    return _untimed


def _untimed(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second")
    return [{key: row[key] for key in row if key not in timed} for row in rows]


def _folders(store: Path) -> list[str]:
    return sorted(path.parent.name for path in store.glob("*/config.yaml"))


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def _without(root: Path, path: Path) -> bytes:
    return path.read_bytes().replace(str(root).encode(), b"")
