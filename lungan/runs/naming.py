"""Display names of runs: what sets a run apart from the others of its sweep, or from the defaults.

Ids and folders are for machines and stay; these names are for tables, plots and progress.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lungan.config import presets, rules
from lungan.config.run import GROUPS
from lungan.errors import ConfigError, RunFolderError, shown
from lungan.runs.folder import read_manifest

MAX_LENGTH = 128
"""Characters; W&B takes no longer names."""

DEFAULTS = "defaults"
"""The name of a run that differs from the defaults in nothing."""

NOT_SHAPING = frozenset(
    (
        *("store", "device", "threads", "retry", "checkpoint_every_epochs"),
        *("samples_every_epochs", "data.path", "data.root", "data.download", "score", "tracker"),
    )
)
"""Keys, and groups, that shape no result, or say where on a machine things lie."""


def name_in_sweep(store: Path, sweep: str | None, run_id: str) -> str:
    """The display name of one run: what the sweep varies, such as ``lr=0.0003 seed=2``. Empty
    outside of sweeps, for a run that nothing sets apart, and where the sweep's manifest cannot be
    read."""
    try:
        runs = read_manifest(store, sweep)["runs"] if sweep else []
    except RunFolderError:
        return ""
    return display_names(runs).get(run_id, "")


def beside_folder(name: str, folder: str) -> str:
    """``lr=0.0003 seed=2 (phantom28-dcgan-...)``, or the folder alone where the name is empty."""
    return f"{name} ({folder})" if name else folder


def display_names(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Display names by run id. runs: as a sweep's manifest has them."""
    settings = {run["run_id"]: {"epochs": run["epochs"], **run["overrides"]} for run in runs}
    varied = varied_keys(settings.values())
    return {run_id: display_name(given, varied) for run_id, given in settings.items()}


def varied_keys(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys in which two of the settings differ, one of them lacking it included."""
    all_settings = list(settings)
    keys = dict.fromkeys(key for each in all_settings for key in each)
    return [
        key for key in keys if len({str(each.get(key, rules.MISSING)) for each in all_settings}) > 1
    ]


def display_name(settings: Mapping[str, Any], keys: Iterable[str]) -> str:
    """``lr=0.0003 seed=2`` for the keys that the settings have; empty where they have none.

    settings: values by dotted key. ``seed`` comes last, whatever the order of the keys.
    """
    ordered = sorted(keys, key=lambda key: key.lstrip("+") == "seed")
    given = {
        key.lstrip("+").removesuffix(".name"): _text(settings[key])
        for key in ordered
        if key in settings
    }
    name = " ".join(f"{key}={value}" for key, value in given.items())
    if len(name) > MAX_LENGTH:
        name = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in given.items())
    if len(name) > MAX_LENGTH:
        last = name.rpartition(" ")[2][: MAX_LENGTH // 2]
        name = f"{name[: MAX_LENGTH - len(last) - 2]}… {last}"
    return name


def name_by_differences(config: Mapping[str, Any]) -> str:
    """The display name of a run outside of sweeps: what its config sets otherwise than conf/, a
    choice by its group.

    The settings of a choice are held against those that conf/ gives this choice. What says where
    things lie, and the scores and trackers, are left out.

    config: as config.yaml holds it.
    """
    usual, found = presets.defaults(), {}
    for key, value in config.items():
        if key in NOT_SHAPING:
            continue
        if key not in GROUPS:
            if value != usual.get(key, value):
                found[key] = value
            continue
        if value["name"] != usual[key]:
            found[key] = value["name"]
        of_choice = _choice_defaults(key, value["name"], config)
        for inner, given in value.items():
            dotted = f"{key}.{inner}"
            if given != of_choice.get(inner, given) and dotted not in NOT_SHAPING:
                found[dotted] = given
    return display_name(found, found) or DEFAULTS


def _choice_defaults(group: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a choice's settings are where nobody sets them, as far as this machine knows it."""
    defaults: dict[str, Any] = {}
    try:
        for field in dataclasses.fields(rules.schema(GROUPS[group], group, name)):
            if "follows" in field.metadata:
                defaults[field.name] = config.get(field.metadata["follows"])
            elif field.default is not dataclasses.MISSING:
                defaults[field.name] = field.default
    except ConfigError:
        pass  # a plug-in that is not at hand: its YAML may be
    return defaults | presets.values(group, name)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return shown(value)
