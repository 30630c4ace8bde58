"""Run folders as rows: the runs of a store or of a sweep, and what was passed over.

Nothing in a folder is trusted to be whole. ``load`` gives a DataFrame, ``collect`` what the tables
and tests of this package start from.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lungan import registry
from lungan.config import GROUPS, rules
from lungan.config.rules import NEUTRAL
from lungan.errors import RunFolderError
from lungan.files import at_home
from lungan.runs.folder import ATTEMPT, CONFIG, METRICS, SUMMARY, UTILITY
from lungan.runs.reading import DamagedError, read_json, read_lines, read_yaml

if TYPE_CHECKING:
    import pandas as pd

Scalar: TypeAlias = str | int | float | bool | None

STATUSES = ("done", "diverged", "failed", "unfinished", "missing")
"""The first three are a summary's own; a folder without a summary is unfinished, and a run of a
sweep without a folder that can be read is missing."""

_SCALAR_TYPES = frozenset((str, int, float, bool, type(None)))
_MAX_NUMBER = 1e100
_TAIL_BYTES = 64 * 2**10
SWEEPS_FOLDER = "sweeps"
_HASH_DIGITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """config: dotted keys of RunConfig; for a missing run only those that its sweep set.
    facts: what else is known, by column name. scores: flat keys, None where there is a reason.
    settings: per encoder, all that two scores must share to be compared.
    """

    name: str
    status: str
    reason: str = ""
    folder: Path | None = None
    config: dict[str, Scalar] = field(default_factory=dict)
    facts: dict[str, Scalar] = field(default_factory=dict)
    scores: dict[str, float | None] = field(default_factory=dict)
    settings: dict[str, tuple[Scalar, ...]] = field(default_factory=dict)

    @property
    def num_images(self) -> int | None:
        """Generated images that the scores were taken from."""
        value = self.facts.get("scores.num_images")
        return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was passed over: which folder or file, and why."""

    name: str
    text: str


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


