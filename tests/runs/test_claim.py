"""Claims: one owner at a time, and none once it is dead."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lungan.errors import RunFolderError
from lungan.runs import store as claims
from lungan.runs.folder import exclusive
from lungan.runs.store import Claim, live_owner

FOREIGN = {
    "host": "elsewhere",
    "system": "another boot/another namespace",
    "pid": os.getpid(),
    "started": "1",
    "token": "t",
}


def write_foreign(folder: Path, seconds_ago: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "claim.json"
    path.write_text(json.dumps(FOREIGN))
    touched = time.time() - seconds_ago
    os.utime(path, (touched, touched))


def test_this_process_owns_its_claim_until_it_releases_it(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    owner = live_owner(tmp_path)
    assert owner is not None and owner.pid == os.getpid()
    claim.assert_held()
    claim.release()
    assert live_owner(tmp_path) is None
    assert not (tmp_path / "claim.json").exists()


def test_an_owner_killed_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lungan.runs.store import Claim\n"
        "claim = Claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(100)"
    )
    root = str(Path(claims.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        owner = live_owner(tmp_path)
        assert owner is not None and owner.pid == process.pid
        process.send_signal(signal.SIGKILL)
        # Before anybody has waited for it: a zombie is dead as well.
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert live_owner(tmp_path) is None
    assert (tmp_path / "claim.json").exists()


def test_a_process_number_used_again_is_not_the_owner(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    claim.release()
    values = {name: getattr(claims.Owner.this_process(), name) for name in FOREIGN}
    (tmp_path / "claim.json").write_text(json.dumps(values | {"started": "1"}))
    assert live_owner(tmp_path) is None


@pytest.mark.parametrize(
    ("seconds_ago", "alive"),
    [(0, True), (claims.LEASE_SECONDS - 20, True), (claims.LEASE_SECONDS + 20, False)],
)
def test_an_owner_elsewhere_lives_until_its_lease_ends(
    tmp_path: Path, seconds_ago: float, alive: bool
) -> None:
    write_foreign(tmp_path, seconds_ago)
    assert (live_owner(tmp_path) is not None) == alive
    assert [path.name for path in tmp_path.iterdir()] == ["claim.json"]


def test_a_held_claim_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.02)
    claim = Claim(tmp_path)
    os.utime(claim.path, (1, 1))
    deadline = time.monotonic() + 10
    while claim.path.stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.time() - claim.path.stat().st_mtime < 10
    claim.release()


def test_a_claim_taken_over_is_lost_and_left_to_its_new_owner(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    write_foreign(tmp_path, 0)
    with pytest.raises(RunFolderError, match=r"was taken over .* did not answer for 120 s"):
        claim.assert_held()
    claim.release()
    assert json.loads(claim.path.read_text()) == FOREIGN


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}'])
def test_a_damaged_claim_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "claim.json").write_text(content)
    assert live_owner(tmp_path) is None


def test_one_at_a_time_in_the_exclusive_section(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with exclusive(tmp_path):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_store_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunFolderError, match=r"store=.*file cannot be written: .*store=<folder>"),
        exclusive(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize(("seconds_ago", "alive"), [(0, True), (claims.LEASE_SECONDS + 20, False)])
def test_a_claim_in_a_store_that_cannot_be_written(
    seconds_ago: float, alive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign(tmp_path, seconds_ago)

    def read_only(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    assert (live_owner(tmp_path) is not None) == alive
