"""The run folder and the sweeps' files in a store: their names, and what they hold.

No other module knows these names. Imports no torch, so that the results side stays quick to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from filelock import FileLock

from lungan import registry
from lungan.config import RunConfig, rules
from lungan.config.run import plugins
from lungan.errors import ConfigError, RunFolderError, shown
from lungan.files import (
    NUMBER,
    DamagedError,
    append_line,
    read_json,
    read_lines,
    read_text,
    read_yaml,
    write_bytes,
    write_json,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

SWEEPS = "sweeps"
"""The store's folder of manifests, ledgers and tables of sweeps."""

HASH_DIGITS = 8
"""The first so many digits of a run's id end the name of its folder."""

CONFIG = "config.yaml"
PLUGIN = "# plug-in: "
METRICS = "metrics.jsonl"
SAMPLES = "samples"
FIGURES = "figures"
GENERATOR = "generator.safetensors"
CHECKPOINT = "checkpoint.pt"
SCORES = "scores.json"
SUMMARY = "summary.json"
LOG = "log.txt"
CLAIM = "claim.json"
WANDB = "wandb"
UTILITY = "utility"
CLASSIFIER = "classifier.safetensors"
CONVINCING = "convincing.png"
PREDICTIONS = "predictions.csv"

_MAX_CLASSES = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Scalar: TypeAlias = str | int | float | bool | None
_SCALAR_TYPES = frozenset((str, int, float, bool, type(None)))

_VALUES = {...: (*NUMBER, None)}
_ENDED = {
    "status": frozenset(("done", "diverged", "failed")),
    "run_id": str,
    "reason?": (str, None),
    "seconds?": {...: NUMBER},
    "versions?": dict,
    "num_parameters?": dict,
    "scores?": (
        {
            "values": _VALUES,
            "reasons?": dict,
            "config?": dict,
            "reference?": dict,
            "encoders?": {...: dict},
            "extra?": {...: dict},
        },
        None,
    ),
}
_RUN = {
    **_ENDED,
    "config": dict,
    "epochs_done": int,
    "sweeps?": [str],
    "class_names?": [str],
}
_TRIAL = {**_ENDED, "config": {"arm": str}}
"""Of a utility study, which keeps a summary of the same form."""
_SCORING = {
    "epoch": (int, None),
    "values": _VALUES,
    "reasons": dict,
    "encoders": dict,
    "config": dict,
}
ATTEMPT = {
    "run_id": str,
    "folder?": str,
    "status": str,
    "reason?": (str, None),
    "seconds?": (*NUMBER, None),
}
"""A line of a sweep's ledger."""
_MANIFEST = {
    "question?": str,
    "created?": str,
    "runs": [{"run_id": str, "epochs": int, "overrides": dict}],
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run, read from its folder. ``summary``: what summary.json holds, empty where the run has
    not finished. ``reused``: the run had been finished before it was asked for.
    """

    folder: Path
    summary: dict[str, Any] = field(repr=False)
    reused: bool = True

    @property
    def status(self) -> str:
        """done, diverged or failed; unfinished where it has no summary."""
        return str(self.summary.get("status", "unfinished"))

    @property
    def has_result(self) -> bool:
        """Whether it is done or diverged."""
        return self.status in ("done", "diverged")

    @property
    def config(self) -> RunConfig:
        """Raises: RunFolderError where it is damaged, ConfigError where it does not fit."""
        return read_config(self.folder)

    @property
    def metrics(self) -> pd.DataFrame:
        """Losses, gradients and speed, a row an epoch, by epoch. Raises: RunFolderError."""
        import pandas as pd

        rows = read_metrics(self.folder)
        return pd.DataFrame(rows or {"epoch": []}).set_index("epoch")

    @property
    def scores(self) -> dict[str, Any]:
        """Scores of the final generator with their floors, by name: ``domain.precision.floor``."""
        return dict((self.summary.get("scores") or {}).get("values", {}))

    def generator(self, device: str = "auto") -> nn.Module:
        """The final generator, ready to generate. Raises: RunFolderError without one."""
        from lungan.device import resolve_device
        from lungan.models.saving import load_generator

        path = self.folder / GENERATOR
        if not path.is_file():
            raise RunFolderError(
                f"{self.folder} has no generator, since its run is {self.status}; repeat the "
                "command that began it"
            )
        return load_generator(path).to(resolve_device(device)).eval()


def open_run(folder: Path) -> Run:
    """The run in a folder, finished or not. Raises: RunFolderError where it is none."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(
            f"{folder} is not a run's folder, it has no {CONFIG}; give a folder such as runs/<run>"
        )
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """The run in a folder as far as it has come; where there is no folder, it is unfinished.

    Raises: RunFolderError where its summary is damaged.
    """
    return Run(folder, read_summary(folder) or {})


