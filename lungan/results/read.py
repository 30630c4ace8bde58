"""Run folders as rows: the runs of a store or of a sweep, and what was passed over.

Nothing in a folder is trusted to be whole. ``load`` gives a DataFrame, ``collect`` what the tables
and tests of this package start from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungan import registry
from lungan.config import GROUPS, rules
from lungan.config.rules import NEUTRAL
from lungan.errors import RunFolderError, shown
from lungan.files import DamagedError, at_home, read_lines, read_yaml, without_paths
from lungan.runs.folder import (
    ATTEMPT,
    CONFIG,
    HASH_DIGITS,
    SUMMARY,
    SWEEPS,
    Scalar,
    flatten,
    ledger_path,
    read_manifest,
    read_metrics,
    read_summary,
    run_folders,
)
from lungan.scores import catalogue

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("done", "diverged", "failed", "unfinished", "missing")
"""The first three are a summary's own; a folder without a summary is unfinished, and a run of a
sweep without a folder that can be read is missing."""

_MAX_NUMBER = 1e100
_FACTS = (
    *("run_id", "trajectory_id", "continued_from", "git_commit", "machine"),
    *("data_hash", "data_source", "epochs_done", "num_train_images"),
)
_SCORING = ("nearest_k", "kernel_subsets", "kernel_subset_size", "inception_splits")
"""Settings of the scores that change what they can be compared with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """folder: of a missing run, where it would be.
    config: dotted keys of RunConfig; for a missing run only those that its sweep set.
    facts: what else is known, by column name. scores: flat keys, None where there is a reason.
    settings: per encoder, all that two scores must share to be compared.
    """

    name: str
    status: str
    folder: Path
    reason: str = ""
    config: dict[str, Scalar] = field(default_factory=dict)
    facts: dict[str, Scalar] = field(default_factory=dict)
    scores: dict[str, float | None] = field(default_factory=dict)
    settings: dict[str, tuple[Scalar, ...]] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Scalar]:
        """All columns that the run has, by their names in tables."""
        about: dict[str, Scalar] = {"run": self.name, "status": self.status, "reason": self.reason}
        return {**about, **self.config, **self.scores, **self.facts}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was passed over: which folder or file, and why."""

    name: str
    text: str


@contextlib.contextmanager
def noting(problems: list[Problem], name: str) -> Iterator[None]:
    """What is read inside and cannot be becomes a problem of ``name``, and is passed over."""
    try:
        yield
    except RunFolderError as error:
        problems.append(Problem(name, str(error)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """swept: the config columns that the sweep sets, in its order; empty for a whole store. study:
    the utility study whose generators these are."""

    store: Path
    runs: list[Run]
    problems: list[Problem]
    sweep: str = ""
    question: str = ""
    command: str = ""
    created: str = ""
    swept: list[str] = field(default_factory=list)
    study: str = ""

    @property
    def commands(self) -> list[str]:
        """What to type to have the runs and these results again, without a path of this machine."""
        store = "STORE" if self.store.is_absolute() else shlex.quote(str(self.store))
        again = f"python -m lungan.results {store}"
        if self.study:
            again = f"lungan utility --study {shlex.quote(self.study)} --store {store}"
        if self.sweep:
            name = shlex.quote(self.sweep)
            again += f" --sweep {name} --out results/{name}"
        return [*([without_paths(self.command)] if self.command else []), again]


def load(store: str | Path = "runs", sweep: str | None = None) -> pd.DataFrame:
    """A row a run of a store, or of one of its sweeps: settings, status, scores and times.

    Columns have the names of config keys and scores: ``optimizer.generator_lr``,
    ``domain.frechet_distance``, ``domain.frechet_distance.floor``. Their types have a missing
    value of their own, so that whole numbers stay whole.

    Raises: RunFolderError where there is no such store or sweep.
    """
    import pandas as pd

    runs = collect(at_home(store, "store"), sweep).runs
    return pd.DataFrame([run.record for run in runs]).convert_dtypes()


def collect(store: Path, sweep: str | None = None) -> Collection:
    """Read every run of ``store``, or those that the manifest of ``sweep`` names.

    Raises: RunFolderError where there is no such store or sweep, or no run in it.
    """
    folders = run_folders(store)
    if sweep is not None:
        return _of_sweep(store, sweep, folders)
    if not any(map(_is_a_run, folders)):
        raise RunFolderError(f"the store {store} holds no run; train first, or give another store")
    runs: list[Run] = []
    problems: list[Problem] = []
    for folder in folders:
        with noting(problems, folder.name):
            runs.append(read_run(folder))
    return Collection(store=store, runs=runs, problems=problems)


def _is_a_run(folder: Path) -> bool:
    """Whether it was ever a run's, damaged or not."""
    return any((folder / name).exists() for name in (SUMMARY, CONFIG))


