"""Overrides to RunConfigs by Hydra, and Hydra's complaints to one line each."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, cast, get_args, get_origin, get_type_hints

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lungan.config import SCHEMAS, RunConfig, checks, presets
from lungan.config.search_space import Dimension
from lungan.errors import ConfigError

EXPERIMENT = "experiment"
COMPLAINTS = (HydraException, OmegaConfBaseException, AttributeError, ValueError)
"""What Hydra and OmegaConf raise for wrong overrides; a key that slots refuse is the third."""

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@contextlib.contextmanager
def composer() -> Iterator[None]:
    """Hydra made ready for ``compose`` and ``expand`` inside."""
    store = ConfigStore.instance()
    store.store(name="schema", node=RunConfig)
    for group, options in SCHEMAS.items():
        for name, schema in options.items():
            store.store(group=group, name=f"schema_{name}", node=schema)
    _compose_groups.cache_clear()  # presets may have changed since the last time
    with hydra.initialize_config_dir(str(presets.conf_folder()), version_base="1.3"):
        yield


def compose(overrides: Sequence[str]) -> RunConfig:
    """The checked config of one run.

    Raises: ConfigError for anything wrong with the overrides.
    """
    try:
        for override in _parse(overrides):
            _check_group(override)
        config: Any = OmegaConf.to_object(_compose(overrides))
    except COMPLAINTS as error:
        raise _explain(overrides, error) from error
    checks.check(config)
    assert isinstance(config, RunConfig)
    return config


def show(overrides: Sequence[str]) -> str:
    """The composed config as YAML, interpolations resolved. Raises: ConfigError as ``compose``."""
    compose(overrides)
    return OmegaConf.to_yaml(_compose(overrides), resolve=True)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every run of a sweep, in Hydra's order: the last key varies fastest.

    Raises: ConfigError where an override cannot be parsed or swept over.
    """
    try:
        jobs = BasicSweeper.split_arguments(_parse(overrides), None)[0]
    except COMPLAINTS as error:
        raise _explain(overrides, error) from error
    return [list(job) for job in jobs]


def search_space(overrides: Sequence[str]) -> tuple[list[Dimension], list[str]]:
    """The keys that a search chooses, from Hydra's sweep syntax, and the other overrides.

    Raises: ConfigError where an override cannot be parsed, or none has a range or choices.
    """
    try:
        parsed = _parse(overrides)
    except COMPLAINTS as error:
        raise _explain(overrides, error) from error
    space = [_dimension(override) for override in parsed if override.is_sweep_override()]
    fixed = [o.input_line or "" for o in parsed if not o.is_sweep_override()]
    if not space:
        raise ConfigError(
            "nothing to search: give a range or choices, such as 'lr=interval(1e-4,1e-2)' or "
            "optimizer=adam,rmsprop"
        )
    return space, fixed


def _dimension(override: Override) -> Dimension:
    key, sweep = override.get_key_element(), cast(Any, override.value())
    is_log = "log" in sweep.tags
    if override.is_interval_sweep():
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        low, high = float(sweep.start), float(sweep.end)
        return Dimension(key=key, low=low, high=high, log=is_log, whole=whole)
    if override.is_range_sweep():
        values = list(sweep.range())
        if not values:
            raise ConfigError(f"{override.input_line} is an empty range")
        whole = all(isinstance(value, int) for value in values)
        low, high = float(min(values)), float(max(values))
        step = abs(float(sweep.step))
        return Dimension(key=key, low=low, high=high, step=step, log=is_log, whole=whole)
    return Dimension(key=key, choices=tuple(override.sweep_string_iterator()))


