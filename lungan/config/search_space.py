"""What a search may choose from, without the packages that do the searching."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One key that is searched: among ``choices``, or from ``low`` to ``high``, both included."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    def first(self) -> str:
        """One of its values, as text."""
        return self.choices[0] if self.choices else str(int(self.low) if self.whole else self.low)
