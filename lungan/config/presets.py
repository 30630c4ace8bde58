"""Where the configs that come with lungan lie, and reading one without Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import lungan
from lungan.config import checks
from lungan.errors import ConfigError


def conf_folder() -> Path:
    """conf/ of the checkout, or of the installed package."""
    return _packaged("conf")


def sweeps_folder() -> Path:
    """sweeps/ of the checkout, or of the installed package."""
    return _packaged("sweeps")


def choices(folder: Path) -> list[str]:
    """The names of the YAML files in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(group: str, name: str) -> Any:
    """The dataclass of one choice of a group, with the values of its YAML file.

    Raises: ConfigError for an unknown choice.
    """
    path = conf_folder() / group / f"{name}.yaml"
    if name not in choices(path.parent):
        raise ConfigError(f"{group} must be one of {', '.join(choices(path.parent))}, got {name}")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    del values["defaults"]
    return checks.parse_group(group, values)


def _packaged(name: str) -> Path:
    package = Path(lungan.__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