def _compose(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes. Its reading of a choice of groups takes 0.2 s and is done once: most
    runs of a sweep differ in values only, which are set on a copy as Hydra would set them."""
    parsed = _parse(overrides)
    values = [o for o in parsed if not _is_group(o)]
    if all(o.type is OverrideType.CHANGE and o.package is None for o in values):
        groups = tuple(o.input_line or "" for o in parsed if _is_group(o))
        config = copy.deepcopy(_compose_groups(groups))
        with contextlib.suppress(*COMPLAINTS):
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            return config
    # Something to add, or wrong: Hydra does it, or complains.
    return hydra.compose(config_name="config", overrides=list(overrides))


@functools.cache
def _compose_groups(overrides: tuple[str, ...]) -> DictConfig:
    return hydra.compose(config_name="config", overrides=list(overrides))


def _parse(overrides: Sequence[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def _explain(overrides: Sequence[str], error: Exception) -> ConfigError:
    """What is wrong, in one line: the first override that cannot be, else Hydra's first line."""
    try:
        parsed = _parse(overrides)
    except COMPLAINTS:
        wrong = next(text for text in overrides if not _can_parse(text)) or "an empty word"
        return ConfigError(f"{wrong} is not an override; write key=value, quoting special signs")
    try:
        chosen = _compose([o.input_line or "" for o in parsed if _is_group(o)])
        for override in parsed:
            if not _is_group(override):
                _check_value(chosen, override)
    except ConfigError as explained:
        return explained
    except COMPLAINTS:
        pass
    if isinstance(error, MissingMandatoryValue):
        key = str(error.full_key or error).split()[-1]
        return ConfigError(f"{key} must be given, it has no default: {key}=...")
    return ConfigError(" ".join(str(error).split("\n")[0].split()))


def _can_parse(text: str) -> bool:
    try:
        _parse([text])
    except COMPLAINTS:
        return False
    return True


def _is_group(override: Override) -> bool:
    return override.key_or_group in (*SCHEMAS, EXPERIMENT)


def _check_group(override: Override) -> None:
    key = override.key_or_group
    if override.type is OverrideType.DEL:
        raise ConfigError(f"{key} cannot be removed: every run has it; choose another value")
    if override.is_sweep_override():
        raise ConfigError(
            f"{override.input_line} is a sweep: add --multirun, or quote a value with a comma"
        )
    if not _is_group(override):
        return
    options = presets.choices(presets.conf_folder() / key)
    value = override.value()
    if value not in options and not (key == EXPERIMENT and value is None):
        raise ConfigError(f"{key} must be one of {', '.join(options)}, got {checks.shown(value)}")


def _check_value(chosen: DictConfig, override: Override) -> None:
    """Check that the key exists beside the chosen groups, and that the value is of its type."""
    key, value = override.key_or_group, override.value()
    schema: Any = RunConfig
    node: Any = chosen
    prefix = ""
    parts = key.split(".")
    for number, part in enumerate(parts):
        hints = get_type_hints(schema) if dataclasses.is_dataclass(schema) else {}
        if part not in hints:
            raise ConfigError(_unknown(prefix, part, list(hints)))
        hint: Any = hints[part]
        prefix += f"{part}."
        if dataclasses.is_dataclass(hint):
            node = node[part]
            schema = OmegaConf.get_type(node)
            if number == len(parts) - 1:
                raise ConfigError(f"{key} must be a choice of its group, got {checks.shown(value)}")
        else:
            schema = None
    copy = OmegaConf.create({"value": chosen}).value
    try:
        OmegaConf.update(copy, key, value, force_add=False)
        OmegaConf.select(copy, key)  # what the value refers to, where it does
    except OmegaConfBaseException:
        raise ConfigError(f"{key} must be {_type_name(hint)}, got {checks.shown(value)}") from None


def _unknown(prefix: str, part: str, known: list[str]) -> str:
    key = prefix + part or "an empty name"
    if not known:
        return f"{key} is not a key: {prefix.rstrip('.')} has none below it"
    close = difflib.get_close_matches(part, known, n=1)
    hint = f"; did you mean {prefix}{close[0]}?" if close else ""
    where = prefix.rstrip(".") or "the config"
    return f"{key} is not a key{hint} The keys of {where} are {', '.join(known)}".replace(
        "key The", "key; the"
    ).replace("? The", "? The")


def _type_name(hint: Any) -> str:
    if get_origin(hint) is list:
        return "a list of names, such as [a,b]"
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    return TYPE_NAMES.get(kinds[0], str(kinds[0]))