def _of_sweep(store: Path, sweep: str, folders: Sequence[Path]) -> Collection:
    known = sorted(path.stem for path in (store / SWEEPS).glob("*.json"))
    if sweep not in known:
        have = f"it has {', '.join(known)}" if known else "it has none"
        raise RunFolderError(f"no sweep named {shown(sweep)} in the store {store}; {have}")
    manifest = read_manifest(store, sweep)
    problems: list[Problem] = []
    attempts = _last_attempts(ledger_path(store, sweep), problems)
    by_hash = {folder.name[-HASH_DIGITS:]: folder for folder in folders}
    runs: list[Run] = []
    swept: dict[str, None] = {}
    for run_id, entry in {each["run_id"]: each for each in manifest["runs"]}.items():
        overrides = _overrides(entry)
        swept |= dict.fromkeys(overrides)
        attempt = attempts.get(run_id, {})
        # By its id alone, so that a manifest cannot point out of the store.
        digits = run_id[:HASH_DIGITS]
        folder = by_hash.get(digits, store / f"(no folder) {digits}")
        missing = Run(
            name=one_line(entry.get("folder") or attempt.get("folder") or folder.name),
            status="missing",
            folder=folder,
            config=overrides,
            facts={"run_id": run_id},
        )
        runs.append(_member(missing, attempt, problems))
    if not runs:
        raise RunFolderError(f"the manifest of sweep {sweep} names no run; start the sweep again")
    about = {key: one_line(manifest.get(key) or "") for key in ("question", "command", "created")}
    return Collection(
        store=store, runs=runs, problems=problems, sweep=sweep, swept=list(swept), **about
    )


def _member(missing: Run, attempt: dict[str, Any], problems: list[Problem]) -> Run:
    """The run of a manifest's entry, as far as it got; ``missing`` with a reason if it is."""
    folder, run_id, last = missing.folder, str(missing.facts["run_id"]), ""
    if attempt.get("status") not in (None, "done"):
        last = ", ".join(str(attempt[key]) for key in ("status", "reason") if attempt.get(key))
        last = f"last attempt: {to_publish(last, folder.parent)}"
    if not folder.is_dir():
        return replace(missing, reason=last or "never started")
    try:
        run = read_run(folder)
    except RunFolderError as error:
        problems.append(Problem(folder.name, str(error)))
        return replace(missing, reason=f"its folder cannot be read: {error}")
    if run.status == "unfinished":
        return replace(run, reason=last, facts={**run.facts, "run_id": run_id})
    if run.facts["run_id"] != run_id:
        problems.append(Problem(folder.name, f"holds another run than the sweep's {run_id[:8]}"))
        return replace(missing, reason="its folder holds another run")
    return run


def _overrides(entry: dict[str, Any]) -> dict[str, Scalar]:
    """Overrides as config columns: ``optimizer=adam`` is the column ``optimizer.name``."""
    columns: dict[str, Scalar] = {}
    for key, value in flatten(entry["overrides"]).items():
        name = key.lstrip("+")
        columns[f"{name}.name" if name in GROUPS else name] = _typed(value)
    columns.setdefault("epochs", entry["epochs"])
    return columns


def _typed(value: Scalar) -> Scalar:
    """``"0.001"`` on a command line is the number that the config holds."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
    return parsed if parsed is None or isinstance(parsed, int | float | bool) else value


def _last_attempts(path: Path, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """The ledger's last line for each run id."""
    lines = []
    with noting(problems, path.name):
        lines = [line for line, _ in read_lines(path, ATTEMPT)]
    if damaged := lines.count(None):
        problems.append(Problem(path.name, f"{damaged} lines cannot be read"))
    return {line["run_id"]: line for line in lines if line is not None}


