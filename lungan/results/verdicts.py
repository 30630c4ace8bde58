"""What the numbers allow to be said, and what a reader has to know beside them, in sentences."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lungan.results import numbers
from lungan.results.comparisons import (
    MAX_PAIRED_GROUPS,
    Comparison,
    Summary,
    better,
    leaders,
    leading_score,
    main_settings,
)
from lungan.results.groups import Group, status_counts
from lungan.results.read import Problem, Run, one_line
from lungan.results.standing import Side, stand
from lungan.scores import catalogue

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_NAMED = 6
_MAX_BEST = 3
"""Of more groups than can be named, so many are, the best by the leading score."""
_MAIN_SCORE = "frechet_distance"


def headlines(
    runs: Sequence[Run],
    groups: Sequence[Group],
    summaries: Sequence[Summary],
    comparisons: Sequence[Comparison],
) -> list[str]:
    """The answer, then the findings, those that a test supports first; nothing is ranked that is
    not."""
    lines = [answer(runs, summaries, comparisons), _completeness(runs, groups)]
    if all(catalogue.is_inception_score(summary.score) for summary in summaries):
        return lines
    if len({summary.group for summary in summaries}) > 1:
        lines += _differences(comparisons)
    return [*lines, *_floors(summaries)]


def answer(
    runs: Sequence[Run], summaries: Sequence[Summary], comparisons: Sequence[Comparison]
) -> str:
    """One or two sentences for a reader who knows no statistics, in the words of answer.txt.j2.

    Of the leading score. ``comparisons`` are all of the report's: p is corrected for all of them.
    """
    members = leaders(summaries)
    score = members[0].score if members else ""
    known = set(members)
    family = [each for each in comparisons if each.first in known]
    supported = [each for each in family if each.significant]
    # A group that beats all others is named with the least of its leads, else the pair of least p.
    leads = Counter(better(each)[0].group for each in supported)
    best, num_beaten = leads.most_common(1)[0] if leads else (None, 0)
    is_best = num_beaten == len(members) - 1 > 1
    of_best = [each for each in supported if better(each)[0].group is best]
    (line,) = render(
        "answer.txt.j2",
        any_done=any(run.status == "done" for run in runs),
        num_groups=len({summary.group for summary in summaries}),
        members=members,
        score=catalogue.describe(score),
        title=catalogue.title(score),
        is_distance=catalogue.split_key(score)[1] == _MAIN_SCORE,
        tested=[each for each in family if each.p_holm is not None],
        supported=supported,
        num_significant=sum(each.significant for each in comparisons),
        is_best=is_best,
        clearest=(
            min(of_best, key=_lead)
            if is_best
            else min(supported, key=lambda each: each.p_holm or 0.0, default=None)
        ),
        inception_note=inception_note(summaries),
        better=better,
        by_how_much=_by_how_much,
        missed=_missed,
        number=numbers.number,
        interval=numbers.interval,
    )
    return line


def render(template: str, package: str = "lungan.results", **values: Any) -> list[str]:
    """The lines of a package's template, in which every value is one line."""
    return _environment(package).get_template(template).render(values).splitlines()


@lru_cache
def _environment(package: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=one_line,
    )
    environment.filters["scalar"] = numbers.scalar
    return environment


def inception_note(summaries: Sequence[Summary]) -> str:
    """To follow the words "Inception Score" where none of them is Inception's own."""
    encoders = {
        catalogue.split_key(summary.score)[0]
        for summary in summaries
        if catalogue.is_inception_score(summary.score)
    }
    if not encoders or "inception" in encoders:
        return ""
    return (
        f", taken with the encoder {' and '.join(sorted(encoders))}: Inception's own column is "
        "missing, so they are not comparable with published ones"
    )


def _lead(comparison: Comparison) -> float:
    result = comparison.result
    return abs(math.log(result.effect) if result.is_ratio else result.effect)


def _differences(comparisons: Sequence[Comparison]) -> list[str]:
    """The first score of each encoder pair by pair with its sizes, the others by name."""
    by_score: defaultdict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_score[comparison.first.score].append(comparison)
    lines, others, untested = [], [], []
    by_missed: defaultdict[str, list[str]] = defaultdict(list)
    encoders = set()
    for score, family in by_score.items():
        encoder = catalogue.split_key(score)[0]
        supported = [comparison for comparison in family if comparison.significant]
        if all(comparison.p_holm is None for comparison in family):
            untested.append(score)
        elif not supported:
            by_missed[_missed(family)].append(score)
        elif encoder in encoders:
            others += supported
        else:
            lines.append(_in_full(score, supported, len(family)))
        encoders.add(encoder)
    lines += _by_pair(others)
    if by_missed:
        missed = [f"{_titles(scores)} ({words})" for words, scores in by_missed.items()]
        lines.append(f"No significant difference between any two groups in {_listed(missed)}.")
    if untested:
        lines.append(
            f"Cannot be tested, for want of runs or of any variation: {_titles(untested)}."
        )
    return lines


