"""Runs trained as one by the train command: what single runs leave, and what they survive."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lungan import train
from lungan.cli import FAILED
from lungan.config import RunConfig
from lungan.errors import ConfigError
from lungan.launchers import stacked
from lungan.launchers.stacked import arrange, run_stack
from lungan.runs.plan import make_plan
from lungan.runs.prepare import prepare
from lungan.runs.run import run
from lungan.runs.stopping import StopSignal
from lungan.training.loop import Interrupted

Tiny = Callable[..., RunConfig]
Ledger = Callable[[Path, str], list[dict[str, Any]]]

# A large epsilon: where a gradient is all rounding, a tiny one makes whole steps of its sign.
STEADY = ("optimizer.epsilon=1e-3",)


def run_sweep(*configs: RunConfig, max_runs: int = 32, dry_run: bool = False) -> int:
    """What the command does; gives its exit code."""
    pairs = [(config, {"seed": str(config.seed)}) for config in configs]
    launcher = stacked.StackedLauncher(stacked.StackedConfig(max_runs=max_runs))
    return train.sweep(pairs, launcher, name="t", question="Why?", dry_run=dry_run)


def seeds(config: RunConfig, *numbers: int) -> list[RunConfig]:
    return [dataclasses.replace(config, seed=number) for number in numbers]


def summaries(store: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in store.glob("*/summary.json")}


def same_runs(store: Path, other: Path) -> None:
    """Weights, metrics and outcomes, within rounding; files by name."""
    ours, theirs = summaries(store), summaries(other)
    assert ours.keys() == theirs.keys()
    for name, summary in theirs.items():
        for key in ("status", "run_id", "trajectory_id", "epochs_done", "continued_from"):
            assert ours[name][key] == summary[key], f"{name}: {key}"
        assert ours[name]["num_parameters"] == summary["num_parameters"]
        files = [
            sorted(str(p.relative_to(root / name)) for p in (root / name).rglob("[!fl]*.*"))
            for root in (store, other)
        ]
        assert files[0] == files[1]
        weights = [load_file(root / name / "generator.safetensors") for root in (store, other)]
        assert weights[0].keys() == weights[1].keys()
        for key, value in weights[1].items():
            np.testing.assert_allclose(weights[0][key], value, atol=1e-4, rtol=1e-3, err_msg=key)
        lines = [
            [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
            for root in (store, other)
        ]
        for our, their in zip(*lines, strict=True):
            assert list(our) == list(their)
            for key in set(their) - {"seconds", "images_per_second"}:
                assert our[key] == pytest.approx(their[key], abs=1e-4, rel=1e-3), key


@pytest.mark.usefixtures("no_curves")
def test_the_command_leaves_what_single_runs_leave(
    tmp_path: Path, tiny: Tiny, start_train: Callable[..., Any], tiny_overrides: Sequence[str]
) -> None:
    recipe = [*STEADY, "samples_every_epochs=1"]
    process = start_train(
        *["--multirun", "--sweep", "t", *tiny_overrides, *recipe, f"store={tmp_path / 'stacked'}"],
        *["optimizer=adam,rmsprop", "epochs=1,2", "hydra/launcher=stacked"],
    )
    for optimizer in ("adam", "rmsprop"):
        config = tiny(*recipe, f"optimizer={optimizer}", store="one")
        for epochs in (1, 2):
            run(prepare(dataclasses.replace(config, epochs=epochs)))
    process.join(240)
    assert process.exitcode == 0
    same_runs(tmp_path / "stacked", tmp_path / "one")
    for name, summary in summaries(tmp_path / "stacked").items():
        assert summary["trained_together"] == 2
        folder = tmp_path / "stacked" / name
        assert (folder / "figures" / "losses.png").exists()
        log = (folder / "log.txt").read_text()
        assert log.count("47 images, fp32 on cpu") == 1 and "2 runs as one" in log
    assert (tmp_path / "stacked" / "sweeps" / "t" / "results.csv").exists()


@pytest.mark.usefixtures("no_curves")
class TestStack:
    def test_single_runs_and_stacks_continue_each_other(
        self, tiny: Tiny, tmp_path: Path, ledger: Ledger
    ) -> None:
        def configs(store: str, *epochs: int) -> list[RunConfig]:
            base = tiny(*STEADY, store=store)
            return [c for e in epochs for c in seeds(dataclasses.replace(base, epochs=e), 0, 1)]

        for config in configs("one", 1, 2, 3):
            run(prepare(config))
        run(prepare(configs("two", 1)[0]))  # one is ahead: the others catch up with it
        assert run_sweep(*configs("two", 1, 2)) == 0
        for config in configs("two", 3):
            run(prepare(config))
        same_runs(tmp_path / "two", tmp_path / "one")
        assert len(ledger(tmp_path / "two", "t")) == 3
        assert not list(tmp_path.glob("two/*/claim.json"))

    def test_a_diverging_run_touches_no_other(self, tiny: Tiny, tmp_path: Path) -> None:
        wild = tiny("epochs=2", "seed=1", "optimizer.discriminator_lr=1e30", "optimizer=sgd")
        calm = seeds(tiny(*STEADY, "epochs=2", store="one"), 0, 2)
        for config in calm:
            run(prepare(config))
        here = [dataclasses.replace(config, store=wild.store) for config in calm]
        assert run_sweep(*here, wild) == 0
        found = summaries(tmp_path / "store")
        assert sorted(s["status"] for s in found.values()) == ["diverged", "done", "done"]
        (diverged,) = [s for s in found.values() if s["status"] == "diverged"]
        assert "in epoch 1; try a lower lr" in diverged["reason"]
        folder = tmp_path / "store" / diverged["name"]
        folder.rename(tmp_path / "diverged")
        same_runs(tmp_path / "store", tmp_path / "one")

    def test_a_run_that_fails_is_recorded_and_the_others_go_on(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
    ) -> None:
        real = stacked.ActiveRun.emit

        def broken(active: stacked.ActiveRun, event: Any) -> None:
            if "-s1-" in active.folder.name:
                raise RuntimeError("the cable is out")
            real(active, event)

        monkeypatch.setattr(stacked.ActiveRun, "emit", broken)
        configs = seeds(tiny("epochs=2"), 0, 1, 2)
        assert run_sweep(*configs) == FAILED
        found = summaries(tmp_path / "store")
        assert sorted(s["status"] for s in found.values()) == ["done", "done", "failed"]
        assert sorted(line["status"] for line in ledger(tmp_path / "store", "t")) == sorted(
            s["status"] for s in found.values()
        )
        logs = [path.read_text() for path in (tmp_path / "store").glob("*/log.txt")]
        assert sum("the cable is out" in log for log in logs) == 1

    def test_a_fault_of_the_whole_is_every_runs(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("the sun is out")

        monkeypatch.setattr(stacked, "train_stack", broken)
        assert run_sweep(*seeds(tiny("epochs=1"), 0, 1)) == FAILED
        assert {s["status"] for s in summaries(tmp_path / "store").values()} == {"failed"}

    def test_too_little_memory_says_what_helps(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(stacked, "train_stack", full)
        with pytest.raises(ConfigError, match=r"4 runs at once .* hydra.launcher.max_runs=2"):
            run_sweep(*seeds(tiny("epochs=1"), 0, 1, 2, 3))
        assert not list((tmp_path / "store").glob("*/claim.json"))

    def test_time_is_shared_out_and_scoring_is_a_runs_own(self) -> None:
        class Timed:
            """As much of a run's work as has to do with time."""

            def __init__(self) -> None:
                self.seconds_scoring, self.training = 5.0, 0.0

            def score(self, seconds: float) -> None:
                time.sleep(seconds)
                self.seconds_scoring += seconds
                self.training -= seconds

            def share_training(self, seconds: float, num_runs: int) -> None:
                assert num_runs == 2
                self.training += seconds

        works: list[Any] = [Timed(), Timed()]
        began = time.perf_counter()
        with stacked._shared_time(works):
            works[0].score(0.2)
        elapsed = time.perf_counter() - began
        assert works[0].training == pytest.approx(works[1].training)
        assert 0 < sum(work.training for work in works) <= elapsed - 0.2

    def test_a_run_under_way_elsewhere_is_left_to_its_owner(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:
        plan = make_plan([(config, {}) for config in seeds(tiny("epochs=1"), 0, 1, 2)])
        folder = tmp_path / "store" / plan.runs[0].prepared.identity.name
        folder.mkdir(parents=True)
        owner = {"host": "far", "system": "x", "pid": 1, "started": "1", "token": "t"}
        (folder / "claim.json").write_text(json.dumps(owner))
        (tmp_path / "store" / "sweeps").mkdir()
        busy = run_stack(plan.trajectories, "t", StopSignal())
        assert busy == [plan.runs[0]]
        assert len(summaries(tmp_path / "store")) == 2

    def test_a_stop_leaves_checkpoints_in_the_middle_of_an_epoch(
        self, tiny: Tiny, tmp_path: Path
    ) -> None:
        class StopLater(StopSignal):
            left = 4  # asked before each of two runs begins, and after every step

            def requested(self) -> bool:
                self.left -= 1
                return self.left <= 0

        configs = seeds(tiny(*STEADY, "epochs=2", "batch_size=16"), 0, 1)
        plan = make_plan([(config, {}) for config in configs])
        (tmp_path / "store" / "sweeps").mkdir(parents=True)
        with pytest.raises(Interrupted):
            run_stack(plan.trajectories, "t", StopLater())
        for path in (tmp_path / "store").glob("*/checkpoint.pt"):
            assert torch.load(path, weights_only=True)["state"]["step"] == 2
        assert not list((tmp_path / "store").glob("*/claim.json"))
        assert run_sweep(*configs) == 0
        for config in configs:
            run(prepare(dataclasses.replace(config, store=str(tmp_path / "one"))))
        same_runs(tmp_path / "store", tmp_path / "one")

    def test_the_plan_says_what_is_trained_as_one(
        self, tiny: Tiny, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        base = tiny("epochs=1")
        configs = [c for e in (1, 2) for c in seeds(dataclasses.replace(base, epochs=e), *range(5))]
        configs += [tiny("loss=wgan_gp"), tiny("batch_size=16")]
        assert run_sweep(*configs, max_runs=3, dry_run=True) == 0
        said = capsys.readouterr().out
        assert "by hydra/launcher=stacked: trajectories trained as one: 3, 2\n" in said
        assert "one by one: 1, since loss.gradient_penalty=10 cannot be stacked\n" in said
        assert "one by one: 1, since no other run has its data, networks, loss" in said
        assert not (tmp_path / "store").exists()

    def test_what_is_finished_is_in_no_stack(self, tiny: Tiny) -> None:
        configs = seeds(tiny("epochs=1"), 0, 1)
        run(prepare(configs[0]))
        arrangement = arrange(make_plan([(config, {}) for config in configs]), 32)
        assert not arrangement.stacks
        assert [len(arrangement.finished), len(arrangement.alone)] == [1, 1]


def test_a_signal_leaves_checkpoints_of_all_runs(stopped_sweep: Callable[..., None]) -> None:
    stopped_sweep(signal.SIGTERM, 3, "hydra/launcher=stacked")
