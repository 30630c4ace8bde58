"""Where YAML lies: lungan's own in conf/ and sweeps/, and the folders of ``--config-dir``."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import lungan
from lungan import registry
from lungan.config.rules import check_fields, parse, parse_choice
from lungan.config.run import GROUPS, ScoreConfig
from lungan.errors import ConfigError, shown
from lungan.files import at_home, read_yaml

EXPERIMENT = "experiment"
SWEEPS = "sweeps"
NO_SWEEP: dict[str, Any] = {"question": "", "overrides": {}, "runs": [{}]}
"""What a sweep's file leaves out."""
_OF_DIRS = "--config-dir (config_dirs in Python)"

added_folders: tuple[Path, ...] = ()
"""The folders of ``--config-dir``, absolute."""


@contextlib.contextmanager
def searching(folders: Sequence[str | Path]) -> Iterator[None]:
    """Look for YAML in these folders too, each with folders such as optimizer/ or experiment/.

    Raises: ConfigError where one has none of them, or a file with a name of lungan's own.
    """
    global added_folders
    before = added_folders
    added_folders += tuple(_checked(at_home(each, _OF_DIRS)) for each in folders)
    try:
        yield
    finally:
        added_folders = before


def conf_folder(group: str = "") -> Path:
    """conf/ of the checkout, or of the installed package, or a group's folder in it; ``sweeps``
    lies beside it."""
    package = Path(lungan.__file__).resolve().parent
    home = package if (package / "conf").is_dir() else package.parent
    return home / SWEEPS if group == SWEEPS else home / "conf" / group


@functools.cache
def defaults() -> Mapping[str, Any]:
    """The values of conf/config.yaml, and the choice of each group there."""
    path = conf_folder() / "config.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in values.pop("defaults"):
        values |= entry if isinstance(entry, dict) else {}
    return values


def files(group: str) -> dict[str, Path]:
    """The YAML files of a group, of ``experiment`` or of ``sweeps``, by name, sorted."""
    folders = (conf_folder(group), *(folder / group for folder in added_folders))
    paths = [path for folder in folders for path in folder.glob("*.yaml")]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def choices(group: str) -> list[str]:
    """What can be given for a group: its YAML files, and what is registered without one."""
    code = registry.names(group) if group in GROUPS and group != "score" else []
    return sorted({*files(group), *code})


def load(group: str, name: str) -> Any:
    """The dataclass of one choice of a group, with the values of its YAML file, where it has one,
    without Hydra.

    Raises: ConfigError for an unknown choice.
    """
    if name not in choices(group):
        raise ConfigError(f"{group} must be one of {', '.join(choices(group))}, got {shown(name)}")
    return parse_choice(GROUPS[group], group, {"name": name} | values(group, name))


def values(group: str, name: str) -> dict[str, Any]:
    """What the YAML file of a choice holds, without Hydra; nothing where there is no file."""
    path = files(group).get(name)
    return {} if path is None else copy.deepcopy(_read(path, path.stat().st_mtime_ns))


@functools.lru_cache
def _read(path: Path, _changed: int) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def load_score(
    name: str | None, own: ScoreConfig | None = None, changes: Mapping[str, Any] | None = None
) -> ScoreConfig:
    """How to score: the choice of this name, else a run's ``own``, else standard; with changes.

    Raises: ConfigError for an unknown choice, a wrong value, or one without encoders.
    """
    is_own = name is None and own is not None and own.encoders
    start: Any = own if is_own else load("score", "standard" if name is None else name)
    values = dataclasses.asdict(start) | dict(changes or {})
    config: ScoreConfig = parse(ScoreConfig, values, "score.")
    check_fields(config, "score.")
    if not config.encoders:
        raise ConfigError(f"score={config.name} has no encoders, so there is nothing to score")
    return config


def read_sweep(name: str) -> dict[str, Any]:
    """A sweep's ``question``, ``overrides`` by key, and ``runs``, each with overrides of its own.

    name: of one in sweeps/, or a .yaml file.

    Raises: ConfigError, RunFolderError where the file is not there, or is not of this form.
    """
    known = files(SWEEPS)
    path = at_home(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise ConfigError(f"+sweeps must be one of {', '.join(known)}, or a .yaml file, got {name}")
    form = (
        "a sweep has overrides: {key: value}, and, if need be, question: text and "
        "runs: [{key: value}]"
    )
    given = read_yaml(path, form, {"question?": str, "overrides?": dict, "runs?": [dict]})
    for key in given.keys() - NO_SWEEP.keys():
        raise ConfigError(f"{path} has a key {shown(key)}; {form}")
    return NO_SWEEP | given


def _checked(folder: Path) -> Path:
    folder = folder.resolve()
    if not folder.is_dir():
        raise ConfigError(f"{_OF_DIRS} must be a folder, {folder} is none")
    groups = [*GROUPS, EXPERIMENT, SWEEPS]
    if not any((folder / group).is_dir() for group in groups):
        raise ConfigError(
            f"{_OF_DIRS} must hold folders such as optimizer, experiment or sweeps, with YAML "
            f"files in them; {folder} holds none"
        )
    for path in folder.glob("*/*.yml"):
        raise ConfigError(f"{path} must end with .yaml to be found; rename it")
    for group in groups:
        for path in (folder / group).glob("*.yaml"):
            if (conf_folder(group) / path.name).exists():
                raise ConfigError(
                    f"{path} has the name of lungan's own {group}={path.stem}; give it another"
                )
    return folder
