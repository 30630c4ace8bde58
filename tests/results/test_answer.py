"""The sentences that a report opens with, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from lungan.results.comparisons import compare_groups, summarize
from lungan.results.groups import group
from lungan.results.read import collect
from lungan.results.verdicts import answer, headlines

DISTANCE, PRECISION = "domain.frechet_distance", "domain.precision"
NOT_SHOWN = "This does not show that such images help a classifier, nor what other data would give."


def fill(store: Any, by_lr: dict[float, list[float]], score: str = DISTANCE) -> None:
    """One group a learning rate, one run a value."""
    for lr, values in by_lr.items():
        for seed, value in enumerate(values):
            store.run({**store.config(seed=seed), "lr": lr}, values={score: value})


def answered(store: Any) -> str:
    groups = group(collect(store.path)).groups
    summaries = summarize(groups)
    comparisons = compare_groups(summaries)
    told = answer(groups, summaries, comparisons)
    assert headlines(groups, summaries, comparisons)[0] == told
    return told


def test_a_supported_difference(store: Any) -> None:
    fill(store, {0.001: [10, 11, 12, 10.5], 0.002: [20, 21, 23, 22]})
    told = answered(store)
    assert told.startswith(
        "lr=0.001 (4 runs) made images more like the real ones than lr=0.002 (4 runs): it is "
        "better by a factor of 1.98 (95 % CI "
    )
    assert ", corrected p < 0.001) in" in told
    score = "in Fréchet distance (domain), lower is better. Groups score 10.9 to 21.5 in it. "
    assert told.endswith(f"{score}{NOT_SHOWN}")


def test_real_images_stand_beside_what_groups_score(store: Any) -> None:
    for lr, found in ((0.1, (10.0, 10.1, 10.3)), (0.2, (0.004, 0.0041, 0.0042))):
        for seed, value in enumerate(found):
            values = {DISTANCE: value, f"{DISTANCE}.floor": 0.0021}
            store.run({**store.config(seed=seed), "lr": lr}, values=values)
    said = "Groups score 0.00410 to 10.1 in it, real images 0.00210 against each other. "
    assert said + NOT_SHOWN in answered(store)


def test_the_best_of_all_leads_the_nearest(store: Any) -> None:
    fill(store, {0.1: [40, 42, 44], 0.2: [10, 10.6, 11], 0.3: [20, 21, 21.5]})
    told = answered(store)
    assert told.startswith(
        "lr=0.2 (3 runs) made images more like the real ones than each of the other 2 groups: "
        "against the nearest, lr=0.3 (3 runs), it is better by a factor of 1.98"
    )
    assert told.endswith(NOT_SHOWN)


def test_the_clearest_where_none_is_best(store: Any) -> None:
    fill(store, {0.1: [10, 11, 12], 0.2: [10.5, 11.8, 11.1], 0.3: [40, 41, 45]})
    assert "than lr=0.3 (3 runs): it is better" in answered(store)
    assert "(the clearest of 2 differences)" in answered(store)


def test_without_a_distance_the_first_score_that_is_no_inception_score(store: Any) -> None:
    for lr, base in {0.1: 0.9, 0.2: 0.5}.items():
        for seed in range(4):
            values = {PRECISION: base + lr * seed / 50, "domain.inception_score": 3 - base + seed}
            store.run({**store.config(seed=seed), "lr": lr}, values=values)
    told = answered(store)
    assert "scored better than" in told
    assert "it is better by 0.397 (95 % CI 0.393 to 0.401, corrected p < 0.001)" in told
    assert "Precision (domain), higher is better" in told
    assert "Inception" not in told


@pytest.mark.parametrize("others_differ", [False, True])
@pytest.mark.parametrize(
    ("num_seeds", "missed"),
    [
        (4, "so few seeds would miss even one as large as between the best and the worst run"),
        (16, "would be found in four of five studies, a smaller one less often"),
    ],
)
def test_no_supported_difference(
    store: Any, others_differ: bool, num_seeds: int, missed: str
) -> None:
    for lr in (0.1, 0.2):
        for seed in range(num_seeds):
            values = {DISTANCE: (10.0, 14.0, 11.0, 13.0)[seed % 4] + lr * (-1) ** seed}
            values |= {PRECISION: 0.5 + lr + seed / 1000} if others_differ else {}
            store.run({**store.config(seed=seed + round(lr * 1000)), "lr": lr}, values=values)
    told = answered(store)
    assert told.startswith(
        "No difference between groups is supported in Fréchet distance (domain), lower is better, "
        "which does not show that they are equal: "
    )
    assert f"{missed}." in told
    assert told.endswith("Differences in other scores: 1, named below.") == others_differ


@pytest.mark.parametrize("values", [[10.0, 11.0, 12.0], [10.0]])
def test_one_group(store: Any, values: list[float]) -> None:
    for seed, value in enumerate(values):
        scores = {DISTANCE: value, f"{DISTANCE}.floor": 2.0}
        store.run(store.config(seed=seed), values=scores)
    told = answered(store)
    assert told.startswith("Only one group has scores, all runs, so there is nothing to compare: ")
    assert f"(n = {len(values)}), real images 2.00 against each other." in told
    assert told.endswith(
        NOT_SHOWN if len(values) > 1 else "One seed is no evidence; add seed=0,1,2,3,4."
    )


def test_seeds_with_real_images_of_their_own(store: Any) -> None:
    """As a utility study's generators of a fraction have: more seeds would not help."""
    for seed in range(3):
        values = {DISTANCE: 10.0 + seed}
        store.run(store.config(seed=seed), values=values, num_images=600 + seed)
    assert answered(store).endswith(
        "(n = 1). The 2 other scored runs cannot be averaged with it: their N, real images or "
        "encoder differ."
    )