def read_run(folder: Path) -> Run:
    """Read what tables need of one run: its summary, or its config where it has not finished.

    Raises: RunFolderError where the folder is not a run's, or one of its files is damaged.
    """
    try:
        summary = read_summary(folder)
        if summary is not None:
            return _finished(folder, summary)
        if not _is_a_run(folder):
            raise RunFolderError(
                f"it is no run's folder, having neither {SUMMARY} nor {CONFIG}; move it out of the "
                "store"
            )
        config = _completed(flatten(read_yaml(folder / CONFIG)))
        epochs_done = max((row["epoch"] for row in read_metrics(folder)), default=0)
    except DamagedError as error:
        raise RunFolderError(error.reason) from error
    facts: dict[str, Scalar] = {"epochs_done": epochs_done}
    return Run(name=folder.name, status="unfinished", folder=folder, config=config, facts=facts)


def one_line(value: object) -> str:
    """Text with its line breaks and runs of spaces made single spaces."""
    return " ".join(str(value).split())


def to_publish(text: object, store: Path) -> str:
    """One line that says nothing of where things lie on this machine: paths inside the store start
    from it, and of others the name is left."""
    line = one_line(text)
    if "/" in line:
        for root in (store.absolute(), store.resolve()):
            line = re.sub(rf"(?<![\w./~-]){re.escape(str(root))}/", "", line)
    return str(without_paths(line))


def _completed(config: dict[str, Scalar]) -> dict[str, Scalar]:
    """With the keys that came after the run was made, at the values that mean what was before."""
    for group in GROUPS:
        for key, value in _neutral_values(group, config.get(f"{group}.name")):
            config.setdefault(key, value)
    return config


@lru_cache
def _neutral_values(group: str, name: Scalar) -> list[tuple[str, Scalar]]:
    if group != "score" and name not in registry.known(group):
        return []  # of a plug-in that is not here, or would have to be imported
    values = {
        field.name: field.metadata[NEUTRAL]
        for field in dataclasses.fields(rules.schema(GROUPS[group], group, str(name)))
        if NEUTRAL in field.metadata
    }
    return list(flatten(values, f"{group}.").items())


def _finished(folder: Path, summary: dict[str, Any]) -> Run:
    scoring = summary.get("scores") or {}
    values = scoring.get("values", {})
    if any(value is not None and _MAX_NUMBER < abs(value) < math.inf for value in values.values()):
        raise RunFolderError(
            f"{SUMMARY} is damaged: a score is above {_MAX_NUMBER:g}; score the run again with "
            "python -m lungan.score"
        )
    known = {key: summary.get(key) for key in _FACTS}
    known["used"] = {key: summary.get(key) for key in ("device", "precision")}
    known |= {key: summary.get(key) or {} for key in ("seconds", "num_parameters", "versions")}
    facts = flatten(known)
    return Run(
        name=folder.name,
        status=summary["status"],
        reason=to_publish(summary.get("reason") or "", folder.parent),
        folder=folder,
        config=_completed(flatten(summary["config"])),
        facts=facts,
        scores={
            key: None if value is None or not math.isfinite(value) else float(value)
            for key, value in values.items()
        },
        settings=_read_settings(scoring, facts, folder.parent) if scoring else {},
    )


def _read_settings(
    scoring: dict[str, Any], facts: dict[str, Scalar], store: Path
) -> dict[str, tuple[Scalar, ...]]:
    """What each encoder's scores can be compared under; adds what else is known to ``facts``."""
    catalogue.add_recorded(scoring.get("extra", {}))
    about = {key: scoring.get(key) for key in ("num_images", "epoch", "scoring_id")}
    facts |= flatten({"scores": about, "reference": scoring.get("reference", {})})
    reasons = sorted(scoring.get("reasons", {}).items())
    said = "; ".join(f"{key}: {why}" for key, why in reasons)
    facts["scores.reasons"] = to_publish(said, store)
    config = flatten(scoring.get("config", {}))
    alike = (facts.get("scores.num_images"), facts.get("reference.content_hash"))
    settings = {"": (*alike, *map(config.get, _SCORING))}
    for name, encoder in scoring.get("encoders", {}).items():
        weights = flatten({"weights_hash": encoder.get("weights_hash")}, f"encoders.{name}.")
        facts |= weights
        settings[name] = (*settings[""], *weights.values())
    return settings
