"""The runs of a store or of a sweep, those that should be there and are not included."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lungan.config import GROUPS
from lungan.errors import RunFolderError
from lungan.results.records import Run, Scalar, flatten, one_line, read_json, read_run
from lungan.runs.folder import UTILITY

SWEEPS_FOLDER = "sweeps"
_HASH_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was passed over: which folder or file, and why."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """swept: the config columns that the sweep sets, in its order; empty for a whole store."""

    store: Path
    runs: list[Run]
    problems: list[Problem]
    sweep: str = ""
    question: str = ""
    command: str = ""
    created: str = ""
    swept: list[str] = field(default_factory=list)


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
    except (RunFolderError, RecursionError) as error:
        raise RunFolderError(f"the manifest of sweep {sweep} is damaged: {error}") from error
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
    if not path.is_file():
        return attempts
    damaged = 0
    for line in _lines(path, problems):
        try:
            entry = json.loads(line)
            attempts[str(entry["run_id"])] = entry
        except (ValueError, RecursionError, KeyError, TypeError):
            damaged += 1
    if damaged:
        problems.append(Problem(path.name, f"{damaged} lines cannot be read"))
    return attempts


def _lines(path: Path, problems: list[Problem]) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        problems.append(Problem(path.name, f"cannot be read: {error.strerror}"))
