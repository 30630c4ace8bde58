from __future__ import annotations

from typing import Any

from lungan.results.comparisons import summarize
from lungan.results.figures import MAX_CURVE_GROUPS, MAX_SCORE_GROUPS, choose
from lungan.results.groups import group
from lungan.results.read import collect


def test_the_best_groups_by_the_leading_score_in_the_order_of_the_table(store: Any) -> None:
    number = MAX_SCORE_GROUPS + 4
    for epochs in range(1, number + 1):
        values = {"domain.frechet_distance": 100.0 - epochs, "domain.precision": 0.5}
        ended = {"status": "diverged"} if epochs == number else {"values": values}
        store.run(store.config(epochs=epochs), **ended)
    groups = group(collect(store.path)).groups
    sheet = choose(groups, summarize(groups))
    assert [sheet.num_done, sheet.num_ended] == [number - 1, number]
    assert sheet.with_scores == groups[3 : number - 1]
    assert sheet.with_curves == groups[number - 1 - MAX_CURVE_GROUPS : number - 1]
    assert all(len(cells) == MAX_SCORE_GROUPS for cells in sheet.summaries.values())
    assert sheet.left_out(27, 24) == (
        "Of 27 groups, the 24 best in Fréchet distance (domain) are shown. "
    )
    assert sheet.left_out(24, 24) == ""


def test_groups_without_a_score_are_shown_in_their_order(store: Any) -> None:
    for epochs in range(1, MAX_CURVE_GROUPS + 3):
        store.run(store.config(epochs=epochs), status="diverged")
    groups = group(collect(store.path)).groups
    sheet = choose(groups, [])
    assert sheet.with_curves == groups[:MAX_CURVE_GROUPS]
    assert sheet.left_out(14, 12) == "Of 14 groups, the 12 first are shown. "