def load(store: str | Path = "runs", sweep: str | None = None) -> pd.DataFrame:
    """A row a run of a store, or of one of its sweeps: settings, status, scores and times.

    Columns have the names of config keys and scores: ``optimizer.generator_lr``,
    ``domain.frechet_distance``, ``domain.frechet_distance.floor``. Their types have a missing
    value of their own, so that whole numbers stay whole.

    Raises: RunFolderError where there is no such store or sweep.
    """
    return frame(collect(at_home(store), sweep).runs)


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run, in their order; columns in the order in which runs first have them."""
    import pandas as pd

    rows: list[dict[str, Scalar]] = [
        {"run": run.name, "status": run.status, "reason": run.reason}
        | run.config
        | dict(run.scores)
        | run.facts
        for run in runs
    ]
    return pd.DataFrame(rows).convert_dtypes()


def collect(store: Path, sweep: str | None = None) -> Collection:
    """Read every run of ``store``, or those that the manifest of ``sweep`` names.

    Raises: RunFolderError where there is no such store or sweep, or no run in it.
    """
    if not store.is_dir():
        raise RunFolderError(
            f"the store must be a folder of runs, got {store}; train first, or give its path"
        )
    if sweep is not None:
        return _of_sweep(store, sweep)
    runs, problems = [], []
    for folder in _folders(store):
        try:
            runs.append(read_run(folder))
        except RunFolderError as error:
            problems.append(Problem(folder.name, str(error)))
    if not runs and not problems:
        raise RunFolderError(f"the store {store} holds no run; train first, or give another store")
    return Collection(store=store, runs=runs, problems=problems)


def sweep_names(store: Path) -> list[str]:
    """The sweeps that have a manifest in ``store``."""
    return sorted(path.stem for path in (store / SWEEPS_FOLDER).glob("*.json"))


def _folders(store: Path) -> list[Path]:
    with os.scandir(store) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir())
    others = (SWEEPS_FOLDER, UTILITY)
    return [store / name for name in found if name not in others and name[0] not in "._"]


def _of_sweep(store: Path, sweep: str) -> Collection:
    known = sweep_names(store)
    if sweep not in known:
        have = f"it has {', '.join(known)}" if known else "it has none"
        raise RunFolderError(f"no sweep named {one_line(sweep)} in the store {store}; {have}")
    try:
        manifest = read_json(store / SWEEPS_FOLDER / f"{sweep}.json")
    except DamagedError as error:
        raise RunFolderError(f"the manifest of sweep {sweep}: {error}") from error
    problems: list[Problem] = []
    attempts = _last_attempts(store / SWEEPS_FOLDER / f"{sweep}.ledger.jsonl", problems)
    by_hash = {folder.name[-_HASH_DIGITS:]: folder for folder in _folders(store)}
    runs: list[Run] = []
    swept: dict[str, None] = {}
    for run_id, entry in _entries(manifest, sweep, problems).items():
        overrides = _overrides(entry)
        swept.update(dict.fromkeys(overrides))
        attempt = attempts.get(run_id, {})
        named = entry.get("folder") or attempt.get("folder")
        folder = _inside(store, named) or by_hash.get(run_id[:_HASH_DIGITS])
        run = _member(folder, run_id, overrides, attempt, problems)
        runs.append(run if run.folder else replace(run, name=one_line(named or run.name)))
    if not runs:
        raise RunFolderError(f"the manifest of sweep {sweep} names no run; start the sweep again")
    return Collection(
        store=store,
        runs=runs,
        problems=problems,
        sweep=sweep,
        question=one_line(manifest.get("question") or ""),
        command=one_line(manifest.get("command") or ""),
        created=one_line(manifest.get("created") or ""),
        swept=list(swept),
    )


def _entries(
    manifest: dict[str, Any], sweep: str, problems: list[Problem]
) -> dict[str, dict[str, Any]]:
    listed = manifest.get("runs")
    if not isinstance(listed, list):
        raise RunFolderError(f"the manifest of sweep {sweep} is damaged: it has no list of runs")
    entries: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(listed, 1):
        if isinstance(entry, dict) and isinstance(entry.get("run_id"), str):
            entries.setdefault(entry["run_id"], entry)
        else:
            problems.append(Problem(f"{sweep}.json", f"run {number} has no run_id"))
    return entries


def _member(
    folder: Path | None,
    run_id: str,
    overrides: dict[str, Scalar],
    attempt: dict[str, Any],
    problems: list[Problem],
) -> Run:
    """The run of a manifest's entry, as far as it got."""
    last = ""
    if attempt.get("status") not in (None, "done"):
        last = f"last attempt: {one_line(attempt['status'])}"
        last += f", {one_line(attempt['reason'])}" if attempt.get("reason") else ""
    missing = Run(
        name=f"(no folder) {run_id[:_HASH_DIGITS]}",
        status="missing",
        reason=last or "never started",
        config=overrides,
        facts={"run_id": run_id},
    )
    if folder is None or not folder.is_dir():
        return missing
    try:
        run = read_run(folder)
    except RunFolderError as error:
        problems.append(Problem(folder.name, str(error)))
        return replace(missing, name=folder.name, reason=f"its folder cannot be read: {error}")
    if run.status == "unfinished":
        return replace(run, reason=last, facts={**run.facts, "run_id": run_id})
    if run.facts["run_id"] != run_id:
        problems.append(Problem(folder.name, f"holds another run than the sweep's {run_id[:8]}"))
        return replace(missing, reason="its folder holds another run")
    return run


def _overrides(entry: dict[str, Any]) -> dict[str, Scalar]:
    """Overrides as config columns: ``optimizer=adam`` is the column ``optimizer.name``."""
    given = entry.get("overrides")
    columns: dict[str, Scalar] = {}
    for key, value in flatten(given if isinstance(given, dict) else {}).items():
        name = key.lstrip("+")
        columns[f"{name}.name" if name in GROUPS else name] = _typed(value)
    if isinstance(entry.get("epochs"), int):
        columns.setdefault("epochs", entry["epochs"])
    return columns


def _typed(value: Scalar) -> Scalar:
    """``"0.001"`` on a command line is the number that the config holds."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if parsed is None or isinstance(parsed, int | float | bool) else value


def _inside(store: Path, name: Any) -> Path | None:
    """A folder of the store by its name; a manifest cannot point out of the store."""
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        return None
    return store / name


def _last_attempts(path: Path, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """The ledger's last line for each run id."""
    attempts: dict[str, dict[str, Any]] = {}
    damaged = 0
    try:
        for entry, _ in read_lines(path, ATTEMPT):
            if entry is None:
                damaged += 1
            else:
                attempts[entry["run_id"]] = entry
    except RunFolderError as error:
        problems.append(Problem(path.name, str(error)))
    if damaged:
        problems.append(Problem(path.name, f"{damaged} lines cannot be read"))
    return attempts


