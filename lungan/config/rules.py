"""What configs are made of, and the one validator: keys, types, and the rules of every field.

The command line, saved configs and configs made in Python all pass here. Values may be untrusted:
names choose among what is registered, and nothing else of them becomes code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from lungan import registry
from lungan.errors import ConfigError, shown

if TYPE_CHECKING:
    from lungan.config.run import RunConfig

NEUTRAL = "neutral"
"""Field metadata of a key that came after runs had been named without it: its value that means
what was before. At that value the key is left out of every id, so that stores outlive new keys."""

MISSING = "???"
"""A value in YAML that a user has to give."""

_LARGEST = 2**64
"""No key takes a larger whole number; Python's own have no end, but floats and torch's seeds do."""

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(kw_only=True, slots=True)
class Part:
    """The settings of one choice of a group, such as ``optimizer=adam``; ``name`` says which."""

    name: str

    def check(self, run: RunConfig) -> None:
        """Check what they demand of the rest of the run.

        Raises: ConfigError naming key, rule, value and the way out.
        """


def rule(
    text: str | Callable[[], str] = "anything",
    holds: Callable[[Any], bool] = lambda _: True,
    **metadata: Any,
) -> Any:
    """A field whose value must satisfy ``holds``; ``text`` follows "must be". Where the field's
    type has None, null is right too.

    neutral: see ``NEUTRAL``; also what stands for the key where no YAML file gives it.
    default: the same without the part of ids, for the configs of plug-ins. lungan's own values lie
    in conf/. follows: another key, whose value it has where nothing gives it one.
    """
    default = metadata.pop("default", metadata.get(NEUTRAL, dataclasses.MISSING))
    given: dict[str, Any] = {"default": default}
    if isinstance(default, list):
        given = {"default_factory": default.copy}
    return dataclasses.field(**given, metadata={"text": text, "holds": holds, **metadata})


def at_least(low: float, **metadata: Any) -> Any:
    """most: what no machine could do more of, and no one means."""
    return rule(f"at least {low}", lambda value: math.isfinite(value) and value >= low, **metadata)


def above(low: float, **metadata: Any) -> Any:
    return rule(
        f"greater than {low}", lambda value: math.isfinite(value) and value > low, **metadata
    )


def between(low: float, high: float, **metadata: Any) -> Any:
    """From ``low`` to ``high``, both included."""
    return rule(f"from {low} to {high}", lambda value: low <= value <= high, **metadata)


def within(low: float, high: float, **metadata: Any) -> Any:
    """From ``low`` up to, but not including, ``high``."""
    return rule(
        f"at least {low} and less than {high}", lambda value: low <= value < high, **metadata
    )


def portion(**metadata: Any) -> Any:
    """A field for a share of a whole: greater than 0, at most 1."""
    return rule("greater than 0, at most 1", lambda value: 0 < value <= 1, **metadata)


def any_seed(**metadata: Any) -> Any:
    return rule("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63, **metadata)


def filled(what: str, **metadata: Any) -> Any:
    """A field for text that is not blank."""
    return rule(what, lambda value: bool(value.strip()), **metadata)


def one_of(*choices: Any, **metadata: Any) -> Any:
    """choices: what a shell's completion offers, too."""
    text = ", ".join(map(str, choices))
    text = text if len(choices) == 1 else f"one of {text}"
    return rule(text, lambda value: value in choices, choices=choices, **metadata)


def subset_of(*choices: str, group: str = "", **metadata: Any) -> Any:
    """Distinct names among ``choices`` and what is registered for a group."""

    def known() -> list[str]:
        return [*choices, *(registry.names(group) if group else ())]

    return rule(
        lambda: f"a list of distinct names from {', '.join(known())}",
        lambda value: set(value) <= set(known()) and len(set(value)) == len(value),
        **metadata,
    )


def schema(base: type[Part], group: str, name: str) -> Any:
    """The dataclass of a choice's settings. base: of all choices of the group.

    Raises: ConfigError for an unknown name, or a plug-in whose settings are no such dataclass.
    """
    if group == "score":  # Its YAML files are settings of one kind.
        return base
    config: Any = registry.find(group, name).config
    if config is None or not issubclass(config, base) or "__dataclass_fields__" not in vars(config):
        raise ConfigError(
            f"{group}={name} must be registered with config=..., a dataclass of its settings that "
            f"inherits from {base.__name__}, under @dataclass(kw_only=True) itself"
        )
    return config