def run_folders(store: Path) -> list[Path]:
    """The folders of a store that may be runs', by name. Raises: RunFolderError for no store."""
    if (store / CONFIG).is_file():
        raise RunFolderError(f"{store} is a run's folder; give the store that it lies in")
    if not store.is_dir():
        raise RunFolderError(
            f"the store must be a folder of runs, got {store}; train first, or give its path"
        )
    with os.scandir(store) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir())
    return [store / name for name in found if name not in (SWEEPS, UTILITY) and name[0] not in "._"]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Dotted keys to scalars; a list becomes its JSON text."""
    flat: dict[str, Scalar] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = json.dumps(value, default=str)
        else:
            flat[f"{prefix}{key}"] = value if type(value) in _SCALAR_TYPES else str(value)
    return flat


def sample_path(folder: Path, epoch: int) -> Path:
    return folder / SAMPLES / f"epoch_{epoch:04d}.png"


def classes_path(folder: Path) -> Path:
    """The class of each image in the sample grids, a JSON list of names in the grid's order; there
    is none where the generator is not conditional."""
    return folder / SAMPLES / "classes.json"


def grid_classes(folder: Path) -> str:
    """``5 normal, 27 pneumonia``: the classes of a sample grid from its upper left on; empty where
    the generator is not conditional. Raises: RunFolderError where the file is damaged."""
    path = classes_path(folder)
    counts = Counter(read_json(path, [str]) if path.is_file() else [])
    parts = [f"{count} {' '.join(name.split())}" for name, count in counts.items()]
    more = [f"and {len(parts) - _MAX_CLASSES} more"] if len(parts) > _MAX_CLASSES else []
    return ", ".join([*parts[:_MAX_CLASSES], *more])


def real_images_path(folder: Path) -> Path:
    """A grid of training images to look at beside the sample grids."""
    return folder / FIGURES / "real_images.png"


def losses_path(folder: Path) -> Path:
    return folder / FIGURES / "losses.png"


def pairs_path(folder: Path, encoder: str) -> Path:
    return folder / FIGURES / f"closest_pairs_{encoder}.png"


def remove_unfinished(folder: Path) -> None:
    """Remove what ``write_whole`` left of writers that were killed; the caller holds the claim."""
    for place in (folder, folder / SAMPLES, folder / FIGURES):
        for path in place.glob(".*.*"):
            path.unlink(missing_ok=True)


def write_config(folder: Path, config: RunConfig) -> None:
    """Names only, with the plug-ins that they stand for as comments before them."""
    used = plugins(config)
    lines = [f"{PLUGIN}{key} comes from {used[key]}; {used[key].way_to_get()}\n" for key in used]
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
    write_bytes(folder / CONFIG, "".join([*lines, text]).encode())


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What summary.json holds; None where the run has not finished.

    Raises: RunFolderError where the file is damaged.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    summary: dict[str, Any] = read_json(path, (_RUN, _TRIAL))
    return summary


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """The scorings that scores.json holds, by their ids; none where there is no such file.

    Raises: RunFolderError where the file is damaged.
    """
    path = folder / SCORES
    scores: dict[str, dict[str, Any]] = read_json(path, {...: _SCORING}) if path.exists() else {}
    return scores


def check_name(name: str, key: str) -> None:
    """Check that a sweep's files can have this name. key: what the message calls it.

    Raises: ConfigError.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{key} must be letters, digits, '.', '_' and '-', at most 100 and the first a letter "
            f"or digit, got {shown(name)}"
        )


