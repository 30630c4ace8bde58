"""What the numbers allow to be said, and what a reader has to know beside them, in sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lungan.results import numbers
from lungan.results.comparisons import (
    MAX_PAIRED_GROUPS,
    Comparison,
    Side,
    Summary,
    leaders,
    mean_of,
    ranks,
)
from lungan.results.groups import Group, status_counts
from lungan.results.read import Problem, one_line
from lungan.scores import catalogue

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_NAMED = 6
_MAX_BEST = 3
"""Of more groups than can be named, so many are, the best by the leading score."""


def headlines(
    groups: Sequence[Group], summaries: Sequence[Summary], comparisons: Sequence[Comparison]
) -> list[str]:
    """The answer, then the findings in the words of findings.txt.j2, those that a test supports
    first; nothing is ranked that is not."""
    runs = [run for group in groups for run in group.runs]
    inception_alone = all(catalogue.is_inception_score(summary.score) for summary in summaries)
    counts = {"done": 0, **status_counts(runs)}
    several = len({summary.group for summary in summaries}) > 1
    return [
        answer(groups, summaries, comparisons),
        *render(
            "findings.txt.j2",
            num_runs=len(runs),
            counts=counts,
            num_groups=len(groups),
            groups_with={status: [g for g in groups if g.count(status)] for status in counts},
            differences=_differences(comparisons if several and not inception_alone else []),
            floors=_floors([] if inception_alone else summaries),
            max_named=_MAX_NAMED,
            max_best=_MAX_BEST,
        ),
    ]


def answer(
    groups: Sequence[Group], summaries: Sequence[Summary], comparisons: Sequence[Comparison]
) -> str:
    """One or two sentences for a reader who knows no statistics, in the words of answer.txt.j2.

    Of the leading score. ``comparisons`` are all of the report's: p is corrected for all of them.
    """
    members = leaders(summaries)
    score = members[0].score if members else ""
    known = set(members)
    family = [each for each in comparisons if each.first in known]
    supported = [each for each in family if each.significant]
    clearest = min(supported, key=lambda each: each.p_holm or 0.0, default=None)
    # A group that beats all others is named with the least of its leads, else the pair of least p.
    leads: defaultdict[Group, list[Comparison]] = defaultdict(list)
    for each in supported:
        leads[each.order[0].group].append(each)
    of_best = max(leads.values(), key=len, default=[])
    if is_best := len(of_best) == len(members) - 1 > 1:
        clearest = min(of_best, key=lambda each: each.result.size)
    (line,) = render(
        "answer.txt.j2",
        any_done=any(group.done for group in groups),
        num_groups=len({summary.group for summary in summaries}),
        num_apart=_num_apart(summaries),
        members=members,
        score=catalogue.describe(score),
        name=catalogue.title(score),
        floor=mean_of(each.floor for each in members),
        is_distance=catalogue.name_of(score) == catalogue.LEADING,
        tested=[each for each in family if each.p_holm is not None],
        supported=supported,
        num_significant=sum(each.significant for each in comparisons),
        is_best=is_best,
        clearest=clearest,
        inception_encoders=_inception_encoders(summaries),
    )
    return line


def render(template: str, package: str = "lungan.results", **values: Any) -> list[str]:
    """The lines of a package's template, in which every value is one line."""
    environment = templates(package, finalize=one_line)
    return environment.get_template(template).render(values).splitlines()


@lru_cache
def templates(package: str, **options: Any) -> Environment:
    """A package's templates, with the words for numbers and scores. options: more of jinja2's."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package), undefined=StrictUndefined, trim_blocks=True, **options
    )
    environment.filters |= {"moment": numbers.moment, "scalar": numbers.scalar}
    words = (_by_how_much, _missed, _titles, catalogue.describe, catalogue.title)
    functions = (*words, numbers.interval, numbers.number)
    environment.globals |= {each.__name__.lstrip("_"): each for each in functions}
    return environment


def _inception_encoders(summaries: Sequence[Summary]) -> list[str]:
    """Whose features Inception Scores are taken of; only Inception's own are published ones."""
    scores = {each.score for each in summaries if catalogue.is_inception_score(each.score)}
    return sorted(map(catalogue.encoder_of, scores))


