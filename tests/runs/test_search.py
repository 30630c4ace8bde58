"""Searches: trials as runs of the store, resumable, halved, honest about what failed."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lungan import search as command
from lungan.config import compose
from lungan.errors import ConfigError
from lungan.runs import run as runs
from lungan.runs.prepare import Prepared
from lungan.runs.search import search_space
from lungan.runs.store import Owner

pytestmark = pytest.mark.usefixtures("no_curves")

LR = "lr=tag(log,interval(1e-4,1e-2))"


class FakeScorer:
    """A score that is best at lr 0.001 and falls with the epochs, in no time."""

    names = ("domain",)

    def __init__(self, prepared: Prepared, _folder: Path) -> None:
        self._lr = prepared.config.optimizer.generator_lr

    def announce(self) -> None: ...

    def find(self, _epoch: int) -> None: ...

    def best(self) -> None: ...

    def score(self, _generator: object, epoch: int) -> dict[str, Any]:
        value = 1 + math.log10(self._lr / 1e-3) ** 2 + 1 / epoch
        values = {"domain.frechet_distance": value, "domain.recall": None}
        return {"values": values, "reasons": {"domain.recall": "too few"}, "epoch": epoch}


@pytest.fixture
def search(tmp_path: Path, tiny_overrides: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The search command in this process, with a score that takes no time."""
    monkeypatch.setattr(runs, "build_scorer", FakeScorer)
    plain = [text for text in tiny_overrides if text != "score=none"]

    def run(*arguments: str, store: str = "store") -> int:
        fixed = [*plain, "score=fast", f"store={tmp_path / store}"]
        return command.main(["--sweep", "s", *fixed, *arguments])

    return run


def study(store: Path) -> optuna.Study:
    log = str(store / "sweeps" / "s.optuna.log")
    return optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(log)))


def states(store: Path) -> list[str]:
    return [trial.state.name for trial in study(store).trials]


def num_runs(store: Path) -> int:
    return len(list(store.glob("*/summary.json")))


def test_trials_are_runs_of_the_store_and_the_best_is_named(
    search: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("--trials", "4", "--sampler", "random", "epochs=1", LR) == 0
    store = tmp_path / "store"
    assert states(store) == ["COMPLETE"] * 4 and num_runs(store) == 4
    best = study(store).best_trial
    summary = json.loads((store / best.user_attrs["folder"] / "summary.json").read_text())
    assert summary["config"]["lr"] == best.params["lr"]
    assert best.value == min(trial.value for trial in study(store).trials)
    said = capsys.readouterr().out
    assert "search s: 4 complete" in said and f"with lr={best.params['lr']!r}" in said
    assert "best of 4 by this very score" in said
    table = (store / "sweeps" / "s" / "results.csv").read_text()
    assert len(table.splitlines()) == 5


def test_a_search_goes_on_as_if_it_had_not_been_stopped(search: Any, tmp_path: Path) -> None:
    for trials in ("2", "2", "4"):
        assert search("--trials", trials, "epochs=1", LR, "optimizer=adam,sgd") == 0
    assert search("--trials", "4", "epochs=1", LR, "optimizer=adam,sgd", store="other") == 0
    ours, theirs = (study(tmp_path / store).trials for store in ("store", "other"))
    assert [trial.params for trial in ours] == [trial.params for trial in theirs]
    assert len({trial.params["lr"] for trial in ours}) == 4


def test_a_finished_run_is_reused(search: Any, tmp_path: Path) -> None:
    assert search("--trials", "6", "epochs=1", "lr=1e-3,1e-2") == 0
    assert num_runs(tmp_path / "store") == 2
    assert states(tmp_path / "store") == ["COMPLETE"] * 6


def test_only_the_best_go_on_from_a_rung(search: Any, tmp_path: Path) -> None:
    arguments = ("--trials", "8", "--sampler", "random", "--rungs", "1,2", "--reduction", "2")
    assert search(*arguments, LR) == 0
    trials = study(tmp_path / "store").trials
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(pruned) + len(done) == 8 and pruned and done
    assert all(list(trial.intermediate_values) == [1] for trial in pruned)
    assert all(list(trial.intermediate_values) == [1, 2] for trial in done)
    at_first = [trial.intermediate_values[1] for trial in trials]
    assert min(at_first) in [trial.intermediate_values[1] for trial in done]
    assert num_runs(tmp_path / "store") == 8 + len(done)
    for path in (tmp_path / "store").glob("*-2ep-*/summary.json"):
        assert "-1ep-" in json.loads(path.read_text())["continued_from"]


def test_a_diverged_trial_is_pruned(search: Any, tmp_path: Path) -> None:
    assert search("--trials", "2", "epochs=1", "optimizer=sgd", "lr=choice(1e30,2e30)") == 0
    assert states(tmp_path / "store") == ["PRUNED"] * 2


def test_a_failed_trial_is_asked_for_again_by_the_next_command(
    search: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the cable is out")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", broken)
        assert search("--trials", "2", "epochs=1", LR) == 1
    assert states(tmp_path / "store") == ["FAIL"] * 2
    assert search("--trials", "2", "epochs=1", LR) == 0
    trials = study(tmp_path / "store").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].params == trials[2].params and trials[1].params == trials[3].params


