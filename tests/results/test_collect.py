from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lungan.errors import RunFolderError
from lungan.results.read import collect


def by_status(runs: list[Any]) -> dict[str, int]:
    statuses = [run.status for run in runs]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def test_sweep_has_every_run_of_its_manifest(study: Any) -> None:
    collection = collect(study.path, "study")
    assert len(collection.runs) == 20
    assert by_status(collection.runs) == {
        "diverged": 1,
        "done": 15,
        "failed": 1,
        "missing": 2,
        "unfinished": 1,
    }
    assert collection.swept == ["optimizer.name", "seed", "epochs"]
    assert collection.question.startswith("Which optimizer")


def test_damaged_run_is_named_and_counts_as_missing(study: Any) -> None:
    collection = collect(study.path, "study")
    (problem,) = collection.problems
    assert problem.name.startswith("adam-100ep-s4-")
    assert problem.text.startswith("summary.json is damaged: it is not JSON: Unterminated")
    run = next(run for run in collection.runs if run.name == problem.name)
    assert run.status == "missing"
    assert run.config == {"optimizer.name": "adam", "seed": 4, "epochs": 100}


def test_ledger_says_why(study: Any) -> None:
    runs = {run.status: run for run in collect(study.path, "study").runs if run.name[0] in "r("}
    assert runs["unfinished"].reason == "last attempt: failed, killed"
    assert runs["unfinished"].facts["epochs_done"] == 33
    assert runs["missing"].reason == "last attempt: failed, no GPU"


def test_whole_store_passes_over_damaged_folders(study: Any) -> None:
    (study.path / "notes").mkdir()
    (study.path / ".hidden").mkdir()
    (study.path / "file.txt").write_text("not a folder")
    collection = collect(study.path)
    assert len(collection.runs) == 18
    assert [problem.name[:10] for problem in collection.problems] == ["adam-100ep", "notes"]
    assert collection.problems[1].text == (
        "it is no run's folder, having neither summary.json nor config.yaml; move it out of the "
        "store"
    )


DONE = '{"status": "done", "run_id": "a", "epochs_done": 1, "config": {}'
DAMAGE = {
    "[]": "summary.json is damaged: it must be a mapping, got list",
    "": "summary.json is damaged: it is not JSON: Expecting value: line 1 column 1 (char 0)",
    "\xff\xfe": "summary.json is damaged: it is not JSON",
    DONE.replace("done", "won", 1) + "}": "status must be diverged or done or failed, got 'won'",
    DONE.replace("{}", "3") + "}": "config must be a mapping, got int",
    DONE + ', "scores": []}': "scores must be a mapping or null, got list",
    DONE + ', "scores": {"values": {"a.b": "1"}}}': (
        "scores.values.a.b must be a number or a whole number or null, got '1'"
    ),
    DONE + ', "scores": {"values": {"a.b": true}}}': "must be a number",
    DONE + ', "scores": {"values": {"a.b": 1e200}}}': "a score is above 1e+100",
    DONE.replace('"a"', "{}") + "}": "run_id must be text, got dict",
    DONE.replace("{}", '{"a":' * 20000 + "1" + "}" * 20000) + "}": "nested too deeply",
}


@pytest.mark.parametrize("text", DAMAGE, ids=range(len(DAMAGE)))
def test_damage_is_said_in_one_line(store: Any, text: str) -> None:
    good = store.run()
    folder = store.run(store.config(seed=1))
    (folder / "summary.json").write_text(text, encoding="latin-1")
    collection = collect(store.path)
    assert [run.name for run in collection.runs] == [good.name]
    (problem,) = collection.problems
    assert problem.name == folder.name
    assert DAMAGE[text] in problem.text
    assert "\n" not in problem.text


def test_score_that_is_not_finite_is_no_score(store: Any) -> None:
    folder = store.run(values={"domain.precision": 0.5})
    path = folder / "summary.json"
    path.write_text(path.read_text().replace("0.5}", "NaN}"))
    (run,) = collect(store.path).runs
    assert run.scores == {"domain.precision": None}