def read_manifest(store: Path, sweep: str) -> dict[str, Any]:
    """Raises: RunFolderError where the sweep has no manifest or a damaged one."""
    manifest: dict[str, Any] = read_json(store / SWEEPS / f"{sweep}.json", _MANIFEST)
    return manifest


def write_manifest(
    store: Path, sweep: str, question: str, command: str, runs: Iterable[dict[str, Any]]
) -> None:
    """Write what the sweep asks for, before anything runs, so that a missing run shows.

    Runs that an earlier command asked for under this name stay in it.

    Raises: RunFolderError where the store cannot be written.
    """
    path = store / SWEEPS / f"{sweep}.json"
    with exclusive(store):
        before = read_manifest(store, sweep) if path.exists() else {}
        by_id = {run["run_id"]: run for run in (*before.get("runs", []), *runs)}
        values = {
            "name": sweep,
            "question": question or before.get("question", ""),
            "command": command,
            "created": before.get("created", _now()),
            "runs": list(by_id.values()),
        }
        write_json(path, values)


def ledger_path(store: Path, sweep: str) -> Path:
    """Every attempt at a run of the sweep, a line each."""
    return store / SWEEPS / f"{sweep}.ledger.jsonl"


def record_attempt(
    store: Path,
    sweep: str,
    run_id: str,
    folder: str,
    status: str,
    reason: str | None,
    seconds: float | None = None,
) -> None:
    """Add the end of one attempt at a run to the sweep's ledger. Raises: RunFolderError."""
    line = {"run_id": run_id, "status": status, "reason": reason, "folder": folder}
    with exclusive(store):  # network file systems do not append as one act
        append_line(ledger_path(store, sweep), {**line, "seconds": seconds, "time": _now()})


def read_ledger(store: Path, sweep: str, begin: int) -> tuple[list[dict[str, Any]], int]:
    """The ledger's whole lines from byte ``begin`` on, and where they end. A line that a crash
    tore is passed over."""
    lines, end = [], begin
    for line, end in read_lines(ledger_path(store, sweep), ATTEMPT, begin):  # noqa: B007
        if line is not None:
            lines.append(line)
    return lines, end


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the store's lock; the system drops it when its holder dies, however that is.

    Raises: RunFolderError where the store cannot be written.
    """
    held = FileLock(root / ".lock", poll_interval=0.01)
    try:
        root.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except OSError as error:
        raise RunFolderError(
            f"store={root} cannot be written: {error.strerror}; choose another with store=<folder>"
        ) from error
    try:
        yield
    finally:
        held.release()


def read_config(path: Path) -> RunConfig:
    """The config of a run's folder, or of a file such as config.yaml.

    Raises: RunFolderError where it is absent or damaged, ConfigError where it does not fit, or
    needs a plug-in that is not here."""
    path = path / CONFIG if path.is_dir() else path
    if not path.exists():
        raise RunFolderError(f"{path} does not exist; give a run's folder or its {CONFIG}")
    way_out = "correct it, or remove it and repeat the command that made it"
    values = read_yaml(path, way_out)
    try:
        config: RunConfig = rules.parse(RunConfig, values)
        return config
    except ConfigError as error:
        lines = read_text(path, way_out).splitlines()
        said = (line.removeprefix(PLUGIN) for line in lines if line.startswith(PLUGIN))
        absent = [line for line in said if not _is_here(line.partition(" ")[0])]
        raise ConfigError("; ".join([f"{path}: {error}", *absent])) from error


def _is_here(choice: str) -> bool:
    group, _, name = choice.partition("=")
    return bool(registry.used_by([(group, name)]))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs' metrics in order; a torn last line, which a crash leaves, is passed over.

    Raises: RunFolderError where another is damaged.
    """
    return [row for row, _ in read_epochs(folder)]


def read_epochs(folder: Path, begin: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The metrics of the epochs from byte ``begin`` of the file on, each with where it ends.

    Raises: RunFolderError where a line is damaged.
    """
    path = folder / METRICS
    for number, (row, end) in enumerate(read_lines(path, {"epoch": int, **_VALUES}, begin), 1):
        if row is None:
            at = f"line {number}" + (f" after byte {begin}" if begin else "")
            raise DamagedError(
                path, f"{at} is no epoch's metrics", "remove its folder to train the run again"
            )
        yield row, end