def parse(kind: Any, values: Any, prefix: str = "", whole: str = "the config") -> Any:
    """The dataclass ``kind`` of plain nested values, its keys and types checked, its rules not.

    prefix: stands before the keys that errors name. whole: what has keys without a prefix.

    Raises: ConfigError for a key that is missing or unknown, or a value of a wrong type.
    """
    if not isinstance(values, Mapping):
        whole = prefix.rstrip(".") or whole
        raise ConfigError(f"{whole} must be a mapping of keys to values, got {shown(values)}")
    hints, parsed = types_of(kind), {}
    for key in values:
        if key not in hints:
            raise ConfigError(_unknown(prefix, whole, str(key), list(hints)))
    for field in sorted(dataclasses.fields(kind), key=lambda field: is_part(hints[field.name])):
        key, value = field.name, values.get(field.name, MISSING)
        if value != MISSING:
            read = parse_choice if is_part(hints[key]) else _typed
            parsed[key] = read(hints[key], prefix + key, value)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{key} must be given, it has no default: {prefix}{key}=...")
    return kind(**parsed)


def parse_choice(base: type[Part], group: str, values: Any) -> Any:
    """The dataclass of the choice of a group that ``values`` name. Raises: as ``parse``."""
    name: Any = values.get("name") if isinstance(values, Mapping) else None
    return parse(schema(base, group, name), values, f"{group}.")


def check_fields(config: Any, prefix: str = "") -> None:
    """Check type and rule of every field of a dataclass, and of those below it.

    Raises: ConfigError with ``prefix`` before the field's name, which after ``--`` is an option's.
    """
    kind: Any = type(config)
    hints, below = types_of(kind), []
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        key = key.replace("_", "-") if prefix == "--" else key
        if dataclasses.is_dataclass(value):
            below.append((value, f"{key}."))
            continue
        hint = hints[field.name]
        typed = _typed(hint, key, value)
        if typed != value or type(typed) is not type(value):
            setattr(config, field.name, value := typed)  # 1 and 1.0 have one id
        takes_null = type(None) in get_args(hint)
        if value is None and takes_null:
            continue
        if "holds" in field.metadata and not field.metadata["holds"](value):
            text = field.metadata["text"]
            text = text if isinstance(text, str) else text()
            text += ", or null" if takes_null and prefix != "--" else ""
            raise ConfigError(f"{key} must be {text}, got {shown(value)}")
        most = field.metadata.get("most")
        if most is not None and value > most:
            raise ConfigError(f"{key} must be at most {most}, got {shown(value)}")
    # Afterwards, so that a wrong lr is named, not what takes its value from it.
    for value, inner in below:
        check_fields(value, inner)


@functools.cache
def types_of(kind: Any) -> dict[str, Any]:
    """The fields' types, by name, in their order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def is_part(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Part)


def _typed(hint: Any, key: str, value: Any) -> Any:
    """The value, as a float or text where a whole number stands for one."""
    if hint is Any:  # its own rule says what it may be
        return value
    if get_origin(hint) is list:
        (kind,) = get_args(hint)
        if isinstance(value, list):
            return [_typed(kind, key, item) for item in value]
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
        # A run's files could hold no other text and be read again.
        if isinstance(value, str) and (
            "\0" in value or value != value.encode(errors="ignore").decode()
        ):
            raise ConfigError(
                f"{key} must be text that UTF-8 can write, got {shown(value)}; rename what it names"
            )
        return value
    names = [_TYPE_NAMES.get(kind, kind.__name__) for kind in kinds if kind is not type(None)]
    raise ConfigError(f"{key} must be {' or '.join(names)}, got {shown(value)}")


def _unknown(prefix: str, whole: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{close[0]}? The" if close else "the"
    where = prefix.rstrip(".") or whole
    key = shown(prefix + name) if prefix + name else "an empty name"
    configs = registry.configs(where)
    others = [f"{where}={choice}" for choice in configs if name in types_of(configs[choice])]
    if others:
        return (
            f"{key} is a key of {', '.join(others)}, not of the {where} that is chosen: give "
            f"{others[0]} too, or one of its keys {', '.join(known)}"
        )
    return f"{key} is not a key; {hint} keys of {where} are {', '.join(known)}"
