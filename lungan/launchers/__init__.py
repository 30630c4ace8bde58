"""Launchers: how the runs of a sweep and the trials of a study are done. Each is one file over its
engine's own API.

A launcher's settings are the values of its YAML file in conf/hydra/launcher/, changed by overrides
such as ``hydra.launcher.n_jobs=2``, and the dataclass ``settings`` of its class says what may be
set.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from lungan.config import presets, rules
from lungan.errors import ConfigError, shown
from lungan.runs.jobs import Launcher

GROUP = "hydra/launcher"
PREFIX = "hydra.launcher."

_CHOICES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "local": ("local", "LocalLauncher", {}),
    "slurm": ("slurm", "SlurmLauncher", {}),
    "submitit_local": ("slurm", "SubmititLocal", {}),
    "ray": ("ray", "RayLauncher", {}),
    # Hydra's names of launchers, with what is set as in Hydra's.
    "basic": ("local", "LocalLauncher", {"n_jobs": 1}),
    "joblib": ("local", "LocalLauncher", {}),
    "submitit_slurm": ("slurm", "SlurmLauncher", {}),
}
"""The module of each, its class, and values on top of the class's YAML file."""


def build(
    overrides: Sequence[tuple[str, Any]], group: str = GROUP, prefix: str = PREFIX
) -> Launcher:
    """The launcher that overrides, as keys and values, choose and set; none: ``local``.

    group, prefix: the key of the choice, and what stands before those of its settings.

    Raises: ConfigError for a launcher that is unknown or not installed, or a wrong setting.
    """
    choices = sorted(_CHOICES)
    chosen = [value for key, value in overrides if key == group]
    if overrides and not chosen:
        raise ConfigError(f"{overrides[0][0]} needs {group}={'|'.join(choices)} beside it")
    name = chosen[-1] if chosen else "local"
    if name not in choices:
        raise ConfigError(f"{group} must be one of {', '.join(choices)}, got {shown(name)}")
    module, launcher, own_values = _CHOICES[name]
    try:
        kind: Any = getattr(importlib.import_module(f"lungan.launchers.{module}"), launcher)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{group}={name} is not installed, there is no module {error.name}: "
            f"pip install 'lungan[{module}]'"
        ) from error
    values = presets.values(GROUP, kind.name) | own_values
    for key, value in overrides:
        if key != group:
            _set(values, key.removeprefix(prefix), value, prefix)
    settings = rules.parse(kind.settings, values, prefix, f"{group}={name}")
    rules.check_fields(settings, prefix)
    built: Launcher = kind(settings)
    return built


def _set(values: dict[str, Any], key: str, value: Any, prefix: str) -> None:
    """Set a dotted key in nested mappings."""
    *above, last = key.split(".")
    for part in above:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{prefix}{key} is not a key: {part} has none below it")
    values[last] = value
