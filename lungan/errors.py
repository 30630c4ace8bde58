"""The errors that a user can cause, each with the exit code that the commands give it.

A message names the key, the rule, the value and the way out, on one line:
``generator.width must be a multiple of 8, got 7``.
"""

from typing import Any

_MOST_SHOWN = 80


class LunganError(Exception):
    """What a command prints as one line on stderr before it exits with ``exit_code``."""

    exit_code = 2


class ConfigError(LunganError):
    """A setting is unknown, of the wrong type, out of range, or impossible beside another."""


class DataError(LunganError):
    """Images cannot be found, read or used."""


class WeightsError(LunganError):
    """A weights file is missing, damaged, or not the one that was asked for."""


class RunFolderError(LunganError):
    """A run folder or the store cannot be read, written or claimed."""


class DivergedError(LunganError):
    """A loss became non-finite: a result of the run, recorded before this is raised."""

    exit_code = 3


def shown(value: Any) -> str:
    """What messages call a value: as it would be typed in an override, in one line."""
    kind: Any = type(value)
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if not value.strip():
            return "nothing"
        case list():
            text = f"[{','.join(map(shown, value))}]"
        case _ if kind.__repr__ is object.__repr__:
            text = f"an object of the type {kind.__name__}"
        case _:
            text = str(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[: _MOST_SHOWN // 2]}... ({len(text)} characters)"
