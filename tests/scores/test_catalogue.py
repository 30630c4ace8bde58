"""Which keys are scores, and which way is better."""

from __future__ import annotations

import dataclasses

import pytest

from lungan.scores import catalogue


@pytest.mark.parametrize("ending", ["floor", "floor_std", "std", "real", "real_std"])
def test_what_stands_beside_a_score_is_none(ending: str) -> None:
    assert catalogue.is_score("domain.inception_score")
    assert not catalogue.is_score(f"domain.inception_score.{ending}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("frechet_distance", "lower is better"),
        ("coverage", "higher is better"),
        ("memorization_c_t", "best 0"),
        ("authenticity", "best at the floor"),
        ("a_new_score", "no direction known"),
    ],
)
def test_each_direction_has_its_words(name: str, hint: str) -> None:
    assert catalogue.describe(f"domain.{name}").hint == hint


def test_a_plug_in_says_what_its_score_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(catalogue.CATALOGUE))
    assert catalogue.describe("domain.sharpness").direction == "unknown"
    catalogue.add("sharpness", catalogue.Score("Sharpness", "higher", low=0.0))
    assert catalogue.title("domain.sharpness") == "Sharpness (domain)"
    assert catalogue.describe("domain.sharpness").hint == "higher is better"
    names = ("coverage", "sharpness", "inception_score")
    places = [catalogue.order(f"domain.{name}") for name in names]
    assert places == sorted(places)


def test_what_a_run_folder_says_of_a_score_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(catalogue.CATALOGUE))
    sound = dataclasses.asdict(catalogue.Score("Sharpness", "higher", low=0.0))
    wrong = {"a": None, "b": {}, "c": sound | {"direction": "up"}, "d": sound | {"limit": "no"}}
    recall = catalogue.CATALOGUE["recall"]
    catalogue.add_recorded({"sharpness": sound, "recall": sound} | wrong)
    assert catalogue.describe("domain.sharpness").hint == "higher is better"
    assert catalogue.CATALOGUE["recall"] is recall and not set(wrong) & set(catalogue.CATALOGUE)


def test_every_score_says_what_is_good() -> None:
    for name, score in catalogue.CATALOGUE.items():
        assert score.good, name
        assert score.scale in ("linear", "log"), name
        if score.scale == "log":
            assert score.low is not None and score.low >= 0, name


def test_what_stands_beside_a_score_ends_as_the_catalogue_says() -> None:
    for ending in (".floor_low", ".floor_high", ".floor_shared", ".real_low", ".real_high"):
        assert not catalogue.is_score(f"domain.coverage{ending}")
    assert catalogue.floor_key("domain.coverage") == "domain.coverage.floor"
    assert catalogue.floor_key("domain.inception_score") == "domain.inception_score.real"
