"""What a reader has to keep in mind beside the numbers, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lungan.results import numbers
from lungan.results.comparisons import MAX_PAIRED_GROUPS, Comparison, Summary, main_settings
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.results.verdicts import inception_note
from lungan.scores import catalogue


def caveats(
    runs: Sequence[Run],
    groups: Sequence[Group],
    summaries: Sequence[Summary],
    comparisons: Sequence[Comparison],
    problems: Sequence[Problem],
) -> list[str]:
    """What a reader has to know before trusting a table, the particular before the general."""
    return [
        *_about_runs(runs, groups, problems),
        *_about_settings(summaries),
        *_about_tests(groups, comparisons),
        *_about_scores(summaries),
        *_about_gaps(runs),
    ]


def _about_runs(
    runs: Sequence[Run], groups: Sequence[Group], problems: Sequence[Problem]
) -> list[str]:
    lines = []
    if any(run.status == "diverged" for run in runs):
        lines.append(
            "Means are over finished runs. A group that lost runs to divergence shows its "
            "lucky ones: read its scores beside how many of its runs finished."
        )
    if any(run.status in ("failed", "unfinished", "missing") for run in runs):
        lines.append("The sweep is not complete: more runs may change what is said here.")
    if problems:
        lines.append(f"Passed over as damaged, and listed as problems: {len(problems)}.")
    sizes = sorted({len(group.done) for group in groups if group.done})
    if sizes:
        words = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        lines.append(
            f"n = {words} finished runs in a group. Each interval holds for new seeds on the same "
            "data, and says nothing about other data or settings."
        )
    return lines


def _about_settings(summaries: Sequence[Summary]) -> list[str]:
    main = main_settings(summaries)
    lines = []
    sizes = sorted({str(settings[0]) for settings in main.values() if settings})
    if sizes:
        lines.append(
            f"Scores are taken from N = {', '.join(sizes)} generated images. Their bias depends "
            "on N, so only scores of equal N, reference images and encoder are compared."
        )
    others = {
        run.name
        for summary in summaries
        if summary.settings != main[summary.score]
        for run in summary.runs
    }
    if others:
        lines.append(
            f"{len(others)} runs were scored with another N, reference or encoder than most. "
            "They stand apart in summary.csv, and not in the table and figures here."
        )
    return lines


def _about_gaps(runs: Sequence[Run]) -> list[str]:
    """Why scores are missing from finished runs, the commonest reasons first."""
    reasons = Counter(
        str(reason)
        for run in runs
        if run.status == "done" and (reason := run.facts.get("scores.reasons"))
    )
    lines = [f"Not scored in {count} runs: {reason}." for reason, count in reasons.most_common(5)]
    unscored = sum(run.status == "done" and not run.scores for run in runs)
    if unscored:
        lines.append(f"{unscored} finished runs have no scores: python -m lungan.score adds them.")
    return lines


def _about_tests(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[str]:
    lines = []
    if comparisons:
        lines.append(
            "Differences are tested with Student's t, paired by seed where both groups have the "
            "same seeds and after Welch otherwise; distances and Inception Scores by their "
            "ratios. p is corrected after Holm for all pairs and all scores of this report "
            "together: if no groups differed, one report in twenty would name a difference. "
            "Intervals are for one pair, uncorrected, and the verdict follows p. With few seeds "
            "a real difference is easily missed: beside each pair stands the smallest difference "
            "that so many seeds find in four of five studies."
        )
    if len(groups) > MAX_PAIRED_GROUPS:
        lines.append(
            f"With more than {MAX_PAIRED_GROUPS} groups, each is compared to the first only: "
            f"{groups[0].label}."
        )
    return lines


def _about_scores(summaries: Sequence[Summary]) -> list[str]:
    lines = []
    if any(summary.floor is not None for summary in summaries):
        lines.append(
            "The floor is the same score between two disjoint sets of real images of the same "
            "size: no generator can be expected to do better. Whether a group stands at it, short "
            "of it or past it accounts for the floor's own scatter and for the one half of the "
            "real images that all seeds are compared with; p is corrected after Holm for all "
            "groups and scores."
        )
    inception = [summary for summary in summaries if catalogue.is_inception_score(summary.score)]
    if inception:
        real = next((summary.real for summary in inception if summary.real is not None), None)
        beside = f", and the real images have {numbers.number(real)} here" if real else ""
        lines.append(
            f"The least that an Inception Score can be is 1{beside}{inception_note(inception)}. "
            "On grey radiographs it says little (Barratt and Sharma 2018): never read it alone."
        )
    if any(catalogue.split_key(summary.score)[0] == "inception" for summary in summaries):
        lines.append(
            "Inception features were learned on photographs; torchvision's weights and resizing "
            "give other values than the TensorFlow originals."
        )
    return lines