def test_one_seed(store: Any) -> None:
    fill(store, {0.0003: [10.0], 0.001: [14.0], 0.01: [40.0]})
    assert answered(store) == (
        "lr=0.0003 scored best; one seed is no evidence; add seed=0,1,2,3,4. Its Fréchet distance "
        "(domain), lower is better, is 10.0, where the next, lr=0.001, has 14.0."
    )


def test_one_seed_where_higher_is_better(store: Any) -> None:
    fill(store, {0.1: [0.2], 0.2: [0.7]}, PRECISION)
    assert answered(store).startswith("lr=0.2 scored best; one seed is no evidence")


@pytest.mark.parametrize("score", [DISTANCE, "domain.authenticity", "domain.a_plugin's"])
def test_one_seed_without_a_best(store: Any, score: str) -> None:
    fill(store, {0.1: [0.5], 0.2: [0.5 if score == DISTANCE else 0.6]}, score)
    told = answered(store)
    assert told.startswith("No group scored best in ")
    assert told.endswith("one seed is no evidence; add seed=0,1,2,3,4.")


@pytest.mark.parametrize("values", [[14.0, 15.0], [10.0, 10.0]])
def test_what_cannot_be_tested(store: Any, values: list[float]) -> None:
    fill(store, {0.1: [10.0, 10.0] if values[0] == values[1] else [10.0], 0.2: values})
    told = answered(store)
    assert told.startswith("The groups cannot be compared in Fréchet distance (domain): too few")
    assert told.endswith("add seed=0,1,2,3,4.")


def test_no_scores(store: Any) -> None:
    store.run(status="failed", reason="no")
    assert answered(store).endswith("nothing to compare: no run has finished yet.")
    store.run(store.config(seed=1))
    assert answered(store).endswith("nothing to compare: python -m lungan.score adds them.")


@pytest.mark.parametrize("encoder", ["domain", "inception"])
def test_inception_scores_alone_and_whose_they_are(store: Any, encoder: str) -> None:
    fill(store, {0.1: [1.1, 1.2, 1.3], 0.2: [3.1, 3.2, 3.3]}, f"{encoder}.inception_score")
    told = answered(store)
    assert told.startswith("Inception Scores are the only ones here")
    assert told.endswith(
        "They say nothing alone: score the runs again with python -m lungan.score."
    )
    missing = "taken with the encoder domain: Inception's own column is missing" in told
    assert missing == (encoder == "domain")
    assert "better" not in told
