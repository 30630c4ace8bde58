"""The store: each run once, continued from what there is."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lungan.config import RunConfig
from lungan.errors import RunFolderError
from lungan.launchers.local import LocalConfig, LocalLauncher
from lungan.runs import run as runs
from lungan.runs.folder import Run
from lungan.runs.prepare import prepare
from lungan.runs.run import StopSignal, run
from lungan.runs.store import BusyError, Claimed, Store, claimed_finished
from lungan.runs.sweep import plan_sweep
from lungan.training.loop import Interrupted

Tiny = Callable[..., RunConfig]

HERE = LocalLauncher(LocalConfig(n_jobs=1))

pytestmark = pytest.mark.usefixtures("no_curves")


class StopAfter(StopSignal):
    """Stops at the n-th time that it is asked."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def requested(self) -> bool:
        self._times -= 1
        return self._times <= 0


def do(config: RunConfig) -> Run:
    return run(prepare(config))


def weights(result: Run) -> bytes:
    return (result.folder / "generator.safetensors").read_bytes()


def test_a_finished_run_is_reused(tiny: Tiny) -> None:
    first = do(tiny("epochs=1"))
    again = do(tiny("epochs=1", "device=cpu", "tracker=none"))
    assert not first.reused and again.reused
    assert again.summary == first.summary


def test_more_epochs_continue_and_equal_a_straight_run(
    tiny: Tiny, untimed: Callable[[Path], object]
) -> None:
    short = do(tiny("epochs=3"))
    longer = do(tiny("epochs=5"))
    straight = do(tiny("epochs=5", store="other"))
    assert longer.summary["continued_from"] == short.folder.name
    assert straight.summary["continued_from"] is None
    assert longer.summary["trajectory_id"] == short.summary["trajectory_id"]
    assert weights(longer) == weights(straight) != weights(short)
    assert untimed(longer.folder) == untimed(straight.folder)
    assert json.loads((short.folder / "summary.json").read_text()) == short.summary


@pytest.mark.parametrize("times", [1, 2, 3, 6])
def test_an_interrupted_run_continues_bit_for_bit(
    tiny: Tiny, tmp_path: Path, untimed: Callable[[Path], object], times: int
) -> None:
    config = tiny("epochs=4")
    with pytest.raises(Interrupted):
        run(prepare(config), stop=StopAfter(times))
    folder = next((tmp_path / "store").glob("*ep*"))
    assert not (folder / "summary.json").exists() and not (folder / "claim.json").exists()
    continued = do(config)
    straight = do(tiny("epochs=4", store="other"))
    assert weights(continued) == weights(straight)
    assert untimed(continued.folder) == untimed(straight.folder)


def test_a_schedule_that_knows_its_end_continues_nothing(tiny: Tiny) -> None:
    do(tiny("epochs=1", "schedule=linear"))
    assert do(tiny("epochs=2", "schedule=linear")).summary["continued_from"] is None


def test_a_failed_run_is_recorded_and_retried(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the cable is out")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", broken)
        with pytest.raises(RuntimeError, match="cable"):
            do(tiny("epochs=1"))
    folder = next((tmp_path / "store").glob("*ep*"))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("failed", "RuntimeError: the cable is out")
    assert "Traceback" in (folder / "log.txt").read_text()
    assert not (folder / "claim.json").exists()
    result = do(tiny("epochs=1"))
    assert result.summary["status"] == "done" and not result.reused


def test_a_diverged_run_is_a_result_unless_asked_for(tiny: Tiny) -> None:
    diverging = ("epochs=1", "optimizer=sgd", "lr=1e30")
    first = do(tiny(*diverging))
    assert first.summary["status"] == "diverged" and not first.reused
    assert "epoch 1" in first.summary["reason"]
    assert do(tiny(*diverging)).reused
    again = do(tiny(*diverging, "retry=diverged"))
    assert again.summary["status"] == "diverged" and not again.reused


def test_of_many_takers_one_wins(tiny: Tiny, tmp_path: Path) -> None:
    identity = prepare(tiny("epochs=1")).identity
    barrier, found = threading.Barrier(8), []
    busy: list[BusyError] = []

    def take() -> None:
        barrier.wait()
        try:
            found.append(Store(tmp_path / "store").claim(identity))
        except BusyError as error:
            busy.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1 and len(busy) == 7
    assert isinstance(found[0], Claimed)
    found[0].claim.release()


def test_a_live_owner_elsewhere_is_respected_and_a_silent_one_replaced(
    tiny: Tiny, tmp_path: Path
) -> None:
    prepared = prepare(tiny("epochs=1"))
    folder = tmp_path / "store" / prepared.identity.name
    folder.mkdir(parents=True)
    owner = {"host": "far", "system": "x", "pid": 1, "started": "1", "token": "t"}
    (folder / "claim.json").write_text(json.dumps(owner))
    with pytest.raises(BusyError, match="under way in process 1 on far"):
        run(prepared)
    assert Store(tmp_path / "store").is_busy(prepared.identity)
    silent = time.time() - 1000
    os.utime(folder / "claim.json", (silent, silent))
    assert not Store(tmp_path / "store").is_busy(prepared.identity)
    assert run(prepared).summary["status"] == "done"


