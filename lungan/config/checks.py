"""The one validator: keys, types, rules, and what settings demand of each other.

The command line, saved configs and configs made in Python all pass here. Values may be untrusted:
names choose among what is registered, and nothing else of them becomes code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from lungan import registry
from lungan.config.rules import Part
from lungan.config.run import GROUPS, RunConfig
from lungan.config.scoring import ScoreConfig
from lungan.errors import ConfigError

MISSING = "???"
"""A value in YAML that a user has to give."""

_LARGEST = 2**64
"""No key takes a larger whole number; Python's own have no end, but floats and torch's seeds do."""

_MOST_SHOWN = 80

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def parse(values: Any) -> RunConfig:
    """The RunConfig of plain nested values, its keys and types checked, its rules not.

    Raises: ConfigError for a key that is missing or unknown, or a value of a wrong type.
    """
    config: RunConfig = _parse(RunConfig, values, "")
    return config


def parse_group(group: str, values: Any) -> Any:
    """The dataclass of one group, such as ``generator``. Raises: ConfigError as ``parse``."""
    name = values.get("name") if isinstance(values, Mapping) else None
    if not isinstance(name, str):
        choices = ", ".join(registry.names(group))
        raise ConfigError(f"{group}.name must be one of {choices}, got {shown(name)}")
    return _parse(schema(group, name), values, f"{group}.")


def check(config: RunConfig) -> None:
    """Check every field, and what parts demand of each other, before any data is read.

    Raises: ConfigError naming key, rule, value and the way out.
    """
    check_fields(config, "")
    for group in GROUPS:
        part: Part = getattr(config, group)
        if schema(group, part.name) is not type(part):
            raise ConfigError(
                f"{group}.name is set by {group}=<choice>, one of "
                f"{', '.join(registry.names(group))}; got {group}.name={part.name}"
            )
    for group in GROUPS:
        getattr(config, group).check(config)


def parse_settings(kind: type[Any], values: Any, prefix: str) -> Any:
    """The checked dataclass of settings that belong to no run, such as a launcher's.

    Raises: ConfigError with ``prefix`` before the field's name.
    """
    settings = _parse(kind, values, prefix)
    check_fields(settings, prefix)
    return settings


def check_fields(config: Any, prefix: str) -> None:
    """Check type and rule of every field of a dataclass, and of those below it.

    Raises: ConfigError with ``prefix`` before the field's name.
    """
    kind: Any = type(config)
    hints, below = _hints(kind), []
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            below.append((value, f"{key}."))
            continue
        typed = _typed(key, hints[field.name], value)
        if typed != value or type(typed) is not type(value):
            setattr(config, field.name, value := typed)  # 1 and 1.0 have one id
        if "holds" in field.metadata and not field.metadata["holds"](value):
            text = field.metadata["text"]
            text = text if isinstance(text, str) else text()
            raise ConfigError(f"{key} must be {text}, got {shown(value)}")
    # Afterwards, so that a wrong lr is named, not what takes its value from it.
    for value, inner in below:
        check_fields(value, inner)


def check_batch(config: RunConfig, num_images: int) -> None:
    """Check the one rule that needs the number of training images.

    Raises: ConfigError where a batch is larger than the data set.
    """
    if config.batch_size > num_images:
        raise ConfigError(
            f"batch_size must be at most the number of training images ({num_images}), "
            f"got {config.batch_size}"
        )


def schema(group: str, name: str) -> type[Any]:
    """The dataclass of a choice's settings. Raises: ConfigError for an unknown name."""
    if group == "score":  # Its YAML files are settings of one kind.
        return ScoreConfig
    config = registry.find(group, name).config
    base = _hints(RunConfig)[group]
    if config is None or not issubclass(config, base) or "__dataclass_fields__" not in vars(config):
        raise ConfigError(
            f"{group}={name} must be registered with config=..., a dataclass of its settings that "
            f"inherits from {base.__name__}, under @dataclass(kw_only=True) itself"
        )
    return config


def takes(key: str) -> set[type[Any]]:
    """The types that a dotted key takes (``list``, ``str``, ...), by the choices that have it."""
    group, _, name = key.rpartition(".")
    if not group:
        schemas: list[Any] = [RunConfig]
    elif group == "score":
        schemas = [ScoreConfig]
    elif group in GROUPS:
        schemas = [registry.find(group, each).config for each in registry.known(group)]
    else:
        return set()
    hints = [_hints(each)[name] for each in schemas if each is not None and name in _hints(each)]
    return {kind for hint in hints for kind in (get_origin(hint) or hint, *get_args(hint))}


def shown(value: Any) -> str:
    """A value as it would be typed in an override, in one line; ``nothing`` for none at all."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if not value.strip():
            return "nothing"
        case list():
            text = f"[{','.join(map(shown, value))}]"
        case _:
            text = str(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[: _MOST_SHOWN // 2]}... ({len(text)} characters)"


def _parse(kind: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        whole = prefix.rstrip(".") or "the config"
        raise ConfigError(f"{whole} must be a mapping of keys to values, got {shown(values)}")
    hints, parsed = _hints(kind), {}
    for key in values:
        if key not in hints:
            raise ConfigError(_unknown(prefix, str(key), list(hints)))
    for field in sorted(dataclasses.fields(kind), key=lambda field: field.name in GROUPS):
        key, value = field.name, values.get(field.name, MISSING)
        if value == MISSING and _has_default(field):
            continue
        if value == MISSING:
            raise ConfigError(f"{prefix}{key} must be given, it has no default: {prefix}{key}=...")
        of_group = kind is RunConfig and key in GROUPS
        parsed[key] = (
            parse_group(key, value) if of_group else _typed(prefix + key, hints[key], value)
        )
    return kind(**parsed)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The fields' types, by name, in their order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _plain(hint: Any) -> bool:
    return get_origin(hint) is not list


def _typed(key: str, hint: Any, value: Any) -> Any:
    """The value, as a float or text where a whole number stands for one."""
    if hint is Any:  # its own rule says what it may be
        return value
    if not _plain(hint):
        (kind,) = get_args(hint)
        if isinstance(value, list):
            return [_typed(key, kind, item) for item in value]
        wanted = "a list of names, such as [a,b]" if kind is str else "a list, such as [1,2]"
        raise ConfigError(f"{key} must be {wanted}, got {shown(value)}")
    kinds = get_args(hint) or (hint,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and isinstance(value, int) and abs(value) > _LARGEST:
        raise ConfigError(f"{key} must be a number of at most 64 bits, got {shown(value)}")
    if is_number and not isinstance(value, kinds):
        for kind in (float, str):
            if kind in kinds and (kind is str or isinstance(value, int)):
                with contextlib.suppress(OverflowError):
                    return kind(value)
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return value
    names = [TYPE_NAMES.get(kind, kind.__name__) for kind in kinds if kind is not type(None)]
    raise ConfigError(f"{key} must be {' or '.join(names)}, got {shown(value)}")


def _unknown(prefix: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{close[0]}? The" if close else "the"
    where = prefix.rstrip(".") or "the config"
    key = shown(prefix + name) if prefix + name else "an empty name"
    others = []
    for choice in registry.known(where) if where in GROUPS else []:
        config: Any = registry.find(where, choice).config
        if config is not None and name in _hints(config):
            others.append(f"{where}={choice}")
    if others:
        return (
            f"{key} is a key of {', '.join(others)}, not of the {where} that is chosen: give "
            f"{others[0]} too, or one of its keys {', '.join(known)}"
        )
    return f"{key} is not a key; {hint} keys of {where} are {', '.join(known)}"
