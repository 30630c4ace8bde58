"""What of a study is drawn: the first groups and scores, so that figures stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lungan.results.comparisons import Summary, main_settings
from lungan.results.groups import Group

MAX_CURVE_GROUPS = 12
MAX_SAMPLE_GROUPS = 8
MAX_SCORE_GROUPS = 24


@dataclass(frozen=True, slots=True)
class Sheet:
    """What the figures show of any number of runs.

    with_scores, with_samples, with_curves: the first groups that have any; num_done, num_ended: how
    many groups have a finished run, a finished or diverged one. summaries: of ``with_scores``, by
    score, under the settings that most runs share; num_scores: how many scores there are.
    """

    with_scores: list[Group]
    with_samples: list[Group]
    with_curves: list[Group]
    num_done: int
    num_ended: int
    summaries: dict[str, list[Summary]]
    num_scores: int


def choose(groups: Sequence[Group], summaries: Sequence[Summary]) -> Sheet:
    """The sheet of all groups and summaries."""
    done = [group for group in groups if group.done]
    ended = [group for group in groups if group.done or group.count("diverged")]
    with_scores = done[:MAX_SCORE_GROUPS]
    main = main_settings(summaries)
    limit = max(6, min(24, 120 // max(1, len(with_scores))))
    shown: dict[str, list[Summary]] = {score: [] for score in list(main)[:limit]}
    known = set(map(id, with_scores))
    for summary in summaries:
        if id(summary.group) in known and summary.settings == main[summary.score]:
            shown.get(summary.score, []).append(summary)
    return Sheet(
        with_scores=with_scores,
        with_samples=done[:MAX_SAMPLE_GROUPS],
        with_curves=ended[:MAX_CURVE_GROUPS],
        num_done=len(done),
        num_ended=len(ended),
        summaries={score: cells for score, cells in shown.items() if cells},
        num_scores=len(main),
    )
