from __future__ import annotations

from typing import Any

from lungan.results.comparisons import summarize
from lungan.results.groups import group
from lungan.results.read import collect
from lungan.results.sheet import MAX_SCORE_GROUPS, choose


def test_the_first_groups_that_have_something_to_show(store: Any) -> None:
    for epochs in range(1, MAX_SCORE_GROUPS + 3):
        store.run(store.config(epochs=epochs), status="diverged" if epochs == 1 else "done")
    groups = group(collect(store.path)).groups
    sheet = choose(groups, summarize(groups))
    assert [sheet.num_done, sheet.num_ended] == [MAX_SCORE_GROUPS + 1, MAX_SCORE_GROUPS + 2]
    assert sheet.with_scores == groups[1 : MAX_SCORE_GROUPS + 1]
    assert sheet.with_curves[0] is groups[0]
    assert all(len(cells) == MAX_SCORE_GROUPS for cells in sheet.summaries.values())