def _completeness(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    counts = status_counts(runs)
    parts = [f"{counts.pop('done', 0)} of {len(runs)} runs finished"]
    for status, count in counts.items():
        where = [f"{g.label}: {n} of {len(g.runs)}" for g in groups if (n := g.count(status))]
        named = f" ({'; '.join(where)})" if len(where) <= _MAX_NAMED and len(groups) > 1 else ""
        parts.append(f"{count} {status}{named}")
    return "; ".join(parts) + "."


def _in_full(score: str, supported: Sequence[Comparison], num_pairs: int) -> str:
    """The clearest differences first, where not all can be named."""
    if len(supported) > _MAX_NAMED:
        supported = sorted(supported, key=lambda each: each.p_holm or 0.0)
    sentences = [f"{each.verdict} {_by_how_much(each)}" for each in supported]
    others = num_pairs - len(supported)
    pairs = "the other pair" if others == 1 else f"the other {others} pairs"
    rest = f"; no difference is supported in {pairs}" if others else ""
    title, hint = catalogue.title(score), catalogue.describe(score).hint
    return f"{title}, {hint}: {_listed(sentences, 'in comparisons.csv')}{rest}."


def _by_how_much(comparison: Comparison) -> str:
    result = comparison.result
    ends = (result.low or 0.0, result.high or 0.0)
    if result.is_ratio:
        turned = result.effect < 1
        effect = 1 / result.effect if turned else result.effect
        low, high = sorted(1 / end if turned and end else end for end in ends)
        size = f"by a factor of {numbers.number(effect, 3)}"
    else:
        low, high = sorted(abs(end) for end in ends)
        size = f"by {numbers.number(abs(result.difference), 3)}"
    p = numbers.p_relation(comparison.p_holm or 0.0)
    return f"{size} (95 % CI {numbers.span(low, high)}, corrected p {p})"


def _missed(family: Sequence[Comparison]) -> str:
    """What could have been there unseen: the largest of what its pairs would have found."""
    tested = [each for each in family if each.detectable is not None]
    largest = max(tested, key=lambda each: each.detectable or 0.0)
    found = largest.detectable or 0.0
    values = [value for each in tested for value in (*each.first.values, *each.second.values)]
    is_ratio = largest.result.is_ratio
    if found > (max(values) / min(values) if is_ratio else max(values) - min(values)):
        return "so few seeds would miss even one as large as between the best and the worst run"
    size = numbers.number(found, 2)
    what = f"a ratio of {size}" if is_ratio else f"a difference of {size}"
    return f"{what} would be found in four of five studies, a smaller one less often"


def _by_pair(supported: Sequence[Comparison]) -> list[str]:
    """What is known of each pair of groups: the scores in which one is better, or higher."""
    pairs: defaultdict[tuple[str, str], defaultdict[str, list[str]]]
    pairs = defaultdict(lambda: defaultdict(list))
    opposite = {"better": "worse", "higher": "lower"}
    for comparison in supported:
        first, _, word = better(comparison)
        said = word if first is comparison.first else opposite[word]
        labels = comparison.first.group.label, comparison.second.group.label
        pairs[labels][said].append(first.score)
    lines = []
    for (one, two), words in list(pairs.items())[:_MAX_NAMED]:
        order = sorted(words, key=("better", "worse", "higher", "lower").index)
        found = [f"{word} in {_titles(words[word])}" for word in order]
        lines.append(f"{one} against {two}: {'; '.join(found)}.")
    if len(pairs) > _MAX_NAMED:
        more = len(pairs) - _MAX_NAMED
        lines.append(f"Pairs of groups with more differences, in comparisons.csv: {more}.")
    return lines


STANDINGS: dict[Side, str] = {
    "at": "Not told from real images, and near their floor:",
    "short": "Worse than real images:",
    "past": "Nearer to real images than real ones are to each other, so look for memorization:",
    "copies": "Nearer to training images than unseen real images are, a sign of copying:",
    "open": "Too uncertain to say whether the floor is reached:",
}


def _floors(summaries: Sequence[Summary]) -> list[str]:
    """Where groups stand to what real images score against real images."""
    standings = stand(summaries)
    sides: defaultdict[str, set[Side]] = defaultdict(set)
    for each in standings:
        sides[each.summary.score].add(each.side)
    missed = [score for score, found in sides.items() if found == {"short"}]
    lines = []
    if missed:
        lines.append(f"No group comes up to the floor of real images in {_titles(missed)}.")
    for side, words in STANDINGS.items():
        groups: defaultdict[tuple[Group, int], list[Summary]] = defaultdict(list)
        for summary in (each.summary for each in standings if each.side == side):
            # Without a sign of copying there may still be some: that is no finding to name.
            is_finding = side != "open" or catalogue.describe(summary.score).limit
            if summary.score not in missed and is_finding:
                groups[summary.group, summary.interval.n].append(summary)
        if groups:
            lines.append(f"{words} {_named(list(groups.values()), summaries)}.")
    return lines


def _named(groups: Sequence[Sequence[Summary]], summaries: Sequence[Summary]) -> str:
    """Each group with its scores; of many, those that are best by the leading score."""
    rest = ""
    is_long = len(groups) > _MAX_NAMED
    if is_long:
        leading = leading_score(summaries)
        rank = {each.group: place for place, each in enumerate(leaders(summaries))}
        groups = sorted(groups, key=lambda members: rank.get(members[0].group, math.inf))
        rest = f"; and {len(groups) - _MAX_BEST} more groups, in summary.csv"
        rest += f" (named are the best in {catalogue.title(leading)})" if leading else ""
        groups = groups[:_MAX_BEST]
    words = []
    for members in groups:
        scores = [each.score for each in members]
        many = is_long and len(scores) > _MAX_BEST
        where = f"{len(scores)} scores" if many else _titles(scores)
        words.append(f"{members[0].group.label} (n = {members[0].interval.n}) in {where}")
    return "; ".join(words) + rest


def _listed(items: Sequence[str], where: str = "") -> str:
    more = len(items) - _MAX_NAMED
    rest = f"; and {more} more{where and f' {where}'}" if more > 0 else ""
    return "; ".join(items[:_MAX_NAMED]) + rest


def _titles(scores: Sequence[str]) -> str:
    """Scores by encoder: ``Precision, Recall (domain) and Coverage (inception)``."""
    by_encoder: dict[str, list[str]] = {}
    for score in scores:
        encoder = catalogue.split_key(score)[0]
        by_encoder.setdefault(encoder, []).append(catalogue.describe(score).title)
    return " and ".join(
        f"{', '.join(titles)} ({encoder})" if encoder else ", ".join(titles)
        for encoder, titles in by_encoder.items()
    )


def caveats(
    runs: Sequence[Run],
    groups: Sequence[Group],
    summaries: Sequence[Summary],
    comparisons: Sequence[Comparison],
    problems: Sequence[Problem],
) -> list[str]:
    """What a reader has to know before trusting a table, in the words of caveats.txt.j2."""
    main = main_settings(summaries)
    apart = [each for each in summaries if each.settings != main[each.score]]
    inception = [each for each in summaries if catalogue.is_inception_score(each.score)]
    reals = [each.real for each in inception if each.real is not None]
    done = [run for run in runs if run.status == "done"]
    reasons = Counter(str(why) for run in done if (why := run.facts.get("scores.reasons")))
    sizes = [len(group.done) for group in groups if group.done]
    return render(
        "caveats.txt.j2",
        counts=Counter(run.status for run in runs),
        num_problems=len(problems),
        sizes=[min(sizes), max(sizes)] if sizes else [],
        num_images=sorted({str(settings[0]) for settings in main.values() if settings}),
        num_apart=len({run.name for each in apart for run in each.runs}),
        has_comparisons=bool(comparisons),
        max_paired=MAX_PAIRED_GROUPS,
        first_of_many=groups[0].label if len(groups) > MAX_PAIRED_GROUPS else "",
        has_floor=any(each.floor is not None for each in summaries),
        has_inception_score=bool(inception),
        inception_note=inception_note(summaries),
        real=numbers.number(reals[0]) if reals else "",
        encoders={catalogue.split_key(score)[0] for score in main},
        reasons=reasons.most_common(5),
        num_unscored=sum(not run.scores for run in done),
    )
