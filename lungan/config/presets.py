"""Where YAML lies: lungan's own in conf/ and sweeps/, and the folders of ``--config-dir``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import lungan
from lungan import registry
from lungan.config import checks
from lungan.config.run import GROUPS
from lungan.config.scoring import ScoreConfig
from lungan.errors import ConfigError
from lungan.files import at_home

EXPERIMENT = "experiment"
SWEEPS = "sweeps"

_added: tuple[Path, ...] = ()


def conf_folder() -> Path:
    """conf/ of the checkout, or of the installed package."""
    return _packaged("conf")


def sweeps_folder() -> Path:
    """sweeps/ of the checkout, or of the installed package."""
    return _packaged(SWEEPS)


def added_folders() -> tuple[Path, ...]:
    """The folders of ``--config-dir``, absolute."""
    return _added


@contextlib.contextmanager
def searching(folders: Sequence[str | Path]) -> Iterator[None]:
    """Look for YAML in these folders too, each with folders such as optimizer/ or experiment/.

    Raises: ConfigError where one has none of them, or a file with a name of lungan's own.
    """
    global _added
    before, _added = _added, tuple(_checked(Path(folder)) for folder in folders)
    try:
        yield
    finally:
        _added = before


def files(group: str) -> dict[str, Path]:
    """The YAML files of a group, of ``experiment`` or of ``sweeps``, by name, sorted."""
    own = sweeps_folder() if group == SWEEPS else conf_folder() / group
    paths = [
        path for folder in (own, *(a / group for a in _added)) for path in folder.glob("*.yaml")
    ]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def choices(group: str) -> list[str]:
    """What can be given for a group: its YAML files, and what is registered without one."""
    code = registry.names(group) if group in GROUPS and group != "score" else []
    return sorted({*files(group), *code})


def load(group: str, name: str) -> Any:
    """The dataclass of one choice of a group, with the values of its YAML file, without Hydra.

    Raises: ConfigError for an unknown choice.
    """
    found = files(group)
    if name not in found:
        raise ConfigError(f"{group} must be one of {', '.join(found)}, got {name}")
    return checks.parse_group(group, yaml.safe_load(found[name].read_text(encoding="utf-8")))


def read_sweep(path: Path) -> dict[str, Any]:
    """A sweep's ``question``, ``overrides`` by key, and ``runs``, each with overrides of its own.

    Raises: ConfigError where the file is not there, or is not of this form.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"+sweeps={path} cannot be read: {reason}") from error
    form = "it has overrides: {key: value}, and, if need be, question: and runs: [{key: value}]"
    if not isinstance(values, dict) or not set(values) <= {"question", "overrides", "runs"}:
        raise ConfigError(f"{path} is not a sweep: {form}")
    read = {"question": "", "overrides": {}, "runs": [{}]} | values
    if not all(isinstance(each, dict) for each in (read["overrides"], *read["runs"])):
        raise ConfigError(f"{path} is not a sweep: {form}")
    return read


def typed(value: Any) -> str:
    """A value of a YAML file as it would be typed on a command line; a list in brackets."""
    return "" if value == "" else checks.shown(value)


def load_score(
    name: str | None, own: ScoreConfig | None = None, changes: Mapping[str, Any] | None = None
) -> ScoreConfig:
    """How to score: the choice of this name, else a run's ``own``, else standard; with changes.

    Raises: ConfigError for an unknown choice, a wrong value, or one without encoders.
    """
    if name is None and own is not None and own.encoders:
        config = own
    else:
        config = load("score", name or "standard")
    config = dataclasses.replace(config, **(changes or {}))
    checks.check_fields(config, "score.")
    if not config.encoders:
        raise ConfigError(f"score={config.name} has no encoders, so there is nothing to score")
    return config


def _packaged(name: str) -> Path:
    package = Path(lungan.__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


def _checked(folder: Path) -> Path:
    folder = at_home(folder).resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir must be a folder, {folder} is none")
    groups = [*GROUPS, EXPERIMENT, SWEEPS]
    if not any((folder / group).is_dir() for group in groups):
        raise ConfigError(
            f"--config-dir must hold folders such as optimizer, experiment or sweeps, with YAML "
            f"files in them; {folder} holds none"
        )
    for path in folder.glob("*/*.yml"):
        raise ConfigError(f"{path} must end with .yaml to be found; rename it")
    for group in groups:
        own = sweeps_folder() if group == SWEEPS else conf_folder() / group
        for path in (folder / group).glob("*.yaml"):
            if (own / path.name).exists():
                raise ConfigError(
                    f"{path} has the name of lungan's own {group}={path.stem}; give it another"
                )
    return folder
