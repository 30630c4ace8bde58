"""Which keys are scores, and which way is better."""

from __future__ import annotations

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
