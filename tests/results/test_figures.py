from __future__ import annotations

from typing import Any

from lungan.results.comparisons import leaders, summarize
from lungan.results.figures import choose
from lungan.results.groups import group
from lungan.results.read import collect


def test_the_best_groups_by_the_leading_score_in_the_order_of_the_table(store: Any) -> None:
    for epochs in range(1, 29):
        values = {"domain.frechet_distance": 100.0 - epochs, "domain.precision": 0.5}
        ended = {"status": "diverged"} if epochs == 28 else {"values": values}
        store.run(store.config(epochs=epochs), **ended)
    groups = group(collect(store.path)).groups
    best = leaders(summarize(groups))
    assert choose(groups[:27], best, 24) == (
        groups[3:27],
        "Of 27 groups, the 24 best in Fréchet distance (domain) are shown.",
    )
    assert choose(groups, best, 12)[0] == groups[15:27]
    assert choose(groups[:24], best, 24) == (groups[:24], "")


def test_groups_without_a_score_are_shown_in_their_order(store: Any) -> None:
    for epochs in range(1, 15):
        store.run(store.config(epochs=epochs), status="diverged")
    groups = group(collect(store.path)).groups
    assert choose(groups, [], 12) == (groups[:12], "Of 14 groups, the 12 first are shown.")
