"""Launchers: how the runs of a sweep are done. Each is one file over its engine's own API.

A launcher's settings are the values of its YAML file in conf/hydra/launcher/, changed by overrides
such as ``hydra.launcher.n_jobs=2``, and its dataclass says what may be set.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lungan.config import presets, rules
from lungan.errors import ConfigError
from lungan.runs.sweep import Launcher

GROUP = "hydra/launcher"
PREFIX = "hydra.launcher."


@dataclass(frozen=True, slots=True)
class _Choice:
    """Where a launcher's class is, the dataclass of its settings, and the package of its engine,
    which ``pip install lungan[extra]`` brings."""

    module: str
    launcher: str
    config: str
    package: str | None = None
    extra: str | None = None


_CHOICES = {
    "local": _Choice("local", "LocalLauncher", "LocalConfig"),
    "slurm": _Choice("slurm", "SlurmLauncher", "SlurmConfig", "submitit", "slurm"),
    "submitit_local": _Choice("slurm", "SubmititLocal", "SubmititConfig", "submitit", "slurm"),
    "ray": _Choice("ray", "RayLauncher", "RayConfig", "ray", "ray"),
}
_ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "basic": ("local", {"n_jobs": 1}),
    "joblib": ("local", {}),
    "submitit_slurm": ("slurm", {}),
}
"""Hydra's names of launchers: lungan's own, and what is set as in Hydra's."""
_REMOVED = {"stacked": "was taken out; a sweep trains several runs at a time by itself"}
"""What serves instead of launchers that there were."""


def choices() -> list[str]:
    """The names that ``hydra/launcher=`` takes, Hydra's own included."""
    return sorted([*_CHOICES, *_ALIASES])


def build(overrides: Sequence[tuple[str, Any]]) -> Launcher:
    """The launcher that overrides, as keys and values, choose and set; none: ``local``.

    Raises: ConfigError for a launcher that is unknown or not installed, or a wrong setting.
    """
    chosen = [value for key, value in overrides if key == GROUP]
    if overrides and not chosen:
        raise ConfigError(f"{overrides[0][0]} needs {GROUP}={'|'.join(choices())} beside it")
    name = str(chosen[-1]) if chosen else "local"
    if name in _REMOVED:
        raise ConfigError(f"{GROUP}={name} {_REMOVED[name]}")
    if name not in choices():
        raise ConfigError(f"{GROUP} must be one of {', '.join(choices())}, got {name}")
    name, own_values = _ALIASES.get(name, (name, {}))
    choice = _CHOICES[name]
    if choice.package is not None and importlib.util.find_spec(choice.package) is None:
        raise ConfigError(
            f"{GROUP}={name} is not installed, there is no module {choice.package}: "
            f"pip install 'lungan[{choice.extra}]'"
        )
    module = importlib.import_module(f"lungan.launchers.{choice.module}")
    values = _file_values(name) | own_values
    for key, value in overrides:
        if key != GROUP:
            _set(values, key.removeprefix(PREFIX), value)
    config = rules.parse(getattr(module, choice.config), values, PREFIX)
    rules.check_fields(config, PREFIX)
    launcher: Launcher = getattr(module, choice.launcher)(config)
    return launcher


def _file_values(name: str) -> dict[str, Any]:
    path = presets.files(GROUP)[name]
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings."""
    *above, last = key.split(".")
    for part in above:
        below = values.setdefault(part, {})
        if not isinstance(below, Mapping):
            raise ConfigError(f"{PREFIX}{key} is not a key: {part} has none below it")
        values = values[part]
    values[last] = value
