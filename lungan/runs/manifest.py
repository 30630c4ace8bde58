"""A sweep on disk: the manifest of what was asked for, and the ledger of what was tried."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungan.errors import ConfigError, RunFolderError
from lungan.runs import folder as names
from lungan.runs.claim import exclusive

SWEEPS = "sweeps"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a sweep. ``overrides``: the swept keys and their values, as typed."""

    run_id: str
    trajectory_id: str
    folder: str
    overrides: dict[str, str]
    epochs: int


def manifest_path(store: Path, sweep: str) -> Path:
    return store / SWEEPS / f"{sweep}.json"


def ledger_path(store: Path, sweep: str) -> Path:
    return store / SWEEPS / f"{sweep}.ledger.jsonl"


def check_name(sweep: str) -> None:
    """Raises: ConfigError where the name would not do as a file's."""
    if not NAME.fullmatch(sweep):
        raise ConfigError(
            f"--sweep must be letters, digits, '.', '_' and '-', at most 100, got {sweep}"
        )


def write_manifest(
    store: Path, sweep: str, question: str, command: str, entries: Sequence[Entry]
) -> None:
    """Write what the sweep asks for, before anything runs, so that a missing run shows.

    Runs that an earlier command asked for under this name stay in it.

    Raises: RunFolderError where the store cannot be written.
    """
    path = manifest_path(store, sweep)
    with exclusive(store):
        before = names.read_json(path) if path.exists() else {}
        runs = {run["run_id"]: run for run in before.get("runs", [])}
        runs |= {entry.run_id: asdict(entry) for entry in entries}
        names.write_json(
            path,
            {
                "name": sweep,
                "question": question or before.get("question", ""),
                "command": command,
                "created": before.get("created", _now()),
                "runs": list(runs.values()),
            },
        )


def record(store: Path, sweep: str, summary: dict[str, Any]) -> None:
    """Add the end of one attempt at a run to the ledger. Raises: RunFolderError."""
    line = {key: summary[key] for key in ("run_id", "name", "status", "reason")}
    line["folder"] = line.pop("name")
    with exclusive(store):  # network file systems do not append as one act
        names.append_line(
            ledger_path(store, sweep),
            {**line, "seconds": summary["seconds"]["total"], "time": _now()},
        )


def ledger_size(store: Path, sweep: str) -> int:
    """Bytes in the ledger now: where ``read_ledger`` finds what comes after."""
    path = ledger_path(store, sweep)
    return path.stat().st_size if path.exists() else 0


def read_ledger(store: Path, sweep: str, begin: int) -> tuple[list[dict[str, Any]], int]:
    """The ledger's whole lines from byte ``begin`` on, and where they end. A line that a crash
    tore is passed over."""
    path = ledger_path(store, sweep)
    if not path.exists():
        return [], begin
    with path.open("rb") as stream:
        stream.seek(begin)
        text = stream.read()
    whole = text[: text.rfind(b"\n") + 1]
    lines = []
    for line in whole.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines, begin + len(whole)


def sweeps_of(store: Path, run_id: str) -> list[str]:
    """The sweeps that ask for a run, sorted by name."""
    found = []
    for path in sorted((store / SWEEPS).glob("*.json")):
        try:
            runs = names.read_json(path)["runs"]
        except (RunFolderError, KeyError, TypeError):
            continue
        if any(run["run_id"] == run_id for run in runs):
            found.append(path.stem)
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
