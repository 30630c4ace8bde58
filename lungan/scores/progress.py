"""Scoring's progress as one line on a terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class ProgressLine:
    """A ``suite.Progress``, silent where stderr is no terminal."""

    def __enter__(self) -> ProgressLine:
        self._bar: Any = tqdm(disable=None, leave=False, bar_format="scoring: {desc}")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        self._bar.set_description_str(f"{what} {done}/{total}")