def test_a_trial_whose_process_died_is_asked_for_again(search: Any, tmp_path: Path) -> None:
    assert search("--trials", "1", "epochs=1", LR) == 0
    lost = study(tmp_path / "store").ask(
        {"lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)}
    )
    me = Owner.this_process()
    dead = {name: getattr(me, name) for name in Owner.__slots__} | {"started": "1"}
    lost.set_user_attr("owner", dead)
    assert search("--trials", "2", "epochs=1", LR) == 0
    trials = study(tmp_path / "store").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials[2].params == trials[1].params


def test_a_trial_under_way_elsewhere_counts(search: Any, tmp_path: Path) -> None:
    assert search("--trials", "1", "epochs=1", LR) == 0
    other = study(tmp_path / "store").ask()
    other.set_user_attr(
        "owner", {"host": "h", "system": "x", "pid": 1, "started": "1", "token": ""}
    )
    assert search("--trials", "2", "epochs=1", LR) == 0
    assert states(tmp_path / "store") == ["COMPLETE", "RUNNING"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epochs=1", "lr=0.001"], "nothing to search: give a range or choices"),
        (["epochs=1", "lr=interval(1e-2,1e-4)"], "lr cannot be searched: "),
        (["epochs=1", LR, "score=none"], "score=none gives no domain.frechet_distance"),
        (["epochs=1", "lr=interval(-1,1)"], "lr must be greater than 0, got -1.0"),
        (["--rungs", "1,2", "epochs=1,2"], "epochs cannot be searched beside --rungs"),
        (["--trials", "0", LR], "--trials must be at least 1, got 0"),
        (["epochs=1", LR, "--objective", "x.y"], r"a score of the runs (domain.frechet_dist"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(
    search: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert search(*arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--direction", "maximize", LR], "with --direction minimize, got maximize"),
        (["--objective", "domain.recall", LR], "with --objective domain.frechet_distance, got"),
        ([LR], "begun with lr among 0.001,0.01, got numbers on a log scale"),
        (["lr=1e-3,1e-4"], "begun with lr among 0.001,0.01, got among 0.001,0.0001"),
    ],
)
def test_another_search_needs_another_name(
    search: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert search("--trials", "1", "epochs=1", "lr=1e-3,1e-2") == 0
    assert search("--trials", "2", "epochs=1", *arguments) == 2
    assert message in capsys.readouterr().err


def test_hydras_sweep_syntax_is_the_space() -> None:
    with compose.composer():
        space, fixed = search_space(
            [
                "lr=tag(log,interval(1e-4,1e-2))",
                "seed=int(interval(0,9))",
                "generator.width=range(8,33,8)",
                "optimizer=adam,rmsprop",
                "batch_size=choice(32,64)",
                "epochs=3",
            ]
        )
    assert fixed == ["epochs=3"]
    assert space == {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "seed": IntDistribution(0, 9),
        "generator.width": IntDistribution(8, 32, step=8),
        "optimizer": CategoricalDistribution(("adam", "rmsprop")),
        "batch_size": CategoricalDistribution(("32", "64")),
    }


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("seed=range(3,3)", "an empty range"),
        ("seed=range(1,5,0)", "seed cannot be searched: "),
        ("epochs=glob(*)", "epochs cannot be searched: "),
        ("lr=tag(log,interval(0,1))", "lr cannot be searched: "),
    ],
)
def test_a_range_without_values_is_refused(typed: str, message: str) -> None:
    with compose.composer(), pytest.raises(ConfigError, match=message):
        search_space([typed])


@pytest.mark.parametrize("torn", [b'{"op_code": 4, "worker', b"\0\0\0"])
def test_a_line_that_a_full_disk_tore_is_dropped(torn: bytes, search: Any, tmp_path: Path) -> None:
    assert search("--trials", "1", LR, "epochs=1") == 0
    path = tmp_path / "store" / "sweeps" / "s.optuna.log"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert search("--trials", "2", LR, "epochs=1") == 0
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_bytes()[len(whole) :].splitlines())


def test_a_damaged_study_is_named(
    search: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("--trials", "1", LR, "epochs=1") == 0
    path = tmp_path / "store" / "sweeps" / "s.optuna.log"
    path.write_bytes(b'{"op_code": 99}\n[]\n' + path.read_bytes())
    assert search("--trials", "2", LR, "epochs=1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"DamagedError: {path} is damaged: Optuna cannot read it (")
    assert line.endswith("begin the search anew; runs that are done are not trained again")


def test_a_study_on_a_full_disk_is_one_line(
    search: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert search("--trials", "1", LR, "epochs=1") == 0
    path = tmp_path / "store" / "sweeps" / "s.optuna.log"

    def half(journal: JournalFileBackend, _: object) -> None:
        with Path(journal._file_path).open("ab") as file:
            file.write(b'{"op_co')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", half)
        assert search("--trials", "2", LR, "epochs=1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"RunFolderError: {path} cannot be written: No space left on device; ")
    assert path.read_bytes().endswith(b"\n")
    assert search("--trials", "2", LR, "epochs=1") == 0