def test_the_config_of_a_run_under_way_is_its_yaml(store: Any) -> None:
    store.run()
    store.run(store.config(seed=1), status="unfinished")
    first, second = collect(store.path).runs
    assert first.config.keys() == second.config.keys()
    assert second.config["seed"] == 1
    assert second.config["data.splits"] == '["train", "val"]'


def test_yaml_that_expands_without_end_is_refused(store: Any) -> None:
    folder = store.run(status="unfinished")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (folder / "config.yaml").write_text("\n".join(lines))
    collection = collect(store.path)
    assert collection.runs == []
    assert collection.problems[0].text == "config.yaml is damaged: it has more than 20000 values"


def test_yaml_runs_no_code(store: Any, tmp_path: Path) -> None:
    folder = store.run(status="unfinished")
    mark = tmp_path / "mark"
    (folder / "config.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{mark}']")
    assert collect(store.path).problems[0].text.startswith("config.yaml is damaged: it is not YAML")
    assert not mark.exists()


def test_torn_last_line_of_metrics_is_no_epoch(store: Any) -> None:
    folder = store.run(status="unfinished")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 17, "loss_gen')
    (run,) = collect(store.path).runs
    assert run.facts["epochs_done"] == 16


def test_manifest_cannot_point_out_of_the_store(store: Any, tmp_path: Path) -> None:
    store.run(values={"domain.precision": 0.5})
    outside = tmp_path / "outside"
    (store.path / store.entries[0]["folder"]).rename(outside)
    store.entries[0]["folder"] = "../outside"
    store.manifest()
    (run,) = collect(store.path, "study").runs
    assert run.status == "missing"


def test_folder_is_found_by_run_id(store: Any) -> None:
    store.run()
    store.entries[0]["folder"] = None
    store.manifest()
    (run,) = collect(store.path, "study").runs
    assert run.status == "done"


def test_folder_of_another_run_is_not_taken(store: Any) -> None:
    folder = store.run(run_id="ee" * 32)
    store.manifest()
    collection = collect(store.path, "study")
    assert [run.status for run in collection.runs] == ["missing"]
    assert collection.problems[0].name == folder.name
    assert collection.problems[0].text.startswith("holds another run than the sweep's")


def test_overrides_become_columns_and_numbers(store: Any) -> None:
    store.entries.append(store.entry(store.config(), None))
    store.entries[0]["overrides"] = {"+optimizer": "adam", "lr": "0.001", "seed": "3", "x": "y"}
    store.manifest()
    (run,) = collect(store.path, "study").runs
    assert run.config == {"optimizer.name": "adam", "lr": 0.001, "seed": 3, "x": "y", "epochs": 50}


def test_damaged_ledger_lines_are_problems(study: Any) -> None:
    study.ledger(["{torn", "[]"])
    problems = collect(study.path, "study").problems
    assert "2 lines cannot be read" in [problem.text for problem in problems]


def test_errors_name_what_there_is(study: Any, tmp_path: Path) -> None:
    study.manifest("other")
    with pytest.raises(RunFolderError, match=r"no sweep named nix in .*; it has other, study$"):
        collect(study.path, "nix")
    with pytest.raises(RunFolderError, match=r"no sweep named \.\./study in"):
        collect(study.path, "../study")
    with pytest.raises(RunFolderError, match=r"must be a folder of runs, got .*nowhere; train"):
        collect(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RunFolderError, match="holds no run; train first"):
        collect(empty)
    with pytest.raises(RunFolderError, match="it has none"):
        collect(empty, "study")
    (empty / "notes").mkdir()
    with pytest.raises(RunFolderError, match="holds no run; train first"):
        collect(empty)
    run = next(path.parent for path in study.path.glob("*/config.yaml"))
    with pytest.raises(RunFolderError, match="is a run's folder; give the store that it lies in"):
        collect(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "study.json is damaged: it is not JSON"),
        ('{"runs": 3}', "study.json is damaged: runs must be a list, got int"),
        ('{"runs": [{"folder": "x"}]}', r"study.json is damaged: it lacks runs\[0\].run_id"),
        ('{"runs": []}', "names no run; start the sweep again"),
    ],
)
def test_damaged_manifest(store: Any, text: str, message: str) -> None:
    store.manifest().write_text(text)
    with pytest.raises(RunFolderError, match=message):
        collect(store.path, "study")