def test_a_longer_run_waits_for_the_shorter_one(tiny: Tiny, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    shorter, longer = (prepare(tiny(f"epochs={epochs}")).identity for epochs in (2, 5))
    claimed = store.claim(shorter)
    assert isinstance(claimed, Claimed)
    with pytest.raises(BusyError, match=f"{claimed.folder.name} is under way"):
        store.claim(longer)
    claimed.claim.release()
    after = store.claim(longer)
    assert isinstance(after, Claimed) and after.shorter is None
    after.claim.release()


def test_of_its_own_checkpoint_and_a_shorter_run_the_further_one_counts(
    tiny: Tiny, untimed: Callable[[Path], object]
) -> None:
    longer = tiny("epochs=5")
    with pytest.raises(Interrupted):
        run(prepare(longer), stop=StopAfter(1))
    shorter = do(tiny("epochs=4"))
    plan = plan_sweep([(longer, {})], HERE)
    assert list(plan.state.values()) == ["continue"]
    assert (plan.epochs_to_train, plan.epochs_saved) == (1, 4)
    result = do(longer)
    assert result.summary["continued_from"] == shorter.folder.name
    straight = do(tiny("epochs=5", store="other"))
    assert weights(result) == weights(straight)
    assert untimed(result.folder) == untimed(straight.folder)


def test_the_plan_counts_what_a_failed_run_kept(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the pen is empty")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "serialize_generator", broken)
        with pytest.raises(RuntimeError, match="pen"):
            do(tiny("epochs=3"))
    plan = plan_sweep([(tiny("epochs=3"), {})], HERE)
    assert list(plan.state.values()) == ["failed"]
    assert (plan.epochs_to_train, plan.epochs_saved) == (0, 3)


def test_speed_is_known_from_runs_older_than_a_key(tiny: Tiny) -> None:
    summary = do(tiny("epochs=1")).folder / "summary.json"
    content = json.loads(summary.read_text())
    del content["config"]["generator"]["conditional"]
    summary.write_text(json.dumps(content))
    assert plan_sweep([(tiny("epochs=2"), {})], HERE).images_per_second is not None


def test_a_finished_run_is_added_to_by_one_process_at_a_time(tiny: Tiny) -> None:
    folder = do(tiny("epochs=1")).folder
    busy = pytest.raises(BusyError, match="under way in process")
    with claimed_finished(folder), busy, claimed_finished(folder):
        pass
    with claimed_finished(folder):
        pass
    assert not (folder / "claim.json").exists()


def test_a_run_is_found_by_its_id_whatever_its_folder_is_called(tiny: Tiny, tmp_path: Path) -> None:
    result = do(tiny("epochs=1"))
    renamed = result.folder.with_name("my-best-" + result.folder.name.rpartition("-")[2])
    result.folder.rename(renamed)
    found = Store(tmp_path / "store").claim(prepare(tiny("epochs=1")).identity)
    assert isinstance(found, Run) and found.folder == renamed


def test_a_store_that_cannot_be_read_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RunFolderError, match=r"store=.* cannot be read: Permission denied; choose"):
        Store(tmp_path)


def test_ids_that_begin_alike_are_told_apart(tiny: Tiny) -> None:
    result = do(tiny("epochs=1"))
    path = result.folder / "summary.json"
    path.write_text(json.dumps(result.summary | {"run_id": "0" * 64}))
    with pytest.raises(RunFolderError, match="their ids begin alike; use another store"):
        do(tiny("epochs=1"))


def test_a_damaged_checkpoint_says_what_to_do(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted):
        run(prepare(tiny("epochs=4")), stop=StopAfter(1))
    folder = next((tmp_path / "store").glob("*ep*"))
    (folder / "checkpoint.pt").write_bytes(b"torn")
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RunFolderError, match=r"checkpoint\.pt cannot be read .*; remove it"),
    ):
        do(tiny("epochs=4"))
    assert not (folder / "claim.json").exists()
    (folder / "checkpoint.pt").unlink()
    assert do(tiny("epochs=4")).summary["status"] == "done"


def test_what_a_killed_writer_left_is_removed_by_who_takes_the_run(tiny: Tiny) -> None:
    folder = do(tiny("epochs=1")).folder
    (folder / "summary.json").unlink()
    left = [folder / ".checkpoint.pt.abc123", folder / "samples" / ".epoch_0001.png.abc123"]
    for path in left:
        path.write_bytes(b"half")
    do(tiny("epochs=1"))
    assert not any(path.exists() for path in left)
    assert (folder / "summary.json").exists()
