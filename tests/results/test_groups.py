from __future__ import annotations

from typing import Any

import pytest

from lungan.errors import ConfigError
from lungan.results.groups import group
from lungan.results.read import collect


def test_study_groups_by_what_was_swept(study: Any) -> None:
    grouping = group(collect(study.path, "study"))
    assert grouping.factors == ["optimizer.name", "epochs"]
    assert [each.label for each in grouping.groups] == [
        "adam / 50 epochs",
        "adam / 100 epochs",
        "rmsprop / 50 epochs",
        "rmsprop / 100 epochs",
    ]
    # The missing and the damaged run stand with those that they belong to.
    assert [len(each.runs) for each in grouping.groups] == [5, 5, 5, 5]
    assert grouping.groups[3].count("missing") == 1


def test_whole_store_groups_the_same_way(study: Any) -> None:
    grouping = group(collect(study.path))
    assert grouping.factors == ["optimizer.name", "epochs"]
    assert [len(each.runs) for each in grouping.groups] == [5, 4, 5, 4]


def test_columns_vary_or_are_asked_for(study: Any) -> None:
    grouping = group(collect(study.path, "study"), ["generator.width"])
    assert "optimizer.beta1" in grouping.columns
    assert "batch_size" not in grouping.columns
    assert grouping.columns[-1] == "generator.width"
    with pytest.raises(ConfigError, match=r"got width; alike are generator\.width$"):
        group(collect(study.path, "study"), ["width"])


def test_a_column_that_differs_within_a_swept_value_splits(store: Any) -> None:
    for seed, width in ((0, 32), (1, 64)):
        config = store.config(seed=seed)
        config["generator"]["width"] = width
        store.run(config)
    grouping = group(collect(store.path))
    assert [each.label for each in grouping.groups] == ["generator.width=32", "generator.width=64"]


def test_a_key_that_came_later_does_not_split_off_the_runs_without_it(store: Any) -> None:
    for seed, hidden_width in ((0, None), (1, 0), (2, 256)):
        config = store.config(seed=seed)
        config["store"] = f"somewhere/{seed}"
        config["discriminator"] = {"name": "dcgan"}
        if hidden_width is not None:
            config["discriminator"]["hidden_width"] = hidden_width
        store.run(config)
    grouping = group(collect(store.path))
    found = {each.label: len(each.runs) for each in grouping.groups}
    assert found == {"discriminator.hidden_width=0": 2, "discriminator.hidden_width=256": 1}
    assert "discriminator.hidden_width" in grouping.columns and "store" not in grouping.columns


def test_what_shapes_no_weights_does_not_split(store: Any) -> None:
    store.run(store.config(seed=0))
    other = store.config(seed=1)
    other["store"], other["score"]["nearest_k"] = "elsewhere", 3
    other["data"]["root"] = "films/mine"
    store.run(other)
    (only,) = group(collect(store.path)).groups
    assert only.label == "all runs"


def test_draws_of_a_fraction_are_repeats_as_seeds_are(store: Any) -> None:
    for seed in (0, 1):
        config = store.config(seed=seed)
        config["data"] |= {"fraction": 0.5, "fraction_seed": seed}
        store.run(config, data_hash=f"{seed}" * 64, data_source="folder of 90 images")
    (drawn,) = group(collect(store.path)).groups
    assert len(drawn.runs) == 2
    whole = store.config(seed=0)
    whole["data"]["fraction"] = 1.0
    store.run(whole, data_hash="f" * 64)
    assert [each.label for each in group(collect(store.path)).groups] == [
        "data.fraction=0.5",
        "data.fraction=1",
    ]


def test_fractions_of_two_data_sets_are_two_groups(store: Any) -> None:
    for seed, count in enumerate((90, 90, 80)):
        config = store.config(seed=seed)
        config["data"] |= {"fraction": 0.5}
        store.run(config, data_hash=f"{seed}" * 64, data_source=f"folder of {count} images")
    groups = group(collect(store.path)).groups
    assert {each.label: len(each.runs) for each in groups} == {
        "drawn from folder of 80 images": 1,
        "drawn from folder of 90 images": 2,
    }


def test_precision_and_data_that_were_used_split(store: Any) -> None:
    store.run(store.config(seed=0))
    store.run(store.config(seed=1), precision="fp32")
    store.run(store.config(seed=2), status="unfinished")
    labels = [each.label for each in group(collect(store.path)).groups]
    assert labels[:2] == ["precision=bf16", "precision=fp32"]


def test_numbers_are_ordered_as_numbers(store: Any) -> None:
    for epochs in (100, 9, 50):
        store.run(store.config(epochs=epochs))
    labels = [each.label for each in group(collect(store.path)).groups]
    assert labels == ["9 epochs", "50 epochs", "100 epochs"]


def test_all_missing(store: Any) -> None:
    for optimizer in ("adam", "rmsprop"):
        store.entries.append(store.entry(store.config(optimizer), None))
    store.manifest()
    grouping = group(collect(store.path, "study"))
    assert [each.label for each in grouping.groups] == ["adam", "rmsprop"]
