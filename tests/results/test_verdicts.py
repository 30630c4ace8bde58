"""Sentences that carry claims, one by one, beside those of test_answer and test_comparisons."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from lungan.results.comparisons import MAX_PAIRED_GROUPS, compare_groups, summarize
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.results.verdicts import caveats, headlines

DISTANCE, PRECISION, RECALL = (
    f"domain.{name}" for name in ("frechet_distance", "precision", "recall")
)


def group(label: str, scores: dict[str, float], **changes: Any) -> Group:
    """Four runs whose scores lie round these values; the floor of a distance is 2."""
    runs = []
    rng = random.Random(label)
    for seed in range(4):
        found: dict[str, float | None] = {
            key: value * (1 + rng.gauss(0, 0.003)) for key, value in scores.items()
        }
        if DISTANCE in scores:
            floor = {"": 2.0, "_std": 0.2, "_low": 1.6, "_high": 2.4, "_shared": 0.7}
            found |= {f"{DISTANCE}.floor{key}": value for key, value in floor.items()}
        fields: dict[str, Any] = {"status": "done", "settings": {"domain": (500,)}, "scores": found}
        own: dict[str, Any] = {
            "name": f"{label}-{seed}",
            "folder": Path(),
            "config": {"seed": seed},
        }
        runs.append(Run(**{**own, **fields, **changes}))
    return Group((label,), label, runs)


def said(groups: list[Group]) -> list[str]:
    summaries = summarize(groups)
    return headlines(groups, summaries, compare_groups(summaries))


def noted(groups: list[Group], problems: list[Problem] | None = None) -> list[str]:
    summaries = summarize(groups)
    return caveats(groups, summaries, compare_groups(summaries), problems or [])


def test_further_scores_of_an_encoder_are_said_pair_by_pair() -> None:
    unknown = "domain.of_a_plugin"
    one = group("one", {DISTANCE: 10, PRECISION: 0.9, RECALL: 0.2, unknown: 5})
    two = group("two", {DISTANCE: 30, PRECISION: 0.5, RECALL: 0.7, unknown: 9})
    assert (
        "one against two: better in Precision (domain); worse in Recall (domain); lower in of a "
        "plugin (domain)." in said([one, two])
    )


def test_of_many_pairs_the_clearest_are_said_and_the_rest_counted() -> None:
    groups = [group(f"g{n}", {DISTANCE: 10.0 * 1.3**n, PRECISION: 0.9 - 0.1 * n}) for n in range(5)]
    lines = said(groups)
    assert any(
        line.startswith("Fréchet distance (domain), lower is better: g")
        and line.count(" is better than ") == 6
        and line.endswith("; and 4 more in comparisons.csv.")
        for line in lines
    )
    assert "Pairs of groups with more differences, in comparisons.csv: 4." in lines


def test_of_many_groups_the_best_are_named_and_the_rest_counted() -> None:
    groups = [
        group(f"g{n}", {PRECISION: 0.5, DISTANCE: 2.1 if n == 0 else 300.0 - n}) for n in range(40)
    ]
    lines = said(groups)
    assert max(map(len, lines)) < 700
    (line,) = [line for line in lines if line.startswith("Worse than real images:")]
    best = "; ".join(f"g{n} (n = 4) in Fréchet distance (domain)" for n in (39, 38, 37))
    assert line == (
        f"Worse than real images: {best}; and 36 more groups, in summary.csv (named are the best "
        "in Fréchet distance (domain))."
    )


def test_a_group_of_many_that_differs_in_many_scores_has_them_counted() -> None:
    keys = ("frechet_distance", "kernel_distance", "precision", "recall", "coverage")
    floors = dict(zip(keys, (2.0, 0.1, 0.9, 0.9, 0.9), strict=True))
    groups = []
    for number in range(8):
        scores = {f"domain.{key}": 30.0 if "distance" in key else 0.1 for key in keys}
        made = group(f"g{number}", scores)
        for run in made.runs:
            for key, floor in floors.items():
                ends = {"": floor, "_low": floor * 0.95, "_high": floor * 1.05, "_shared": 0.7}
                run.scores.update({f"domain.{key}.floor{end}": at for end, at in ends.items()})
        groups.append(made)
    # One group reaches the floors, so that the sentence of no group does not take its place.
    for run in groups[0].runs:
        run.scores.update({f"domain.{key}": floor for key, floor in floors.items()})
    (line,) = [line for line in said(groups) if line.startswith("Worse than real images:")]
    assert line.count(" (n = 4) in 5 scores") == 3


def test_where_runs_end_is_not_said_for_many_groups() -> None:
    few = [group(f"g{n}", {}, status="diverged") for n in range(2)]
    many = [group(f"g{n}", {}, status="diverged") for n in range(7)]
    assert said(few)[1] == "0 of 8 runs finished; 8 diverged (g0: 4 of 4; g1: 4 of 4)."
    assert said(many)[1] == "0 of 28 runs finished; 28 diverged."


def test_a_group_that_alone_has_the_leading_score() -> None:
    first = said([group("one", {DISTANCE: 10}), group("two", {PRECISION: 0.5})])[0]
    assert first.startswith(
        "Only one has Fréchet distance (domain) taken as most runs', so there is nothing to "
        "compare in it: "
    )


@pytest.mark.parametrize(
    ("groups", "note"),
    [
        (
            [group("a", {DISTANCE: 9}), group("b", {DISTANCE: 9}, status="unfinished")],
            "The sweep is not complete: more runs may change what is said here.",
        ),
        (
            [group("a", {DISTANCE: 9})],
            "n = 4 finished runs in a group. Each interval holds for new seeds on the same data, "
            "and says nothing about other data or settings.",
        ),
        (
            [group("a", {DISTANCE: 9})],
            "Scores are taken from N = 500 generated images. Their bias depends on N, so only "
            "scores of equal N, reference images and encoder are compared.",
        ),
        (
            [group(f"{n}", {DISTANCE: 9.0 + n}) for n in range(MAX_PAIRED_GROUPS + 1)],
            "With more than 20 groups, each is compared to the first only: 0.",
        ),
        (
            [group("a", {"inception.frechet_distance": 9})],
            "Inception features were learned on photographs; torchvision's weights and resizing "
            "give other values than the TensorFlow originals.",
        ),
        (
            [group("a", {"inception.inception_score": 1.5})],
            "The least that an Inception Score can be is 1. On grey radiographs it says little "
            "(Barratt and Sharma 2018): never read it alone.",
        ),
        (
            [group("a", {})],
            "4 finished runs have no scores: python -m lungan.score adds them.",
        ),
    ],
)
def test_what_a_reader_has_to_know(groups: list[Group], note: str) -> None:
    assert note in noted(groups)


def test_problems_are_counted() -> None:
    notes = noted([group("a", {DISTANCE: 9})], [Problem("x", "damaged")])
    assert "Passed over as damaged, and listed as problems: 1." in notes


def test_how_tests_and_floors_are_corrected_is_said_where_there_are_some() -> None:
    groups = [group("a", {DISTANCE: 9}), group("b", {DISTANCE: 30})]
    notes = " ".join(noted(groups))
    assert "p is corrected after Holm for all pairs and all scores of this report together" in notes
    assert "p is corrected after Holm for all groups and scores." in notes
    alone = " ".join(noted([group("a", {PRECISION: 0.5})]))
    assert "Holm" not in alone