def read_run(folder: Path) -> Run:
    """Read what tables need of one run: its summary, or its config where it has not finished.

    Raises: RunFolderError where the folder is not a run's, or one of its files is damaged.
    """
    summary = folder / SUMMARY
    try:
        if summary.exists():
            return _finished(folder, read_json(summary))
        if (folder / CONFIG).exists():
            config = _completed(flatten(read_yaml(folder / CONFIG)))
            epochs_done = last_epoch(folder / METRICS)
            facts: dict[str, Scalar] = {"epochs_done": epochs_done}
            return Run(
                name=folder.name, status="unfinished", folder=folder, config=config, facts=facts
            )
    except DamagedError as error:
        raise RunFolderError(error.reason) from error
    raise RunFolderError(f"neither {SUMMARY} nor {CONFIG}: not a run folder")


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Dotted keys to scalars; a list becomes its JSON text."""
    flat: dict[str, Scalar] = {}
    for key, value in nested.items():
        if type(value) in _SCALAR_TYPES:
            flat[f"{prefix}{key}"] = value
        elif isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = json.dumps(value, default=str)
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def last_epoch(path: Path) -> int:
    """The last epoch that a metrics file has in full, 0 where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            epoch = json.loads(line)["epoch"]
        except (ValueError, RecursionError, KeyError, TypeError):
            continue
        if isinstance(epoch, int):
            return epoch
    return 0


def one_line(value: object) -> str:
    """Text with its line breaks and runs of spaces made single spaces."""
    return " ".join(str(value).split())


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
    status = summary.get("status")
    if status not in STATUSES[:3]:
        raise RunFolderError(
            f"{SUMMARY}: status must be {', '.join(STATUSES[:3])}, got {one_line(status)!r}"
        )
    nested = summary.get("config")
    config = read_yaml(folder / CONFIG) if nested is None else _mapping(nested, "config")
    facts: dict[str, Scalar] = {}
    for key in ("run_id", "trajectory_id", "continued_from", "git_commit", "machine"):
        facts[key] = _scalar(summary.get(key), key)
    for key in ("data_hash", "data_source", "epochs_done", "num_train_images"):
        facts[key] = _scalar(summary.get(key), key)
    for key in ("device", "precision"):
        facts[f"used.{key}"] = _scalar(summary.get(key), key)
    for key in ("seconds", "num_parameters", "versions"):
        facts.update(flatten(_mapping(summary.get(key) or {}, key), f"{key}."))
    scores, settings = _scores(summary.get("scores"), facts)
    return Run(
        name=folder.name,
        status=status,
        reason=one_line(summary.get("reason") or ""),
        folder=folder,
        config=_completed(flatten(config)),
        facts=facts,
        scores=scores,
        settings=settings,
    )


def _scores(
    result: Any, facts: dict[str, Scalar]
) -> tuple[dict[str, float | None], dict[str, tuple[Scalar, ...]]]:
    """The values of a scoring, what each encoder's can be compared under, and new ``facts``."""
    if result is None:
        return {}, {}
    result = _mapping(result, "scores")
    values = {
        key: value if type(value) is float and abs(value) <= _MAX_NUMBER else _number(value, key)
        for key, value in _mapping(result.get("values"), "scores.values").items()
    }
    for key in ("num_images", "epoch", "scoring_id"):
        facts[f"scores.{key}"] = _scalar(result.get(key), f"scores.{key}")
    facts.update(flatten(_mapping(result.get("reference") or {}, "scores.reference"), "reference."))
    reasons = _mapping(result.get("reasons") or {}, "scores.reasons")
    facts["scores.reasons"] = "; ".join(f"{k}: {one_line(v)}" for k, v in sorted(reasons.items()))
    config = _mapping(result.get("config") or {}, "scores.config")
    encoders = _mapping(result.get("encoders") or {}, "scores.encoders")
    shared = (
        facts["scores.num_images"],
        facts.get("reference.content_hash"),
        *(
            _scalar(config.get(key), key)
            for key in ("nearest_k", "kernel_subsets", "kernel_subset_size", "inception_splits")
        ),
    )
    settings: dict[str, tuple[Scalar, ...]] = {"": shared}
    for name, encoder in encoders.items():
        weights = _scalar(_mapping(encoder, f"encoders.{name}").get("weights_hash"), "weights_hash")
        facts[f"encoders.{name}.weights_hash"] = weights
        settings[name] = (*shared, weights)
    return values, settings


def _number(value: Any, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RunFolderError(f"{SUMMARY}: scores.values.{key} must be a number or null")
    if math.isfinite(value) and abs(value) > _MAX_NUMBER:
        raise RunFolderError(f"{SUMMARY}: scores.values.{key} is too large to be a score")
    return float(value) if math.isfinite(value) else None


def _scalar(value: Any, key: str) -> Scalar:
    if type(value) in _SCALAR_TYPES:
        return value  # type: ignore[no-any-return]
    raise RunFolderError(f"{SUMMARY}: {key} must be one value, not a list or mapping")


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RunFolderError(f"{name} must be a mapping, not {type(value).__name__}")
    return value
