"""What configs are made of: parts of a run, and fields with the rules that values must satisfy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lungan import registry

if TYPE_CHECKING:
    from lungan.config.run import RunConfig

CHOICES = "choices"
"""Field metadata: the values of a key that has few, for a shell's completion."""

NEUTRAL = "neutral"
"""Field metadata of a key that came after runs had been named without it: its value that means
what was before. At that value the key is left out of every id, so that stores outlive new keys."""


@dataclass(kw_only=True, slots=True)
class Part:
    """The settings of one choice of a group, such as ``optimizer=adam``; ``name`` says which."""

    name: str

    def check(self, run: RunConfig) -> None:
        """Check what they demand of the rest of the run.

        Raises: ConfigError naming key, rule, value and the way out.
        """


def rule(text: str | Callable[[], str], holds: Callable[[Any], bool], **metadata: Any) -> Any:
    """A field whose value must satisfy ``holds``; ``text`` follows "must be".

    neutral: see ``NEUTRAL``; also what stands for the key where no YAML file gives it.
    default: the same without the part of ids, for the configs of plug-ins. lungan's own values lie
    in conf/. follows: another key, whose value it has where nothing gives it one.
    """
    default = metadata.pop("default", metadata.get(NEUTRAL, dataclasses.MISSING))
    given: dict[str, Any] = {"default": default}
    if isinstance(default, list):
        given = {"default_factory": default.copy}
    return dataclasses.field(**given, metadata={"text": text, "holds": holds, **metadata})


def default(value: Any) -> Any:
    """A field with no rule but its type, and a value that stands where nothing gives one."""
    return rule("anything", lambda _: True, default=value)


def at_least(low: float, **metadata: Any) -> Any:
    return rule(f"at least {low}", lambda value: math.isfinite(value) and value >= low, **metadata)


def whole(low: int, high: int, **metadata: Any) -> Any:
    """A whole number from ``low`` to ``high``, both included."""
    return rule(f"from {low} to {high}", lambda value: low <= value <= high, **metadata)


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
    return rule(text, lambda value: value in choices, **{CHOICES: choices}, **metadata)


def subset_of(*choices: str, **metadata: Any) -> Any:
    return registered("", *choices, **metadata)


def registered(group: str, *others: str, **metadata: Any) -> Any:
    """Distinct names of a group of the registry, or ``others``."""

    def known() -> list[str]:
        return [*others, *(registry.names(group) if group else ())]

    return rule(
        lambda: f"a list of distinct names from {', '.join(known())}",
        lambda value: set(value) <= set(known()) and len(set(value)) == len(value),
        **metadata,
    )
