"""Forms of a training step that take turns, a step each in a round, so that what else the machine
does hits all of them alike.

``Form`` is one in a process of its own, and ``take`` can leave out rounds in which processes that
are no part of the benchmark took more than a twentieth of the CPU's time.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNDISTURBED = 0.05
ANY = 1.0


def serve(step: Callable[[], float], greeting: str = "ready") -> None:
    """The greeting on stdout, and for every line of stdin what ``step()`` gives, milliseconds."""
    print(greeting, flush=True)
    for _ in sys.stdin:
        print(step(), flush=True)


class Form:
    """A process that serves steps, after its ``greeting``: one a call, which gives its
    milliseconds."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pid = self._process.pid
        self.greeting = self._answer()

    def __call__(self) -> float:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> str:
        """Ends the process; what it says last."""
        last, _ = self._process.communicate()
        return last

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{shlex.join(map(str, self._process.args))} has ended")
        return line


@dataclass(frozen=True)
class Rounds:
    """``times``: milliseconds of each form, by round. ``disturbed``: how many did not count."""

    times: dict[str, list[float]]
    disturbed: int

    @property
    def count(self) -> int:
        return len(next(iter(self.times.values())))


def alternate(
    forms: Mapping[str, Callable[[], float]], rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """What each form gives in each of ``rounds`` rounds, after ``warm_up`` that do not count."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(warm_up + rounds):
        for name, form in forms.items():
            found = form()
            if number >= warm_up:
                times[name].append(found)
    return times


def take(
    forms: Mapping[str, Form],
    rounds: int,
    seconds: float,
    *,
    others: float = UNDISTURBED,
    busy: Iterable[int] = (),
) -> Rounds:
    """``rounds`` rounds that count, or as many as begin within ``seconds``, each in an order drawn
    anew. others: the largest share of the CPU's time that processes which are no part of this may
    take in a round. busy: processes that are there to be in the way."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    disturbed = 0
    began = time.monotonic()
    watched = Others([*busy, *(form.pid for form in forms.values())])
    order = random.Random(0)
    while len(times[next(iter(times))]) < rounds and time.monotonic() - began < seconds:
        watched.share()
        took = {name: forms[name]() for name in order.sample(list(forms), len(forms))}
        if watched.share() > others:
            disturbed += 1
            continue
        for name in forms:
            times[name].append(took[name])
    if not times[next(iter(times))]:
        raise SystemExit(f"other processes disturbed all {disturbed} rounds")
    return Rounds(times, disturbed)


class Others:
    """CPU time of processes other than these and this one, in Linux' hundredths of a second."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._before = self._ticks()

    def share(self) -> float:
        """Of all cores' time since the last call, what others took, from 0 to 1."""
        after = self._ticks()
        busy, own, elapsed = (late - early for late, early in zip(after, self._before, strict=True))
        self._before = after
        return max(0.0, busy - own) / elapsed if elapsed else 0.0

    def _ticks(self) -> tuple[int, int, int]:
        """Of all cores while busy, of these processes, and of all cores."""
        cpu = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
        own = 0
        for pid in self._pids:
            # The process' name, in brackets, may hold spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            own += int(fields[11]) + int(fields[12])
        return sum(cpu) - cpu[3] - cpu[4], own, sum(cpu)