def _differences(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What findings.txt.j2 says of differences: the first score of each encoder pair by pair with
    its sizes, the others by name."""
    by_score: defaultdict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_score[comparison.first.score].append(comparison)
    in_full: dict[str, tuple[list[Comparison], int]] = {}
    by_missed: defaultdict[str, list[str]] = defaultdict(list)
    others, untested, encoders = [], [], set()
    for score, family in by_score.items():
        encoder = catalogue.encoder_of(score)
        supported = [comparison for comparison in family if comparison.significant]
        if all(comparison.p_holm is None for comparison in family):
            untested.append(score)
        elif not supported:
            by_missed[_missed(family)].append(score)
        elif encoder in encoders:
            others += supported
        else:
            if len(supported) > _MAX_NAMED:  # the clearest first, where not all can be named
                supported.sort(key=lambda each: each.p_holm or 0.0)
            in_full[score] = supported, len(family) - len(supported)
        encoders.add(encoder)
    missed = list(by_missed.items())
    return {"in_full": in_full, "pairs": _by_pair(others), "missed": missed, "untested": untested}


def _by_how_much(comparison: Comparison) -> str:
    result, p = comparison.result, numbers.p_relation(comparison.p_holm or 0.0)
    sizes = [result.effect, result.low or 0.0, result.high or 0.0]
    if result.is_ratio and result.effect < 1:
        sizes = [1 / size if size else size for size in sizes]
    effect, one, other = map(abs, sizes)
    size = f"{'a factor of ' if result.is_ratio else ''}{numbers.number(effect, 3)}"
    span = numbers.span(min(one, other), max(one, other))
    return f"by {size} (95 % CI {span}, corrected p {p})"


def _num_apart(summaries: Sequence[Summary]) -> int:
    """How many runs were scored otherwise than most, for instance on real images of their own."""
    return len({run.name for each in summaries if not each.is_main for run in each.runs})


def _missed(family: Sequence[Comparison]) -> str:
    """What could have been there unseen: the largest of what its pairs would have found."""
    tested = [each for each in family if each.detectable is not None]
    largest = max(tested, key=lambda each: each.detectable or 0.0)
    found, is_ratio = largest.detectable or 0.0, largest.result.is_ratio
    values = [value for each in tested for value in (*each.first.values, *each.second.values)]
    if found > (max(values) / min(values) if is_ratio else max(values) - min(values)):
        return "so few seeds would miss even one as large as between the best and the worst run"
    what = f"a {'ratio' if is_ratio else 'difference'} of {numbers.number(found, 2)}"
    return f"{what} would be found in four of five studies, a smaller one less often"


def _by_pair(supported: Sequence[Comparison]) -> list[tuple[str, str, list[tuple[str, list[str]]]]]:
    """What is known of each pair of groups: the scores in which one is better, or higher."""
    pairs: defaultdict[tuple[str, str], dict[str, list[str]]]
    pairs = defaultdict(lambda: {"better": [], "worse": [], "higher": [], "lower": []})
    opposite = {"better": "worse", "higher": "lower"}
    for comparison in supported:
        first, _, word = comparison.order
        said = word if first is comparison.first else opposite[word]
        labels = comparison.first.group.label, comparison.second.group.label
        pairs[labels][said].append(first.score)
    return [
        (*labels, [(word, scores) for word, scores in words.items() if scores])
        for labels, words in pairs.items()
    ]


STANDINGS: dict[Side, str] = {
    "at": "Not told from real images, and near their floor:",
    "short": "Worse than real images:",
    "past": "Nearer to real images than real ones are to each other, so look for memorization:",
    "copies": "Nearer to training images than unseen real images are, a sign of copying:",
    "open": "Too uncertain to say whether the floor is reached:",
}


def _floors(summaries: Sequence[Summary]) -> dict[str, Any]:
    """What findings.txt.j2 says of groups and floors: scores in which all are short of the floor,
    then by side each other group's."""
    best = leaders(summaries)
    sides: defaultdict[str, set[Side]] = defaultdict(set)
    for each in summaries:
        if each.side is not None:
            sides[each.score].add(each.side)
    missed = [score for score, found in sides.items() if found == {"short"}]
    by_side = []
    for side, words in STANDINGS.items():
        groups: defaultdict[tuple[Group, int], list[str]] = defaultdict(list)
        for each in summaries:
            # Without a sign of copying there may still be some: that is no finding to name.
            is_finding = side != "open" or catalogue.describe(each.score).limit
            if each.side == side and each.score not in missed and is_finding:
                groups[each.group, each.interval.n].append(each.score)
        found = [(group, n, scores) for (group, n), scores in groups.items()]
        if len(found) > _MAX_NAMED:
            rank = ranks(best)
            found.sort(key=lambda each: rank[each[0]])
        if found:
            by_side.append((words, found))
    return {"missed": missed, "by_side": by_side, "leading": best[0].score if best else ""}


def _titles(scores: Sequence[str]) -> str:
    """Scores by encoder: ``Precision, Recall (domain) and Coverage (inception)``."""
    by_encoder: dict[str, list[str]] = {}
    for score in scores:
        encoder = catalogue.encoder_of(score)
        by_encoder.setdefault(encoder, []).append(catalogue.describe(score).title)
    return " and ".join(
        f"{', '.join(titles)} ({encoder})" if encoder else ", ".join(titles)
        for encoder, titles in by_encoder.items()
    )


def caveats(
    groups: Sequence[Group],
    summaries: Sequence[Summary],
    comparisons: Sequence[Comparison],
    problems: Sequence[Problem],
) -> list[str]:
    """What a reader has to know before trusting a table, in the words of caveats.txt.j2."""
    done = [run for group in groups for run in group.done]
    reasons = Counter(str(why) for run in done if (why := run.facts.get("scores.reasons")))
    inception = [each for each in summaries if catalogue.is_inception_score(each.score)]
    return render(
        "caveats.txt.j2",
        counts=Counter(run.status for group in groups for run in group.runs),
        problems=problems,
        sizes=sorted(len(group.done) for group in groups if group.done),
        num_images=sorted({str(s.num_images) for s in summaries if s.is_main and s.settings}),
        num_apart=_num_apart(summaries),
        comparisons=comparisons,
        groups=groups,
        max_paired=MAX_PAIRED_GROUPS,
        has_floor=any(each.floor is not None for each in summaries),
        inception_encoders=_inception_encoders(summaries),
        reals=[each.real for each in inception if each.real is not None],
        encoders={catalogue.encoder_of(each.score) for each in summaries},
        reasons=reasons.most_common(5),
        num_unscored=sum(not run.scores for run in done),
    )
