"""Figures by a process of their own, while this one writes tables.

For thousands of runs: drawing takes a quarter of the time, however few of them it shows.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TypeAlias

from lungan.results.canvas import Figure
from lungan.results.collect import Problem
from lungan.results.figures import draw
from lungan.results.sheet import Sheet

MIN_RUNS = 2000
"""With fewer runs, starting a process takes longer than it saves."""

Drawn: TypeAlias = tuple[list[Figure], list[Problem]]


@contextlib.contextmanager
def drawing(sheet: Sheet, *, apart: bool) -> Iterator[Callable[[], Drawn]]:
    """Gives what waits for the figures, with the files that could not be used.

    apart: draw in another process meanwhile. Where that fails, after saying why, the waiting
    raises CalledProcessError.
    """
    if not apart:
        yield lambda: _draw(sheet)
        return
    # Files, not pipes: neither side waits for the other to read.
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as answer:
        pickle.dump(sheet, question)
        question.seek(0)
        command = [sys.executable, "-m", "lungan.results.apart"]
        with subprocess.Popen(command, stdin=question, stdout=answer) as process:

            def wait() -> Drawn:
                if code := process.wait():
                    raise subprocess.CalledProcessError(code, command)
                answer.seek(0)
                drawn: Drawn = pickle.load(answer)
                return drawn

            try:
                yield wait
            finally:
                process.kill()  # where nobody waited; it has ended otherwise


def _draw(sheet: Sheet) -> Drawn:
    problems: list[Problem] = []
    return draw(sheet, problems), problems


def main() -> None:
    """A pickled sheet on stdin, what was drawn of it on stdout, pickled."""
    pickle.dump(_draw(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)


if __name__ == "__main__":
    main()
