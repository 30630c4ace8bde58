"""Fields of a config, each with the rule that its value must satisfy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

NEUTRAL = "neutral"
"""Field metadata of a key that came after runs had been named without it: its value that means
what was before. At that value the key is left out of every id, so that stores outlive new keys."""


def rule(text: str, holds: Callable[[Any], bool], **metadata: Any) -> Any:
    """A field whose value must satisfy ``holds``; ``text`` follows "must be".

    Without a default, but for a key with a neutral value, which configs saved before it lack.
    """
    default = metadata.get(NEUTRAL, dataclasses.MISSING)
    return dataclasses.field(default=default, metadata={"text": text, "holds": holds, **metadata})


def at_least(low: float, **metadata: Any) -> Any:
    return rule(f"at least {low}", lambda value: math.isfinite(value) and value >= low, **metadata)


def above(low: float, **metadata: Any) -> Any:
    return rule(
        f"greater than {low}", lambda value: math.isfinite(value) and value > low, **metadata
    )


def within(low: float, high: float, **metadata: Any) -> Any:
    """From ``low`` up to, but not including, ``high``."""
    return rule(
        f"at least {low} and less than {high}", lambda value: low <= value < high, **metadata
    )


def switch(neutral: bool) -> Any:
    """A field that is true or false, with its neutral value."""
    return rule("true or false", lambda value: isinstance(value, bool), neutral=neutral)


def one_of(*choices: Any, **metadata: Any) -> Any:
    text = ", ".join(map(str, choices))
    text = text if len(choices) == 1 else f"one of {text}"
    return rule(text, lambda value: value in choices, **metadata)


def subset_of(*choices: str) -> Any:
    return rule(
        f"a list of distinct names from {', '.join(choices)}",
        lambda value: set(value) <= set(choices) and len(set(value)) == len(value),
    )
