"""Launchers: a job a trajectory, stopped and counted like a sweep in one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lungan import launchers, registry, train
from lungan.cli import FAILED
from lungan.config import RunConfig, compose
from lungan.errors import ConfigError
from lungan.launchers import local, slurm
from lungan.runs import jobs
from lungan.runs import run as runs
from lungan.runs.jobs import Place, Tasks, run_job
from lungan.runs.run import StopSignal
from lungan.runs.sweep import plan_sweep
from lungan.training.loop import Interrupted

Tiny = Callable[..., RunConfig]
Ledger = Callable[[Path, str], list[dict[str, Any]]]


class FakeLauncher(jobs.Launcher):
    """Does the jobs one by one in this process; ``breaks`` off after so many, as often as said."""

    name = "fake"
    elsewhere = True

    def __init__(self, breaks: Sequence[int] = ()) -> None:
        self.breaks = list(breaks)
        self.num_jobs: list[int] = []

    def place(self, _jobs: Sequence[Tasks], /) -> Place:
        return Place(processes=0, threads=1)

    def launch(self, folder: Path, num_jobs: int, _place: Place) -> None:
        self.num_jobs.append(num_jobs)
        last = self.breaks.pop(0) if self.breaks else num_jobs
        for number in range(min(last, num_jobs)):
            run_job(folder, number)
        if last < num_jobs:
            raise RuntimeError("a worker was killed")


def run_sweep(launcher: FakeLauncher, *configs: RunConfig) -> int:
    """What the command does; gives its exit code."""
    pairs = [(config, {"seed": str(config.seed)}) for config in configs]
    return train.sweep(pairs, launcher, name="t", question="Why?")


def statuses(store: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in store.glob("*/summary.json"))


def build(*overrides: str) -> Any:
    with compose.composer():
        return launchers.build(compose.split_launcher(overrides)[1])


@pytest.mark.usefixtures("no_curves")
class TestLaunching:
    def test_a_trajectory_is_one_job(self, tiny: Tiny, tmp_path: Path, ledger: Ledger) -> None:
        launcher = FakeLauncher()
        configs = [tiny(f"epochs={e}", f"seed={s}") for e in (1, 2) for s in (0, 1)]
        assert run_sweep(launcher, *configs) == 0
        assert launcher.num_jobs == [2]
        assert statuses(tmp_path / "store") == ["done"] * 4
        assert len(ledger(tmp_path / "store", "t")) == 4
        assert run_sweep(launcher, *configs) == 0
        assert launcher.num_jobs == [2]

    def test_what_a_broken_launcher_left_is_launched_again(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:
        launcher = FakeLauncher(breaks=[1, 1])
        configs = [tiny("epochs=1", f"seed={seed}") for seed in (0, 1, 2)]
        assert run_sweep(launcher, *configs) == 0
        assert launcher.num_jobs == [3, 2, 1]
        assert statuses(tmp_path / "store") == ["done"] * 3

    @pytest.mark.parametrize("first", [0, 1])
    def test_a_launcher_that_gets_nothing_done_is_not_asked_for_ever(
        self, first: int, tiny: Tiny
    ) -> None:
        """Exit code 2 where it does nothing at all, as engines do whose arguments are wrong."""
        launcher = FakeLauncher(breaks=[first, 0])
        configs = [tiny("epochs=1", f"seed={seed}") for seed in (0, 1)]
        if first:
            assert run_sweep(launcher, *configs) == FAILED
        else:
            refusal = "hydra/launcher=fake got no job done: RuntimeError: a worker was killed; "
            with pytest.raises(ConfigError, match=refusal):
                run_sweep(launcher, *configs)
        assert launcher.num_jobs == ([2, 1] if first else [2])

    def test_a_failed_run_is_counted_and_not_repeated(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("the cable is out")

        monkeypatch.setattr(runs, "train", broken)
        launcher = FakeLauncher()
        assert run_sweep(launcher, tiny("epochs=1")) == FAILED
        assert launcher.num_jobs == [1]
        assert [line["status"] for line in ledger(tmp_path / "store", "t")] == ["failed"]
        log = next((tmp_path / "store" / "sweeps" / "t" / "launcher").glob("*/job-0.log"))
        assert "the cable is out" in log.read_text()

    def test_a_diverged_run_is_tried_again_where_that_is_asked_for(
        self, tiny: Tiny, tmp_path: Path, ledger: Ledger
    ) -> None:
        launcher = FakeLauncher()
        for retry, num_attempts in (("never", 1), ("never", 1), ("diverged", 2)):
            config = tiny("epochs=1", "optimizer=sgd", "lr=1e30", f"retry={retry}")
            assert run_sweep(launcher, config) == 0
            lines = ledger(tmp_path / "store", "t")
            assert [line["status"] for line in lines] == ["diverged"] * num_attempts

    def test_what_is_under_way_elsewhere_is_waited_for(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tiny("epochs=1")
        plan = plan_sweep([(config, {})], FakeLauncher())
        folder = tmp_path / "store" / plan.runs[0].prepared.identity.name
        folder.mkdir(parents=True)
        owner = {"host": "far", "system": "x", "pid": 1, "started": "1", "token": "t"}
        (folder / "claim.json").write_text(json.dumps(owner))
        real = time.sleep

        def sleep(_: float) -> None:
            (folder / "claim.json").unlink(missing_ok=True)
            real(0.01)

        monkeypatch.setattr(jobs.time, "sleep", sleep)
        launcher = FakeLauncher()
        assert run_sweep(launcher, config) == 0
        assert launcher.num_jobs == [1]

    def test_a_stop_reaches_jobs_that_have_not_begun(self, tiny: Tiny, tmp_path: Path) -> None:
        plan = plan_sweep([(tiny("epochs=1"), {})], FakeLauncher())
        folder = tmp_path / "launch"
        folder.mkdir()
        jobs.write_jobs(folder, "t", plan.trajectories, Place(0, 1))
        (folder / jobs.STOP).touch()
        assert not run_job(folder, 0)
        assert not list((tmp_path / "store").glob("*ep*"))
        assert "stopped" in (folder / "job-0.log").read_text()

    def test_a_stopped_sweep_says_so(self, tiny: Tiny) -> None:
        class Stopped(StopSignal):
            def requested(self) -> bool:
                return True

        plan = plan_sweep([(tiny("epochs=1"), {})], FakeLauncher())
        with pytest.raises(Interrupted):
            FakeLauncher().run(plan.trajectories, plan.sweep, Stopped())

    def test_other_images_on_another_machine_are_refused(
        self, tiny: Tiny, tmp_path: Path, ledger: Ledger
    ) -> None:
        plan = plan_sweep([(tiny("epochs=1"), {})], FakeLauncher())
        folder = tmp_path / "launch"
        folder.mkdir()
        jobs.write_jobs(folder, "t", plan.trajectories, Place(0, 1))
        listed = json.loads((folder / "jobs.json").read_text())
        listed["jobs"][0][0]["config"]["data"]["seed"] = 1
        (folder / "jobs.json").write_text(json.dumps(listed))
        (tmp_path / "store" / "sweeps").mkdir(parents=True)
        run_job(folder, 0)
        (line,) = ledger(tmp_path / "store", "t")
        assert line["status"] == "failed" and "are not those that this was" in line["reason"]

    def test_cuda_elsewhere_needs_a_precision(self, tiny: Tiny) -> None:
        with pytest.raises(ConfigError, match="precision must be fp32 or bf16 with device=cuda"):
            run_sweep(FakeLauncher(), tiny("device=cuda", "precision=auto"))
        assert plan_sweep([(tiny("device=cuda"), {})], FakeLauncher()).runs[0].device == "cuda"


def test_jobs_at_a_time_hold_different_slots(tmp_path: Path) -> None:
    with jobs._slot(tmp_path, 2) as first, jobs._slot(tmp_path, 2) as second:
        assert {first, second} == {0, 1}
    with jobs._slot(tmp_path, 2) as again:
        assert again == 0
    with jobs._slot(tmp_path, 0) as first, jobs._slot(tmp_path, 0) as second:
        assert first == second == 0


@pytest.mark.parametrize(
    ("gpus", "slot", "device"), [(0, 1, "auto"), (2, 0, "cuda:0"), (2, 3, "cuda:1")]
)
def test_gpus_go_round(monkeypatch: pytest.MonkeyPatch, gpus: int, slot: int, device: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    place = Place(processes=4, threads=3)
    assert jobs._placed("auto", place, slot) == device
    assert jobs._placed("cpu", place, slot) == "cpu"


def test_a_job_has_its_share_of_the_cores(tiny: Tiny, tmp_path: Path) -> None:
    plan = plan_sweep([(tiny("epochs=1", "threads=auto"), {})], FakeLauncher())
    jobs.write_jobs(tmp_path, "t", plan.trajectories, Place(4, 3))
    (tmp_path / "store" / "sweeps").mkdir(parents=True)
    run_job(tmp_path, 0)
    (summary,) = (tmp_path / "store").glob("*/summary.json")
    assert json.loads(summary.read_text())["threads"] == 3
    torch.set_num_threads(1)


def planned(count: int, kind: str = "cpu", device: str = "auto") -> Any:
    """Stand-ins of so many jobs of one task, which computes on this kind of device."""
    return [[SimpleNamespace(device=device, uses_cpu=kind == "cpu")]] * count


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr(local.memory, "available", lambda: 2**40)
    default = launchers.build([])
    assert default.place(planned(3)) == Place(processes=3, threads=2)
    assert default.place(planned(100)) == Place(processes=8, threads=1)
    assert default.place(planned(1)) == Place(processes=1, threads=8)
    assert build("hydra/launcher=joblib").place(planned(3)).processes == 3
    assert build("hydra/launcher=basic").place(planned(9)).processes == 1
    two = build("hydra/launcher=local", "hydra.launcher.n_jobs=2")
    assert two.place(planned(9)) == Place(processes=2, threads=4)
    monkeypatch.setattr(local.memory, "available", lambda: 5 * 2**30)
    assert default.place(planned(100)).processes == 5


def test_gpus_are_shared_out_where_nothing_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert launchers.build([]).place(planned(9, "cuda")).processes == 4
    assert launchers.build([]).place(planned(9, "cuda", "cuda:1")).processes == 1


def test_a_program_that_is_a_plugin_is_not_run_again_by_other_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "mine.py"
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr("__main__.__file__", str(program), raising=False)
    assert launchers.build([]).place(planned(9)).processes == 8
    plugin = registry.Plugin(name="mine", version="", sha256="0" * 64, file=str(program))
    monkeypatch.setattr(registry, "loaded_files", lambda: [plugin])
    assert launchers.build([]).place(planned(9)).processes == 1


def test_a_sweep_says_how_it_uses_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_overrides: Sequence[str],
) -> None:
    monkeypatch.setattr(local, "cores", lambda: 2)
    sweep = ["--multirun", *tiny_overrides, "seed=0,1", f"store={tmp_path}", "--dry-run"]
    assert train.main(sweep) == 0
    assert "by 2 processes at a time, each of one CPU thread;" in capsys.readouterr().out
    assert train.main([*sweep, "--processes", "1"]) == 0
    assert "processes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "2"], "belong to a sweep: add --multirun"),
        (["-m", "--processes", "0"], "--processes must be at least 1, got 0"),
        (["-m", "--processes", "2", "hydra/launcher=ray"], "leave out hydra/launcher=ray"),
    ],
)
def test_processes_out_of_place_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["hydra/launcher=jobli"],
            "must be one of basic, joblib, local, ray, slurm, submitit_local,",
        ),
        (
            ["hydra.launcher.n_jobs=2"],
            "needs hydra/launcher=basic|joblib|local|ray|slurm|submitit_local",
        ),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_job=2"],
            "hydra.launcher.n_job is not a key; did you mean hydra.launcher.n_jobs? The keys of",
        ),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=two"],
            "must be a whole number, got two",
        ),
        (
            ["hydra/launcher=local", "hydra.launcher.batch_size=1"],
            "keys of hydra.launcher are n_jobs",
        ),
        (["hydra.run.dir=x"], "hydra.run.dir is not a setting of lungan"),
    ],
)
def test_a_wrong_launcher_is_one_line(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--multirun", *overrides]) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


def test_a_launcher_needs_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["hydra/launcher=joblib"]) == 2
    assert "belongs to a sweep: add --multirun" in capsys.readouterr().err


def test_hydras_default_launcher_does_one_run_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--cfg", "job"]) == 0
    config = capsys.readouterr().out
    assert train.main(["hydra/launcher=basic", "--cfg", "job"]) == 0
    assert capsys.readouterr().out == config


def test_a_launcher_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "lungan.launchers.ray", raising=False)
    with pytest.raises(ConfigError, match=r"no module ray: pip install 'lungan\[ray\]'"):
        build("hydra/launcher=ray")


def test_slurm_needs_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"launcher=slurm needs a SLURM cluster .* no sbatch"):
        build("hydra/launcher=slurm")


@pytest.mark.parametrize(("sent", "again"), [([signal.SIGUSR2], True), ([signal.SIGTERM], False)])
def test_slurms_signal_queues_the_job_again_after_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, sent: list[int], again: bool
) -> None:
    order: list[str] = []

    def job(*_: object, signals: Sequence[int]) -> set[int]:
        assert set(signals) == {signal.SIGTERM, signal.SIGUSR2}
        order.append("checkpoint")
        return set(sent)

    monkeypatch.setattr(slurm, "run_job", job)
    monkeypatch.setattr(slurm, "TERMINATION_SECONDS", 0)
    before = signal.signal(signal.SIGUSR2, lambda *_: order.append("queue again"))
    try:
        slurm.Job()(Path("x"), 0)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert order == ["checkpoint", *(["queue again"] if again else [])]


def test_two_processes_do_what_one_does(
    tmp_path: Path,
    start_train: Callable[..., Any],
    tiny_overrides: Sequence[str],
    same_bits: Callable[[Path, Path], None],
) -> None:
    sweep = ["--multirun", "--sweep", "t", *tiny_overrides, "optimizer=adam,rmsprop", "epochs=1,2"]
    two = start_train(*sweep, f"store={tmp_path / 'two'}", "--processes", "2")
    one = start_train(*sweep, f"store={tmp_path / 'one'}", "--processes", "1")
    for process in (one, two):
        process.join(240)
        assert process.exitcode == 0
    same_bits(tmp_path / "two", tmp_path / "one")
    logs = sorted((tmp_path / "two" / "sweeps" / "t" / "launcher").glob("*/job-*.log"))
    assert [path.name for path in logs] == ["job-0.log", "job-1.log"]
    assert all("done" in path.read_text() for path in logs)
    owners = {path.read_text().count("from epoch 0 to 1") for path in logs}
    assert owners == {1}


def test_ctrl_c_stops_all_processes_with_checkpoints(stopped_sweep: Callable[..., None]) -> None:
    stopped_sweep(signal.SIGINT, 2, "--processes", "2")


def test_processes_stop_with_a_checkpoint_when_their_sweep_is_killed(
    tmp_path: Path, start_train: Callable[..., Any], tiny_overrides: Sequence[str]
) -> None:
    process = start_train(
        *["--multirun", *tiny_overrides, "checkpoint_every_epochs=1000", "epochs=1000"],
        *["seed=0,1", f"store={tmp_path}", "--processes", "2"],
    )
    wait_for(lambda: len(list(tmp_path.glob("*/metrics.jsonl"))) == 2)
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: len(list(tmp_path.glob("*/checkpoint.pt"))) == 2)
    wait_for(lambda: not list(tmp_path.glob("*/claim.json")))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_process_costs_only_its_epochs(
    tmp_path: Path, start_train: Callable[..., Any], tiny_overrides: Sequence[str]
) -> None:
    process = start_train(
        *["--multirun", "--sweep", "t", *tiny_overrides, "epochs=60", "seed=0,1,2"],
        *[f"store={tmp_path}", "--processes", "2"],
    )
    wait_for(lambda: bool(list(tmp_path.glob("*/checkpoint.pt"))))
    folder = next(tmp_path.glob("*/checkpoint.pt")).parent
    os.kill(json.loads((folder / "claim.json").read_text())["pid"], signal.SIGKILL)
    process.join(280)
    assert process.exitcode == 0
    assert statuses(tmp_path) == ["done"] * 3
