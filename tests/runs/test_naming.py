"""Names that tell the runs of a sweep apart, and say what a single run does otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lungan.config import compose
from lungan.errors import RunFolderError
from lungan.runs.folder import read_manifest
from lungan.runs.naming import (
    MAX_LENGTH,
    display_name,
    name_by_differences,
    name_in_sweep,
    varied_keys,
)


def write_sweep(store: Path, *overrides: dict[str, str], epochs: int = 50) -> None:
    runs = [
        {"run_id": f"run{number}", "overrides": given, "epochs": int(given.get("epochs", epochs))}
        for number, given in enumerate(overrides)
    ]
    (store / "sweeps").mkdir()
    (store / "sweeps" / "study.json").write_text(json.dumps({"name": "study", "runs": runs}))


def names(store: Path) -> list[str]:
    """Of the runs of ``write_sweep``, in their order."""
    runs = read_manifest(store, "study")["runs"]
    return [name_in_sweep(store, "study", run["run_id"]) for run in runs]


def composed(*overrides: str) -> dict[str, Any]:
    with compose.composer():
        return dataclasses.asdict(compose.compose(overrides))


def test_a_sweep_names_its_runs_by_what_it_varies_with_the_seed_last(tmp_path: Path) -> None:
    fixed = {"data": "pneumoniamnist", "data.path": "/home/me/x.npz"}
    write_sweep(
        tmp_path,
        *({"seed": seed, **fixed, "lr": lr} for lr in ("0.0003", "1e-3") for seed in ("1", "2")),
    )
    assert names(tmp_path) == [
        "lr=0.0003 seed=1",
        "lr=0.0003 seed=2",
        "lr=1e-3 seed=1",
        "lr=1e-3 seed=2",
    ]


def test_a_sweep_over_epochs_and_choices(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"optimizer": "adam"}, {"optimizer": "rmsprop", "epochs": "100"})
    assert names(tmp_path) == ["epochs=50 optimizer=adam", "epochs=100 optimizer=rmsprop"]


def test_one_run_that_nothing_sets_apart_has_no_name_of_its_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"lr": "0.1"})
    assert names(tmp_path) == [""]


def test_a_key_that_only_one_run_sets_varies() -> None:
    assert varied_keys([{"a": "1"}, {"a": "1", "b": "2"}]) == ["b"]


@pytest.mark.parametrize("manifest", ["{", '{"runs": [{"run_id": "a"}]}', '{"runs": 1}'])
def test_a_damaged_manifest_is_one_line(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "study.json").write_text(manifest)
    with pytest.raises(RunFolderError, match=r"study\.json is damaged"):
        read_manifest(tmp_path, "study")
    assert name_in_sweep(tmp_path, "study", "a") == ""


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "defaults"),
        (("lr=0.0003", "seed=2"), "lr=0.0003 seed=2"),
        (("optimizer=rmsprop", "optimizer.decay=0.8"), "optimizer=rmsprop optimizer.decay=0.8"),
        (("optimizer.generator_lr=0.1",), "optimizer.generator_lr=0.1"),
        (("data=folder", "data.path=/home/me/films", "store=/tmp/x", "threads=3"), "data=folder"),
        (("score=none", "tracker=wandb", "tracker.project=secret"), "defaults"),
    ],
)
def test_a_single_run_is_named_by_what_differs_from_the_defaults(
    overrides: tuple[str, ...], name: str
) -> None:
    assert name_by_differences(composed(*overrides)) == name


def test_a_plug_in_that_is_not_at_hand_is_named_by_its_choice() -> None:
    config = composed()
    config["optimizer"] = {"name": "unheard_of", "power": 3}
    assert name_by_differences(config) == "optimizer=unheard_of"


def test_long_names_keep_their_last_part() -> None:
    settings = {f"generator.key_{number}": "x" * 20 for number in range(9)} | {"seed": 7}
    name = display_name(settings, settings)
    assert len(name) == MAX_LENGTH
    assert name.startswith("key_0=xxx") and name.endswith("… seed=7")


def test_an_expanded_sweep_gives_as_many_names_as_runs(
    tmp_path: Path,
) -> None:
    with compose.composer():
        jobs = compose.expand(["lr=0.001,0.002", "seed=1,2", "epochs=3"])
    write_sweep(tmp_path, *(dict(text.split("=") for text in job) for job in jobs))
    assert len(set(names(tmp_path))) == len(jobs) == 4
