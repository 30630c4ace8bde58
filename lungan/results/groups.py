"""Runs that differ only in their seeds, grouped by what sets the groups apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from lungan.errors import ConfigError
from lungan.results import numbers
from lungan.results.read import STATUSES, Collection, Run
from lungan.runs.folder import Scalar
from lungan.runs.naming import NOT_SHAPING

_REPEATS = ("seed", "data.fraction_seed")
"""Another draw of the weights, or from the same images."""
_FACTS = ("used.precision", "data_hash")
"""What the config leaves open and still shapes the weights; the precision is the one used."""
_DRAWN = "drawn from "
"""With the source's name in place of the hash of a fraction of it, which differs by draw."""

_Rank: TypeAlias = tuple[int, int | float, str]


@dataclass(slots=True, eq=False)
class Group:
    """values: one for each factor; None where the config has no such key."""

    values: tuple[Scalar, ...]
    label: str
    runs: list[Run] = field(default_factory=list)

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.status == "done"]

    def count(self, status: str) -> int:
        return sum(run.status == status for run in self.runs)


@dataclass(frozen=True, slots=True)
class Grouping:
    """factors: the fewest columns that tell the groups apart. columns: config columns that vary
    or were asked for, ``seed`` and ``epochs`` always."""

    factors: list[str]
    groups: list[Group]
    columns: list[str]


def group(collection: Collection, asked: Sequence[str] = ()) -> Grouping:
    """Sort the runs of a collection into groups, in the order of the factors' values.

    Raises: ConfigError where no run has a column that was asked for.
    """
    known = [run for run in collection.runs if run.status != "missing"] or collection.runs
    varying = _varying_columns(known)
    facts = [key for key in _FACTS if len({_value(run, key) for run in known} - {None}) > 1]
    factors = []
    keys: list[tuple[_Rank, ...]] = [() for _ in known]
    for column in (*_candidates(varying, collection.swept), *facts):
        finer = [(*key, _rank(_value(run, column))) for key, run in zip(keys, known, strict=True)]
        if len(set(finer)) > len(set(keys)):  # it splits further than those before it do
            factors.append(column)
            keys = finer
    groups: dict[tuple[_Rank, ...], Group] = {}

    def home(values: tuple[Scalar, ...]) -> Group:
        new = Group(values, label(factors, values))
        return groups.setdefault(tuple(map(_rank, values)), new)

    uncertain = []
    for run in collection.runs:
        values = tuple(_value(run, factor) for factor in factors)
        lacks_fact = any(f in _FACTS and v is None for f, v in zip(factors, values, strict=True))
        if lacks_fact or (run.status == "missing" and known is not collection.runs):
            uncertain.append((run, values))
        else:
            home(values).runs.append(run)
    certain = list(groups.values())
    for run, values in uncertain:
        # A run joins the one group that agrees with all its known values; where several do, none.
        fits = [
            each
            for each in certain
            if all(v in (None, w) for v, w in zip(values, each.values, strict=True))
        ]
        (fits[0] if len(fits) == 1 else home(values)).runs.append(run)
    ordered = [groups[key] for key in sorted(groups)]
    return Grouping(factors, ordered, _columns(collection.runs, varying, asked))


def label(factors: Sequence[str], values: Sequence[Scalar]) -> str:
    """``adam / 50 epochs``: the values of a group's factors in words."""
    words = []
    for factor, value in zip(factors, values, strict=True):
        if factor == "epochs":
            words.append(f"{value} epochs")
        elif value is None:
            words.append(f"no {factor}")
        elif factor.endswith(".name"):
            words.append(str(value))
        elif factor == "data_hash":
            words.append(str(value) if str(value).startswith(_DRAWN) else f"data {str(value)[:8]}")
        else:
            words.append(f"{factor.removeprefix('used.')}={numbers.scalar(value)}")
    return " / ".join(words) or "all runs"


def _varying_columns(runs: Sequence[Run]) -> list[str]:
    """Config columns in which two of the runs differ, one of them lacking it included.

    Not ``store``: runs that were copied together do not differ by where they were made.
    """
    same = set(runs[0].config.items()) if runs else set()
    for run in runs:
        same.intersection_update(run.config.items())
    hidden = {"store", *(key for key, _ in same)}
    found = dict.fromkeys(chain.from_iterable(run.config for run in runs))
    return [key for key in found if key not in hidden]


def status_counts(runs: Sequence[Run]) -> dict[str, int]:
    """How many runs have each status, in a fixed order, those of none left out."""
    counts = Counter(run.status for run in runs)
    return {status: counts[status] for status in STATUSES if counts[status]}


def _candidates(varying: Sequence[str], swept: Sequence[str]) -> list[str]:
    """Columns that may set groups apart, those that people set first."""
    shaping = [
        key
        for key in varying
        if key not in (*_REPEATS, "precision", *NOT_SHAPING)
        and key.partition(".")[0] not in NOT_SHAPING
    ]
    named = [key for key in shaping if key.endswith(".name")]
    first = dict.fromkeys([*swept, *named, "epochs", "lr", "batch_size", *shaping])
    return [key for key in first if key in shaping]


def _columns(runs: Sequence[Run], varying: Sequence[str], asked: Sequence[str]) -> list[str]:
    known = set().union(*(run.config for run in runs))
    for column in asked:
        if column not in known:
            alike = sorted(key for key in known if column.rpartition(".")[2] in key)[:8]
            hint = f"alike are {', '.join(alike)}" if alike else "see a run's config.yaml"
            raise ConfigError(f"columns must be config keys of the runs, got {column}; {hint}")
    always = [column for column in ("epochs", "seed") if column in known]
    return list(dict.fromkeys([*varying, *always, *asked]))


def _value(run: Run, factor: str) -> Scalar:
    if factor == "data_hash" and run.config.get("data.fraction", 1) != 1:
        return f"{_DRAWN}{run.facts.get('data_source')}"
    return run.facts.get(factor) if factor in _FACTS else run.config.get(factor)


def _rank(value: Scalar) -> _Rank:
    """Numbers by size before words by letter; what is absent comes last. True and 1 are different
    values of a config, 1 and 1.0 are not."""
    if value is None:
        return 2, 0, ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, value, ""
    return 1, 0, str(value)
