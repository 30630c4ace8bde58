"""Attack lungan for an hour, and print and keep what was found. ``make soak`` runs it.

    python tests/attack/soak.py [--minutes 60] [--json FILE] [--first 0]

The attacks take turns, so that each has about as much of the time; tests/attack/attacks.py says
what each does. Exit code 1 where anything was lost, came out different, ended in a traceback or a
wrong exit code, or reached outside. As root, a full disk is a small file system of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
# Some distributions bring a package of this name.
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [str(ROOT / "tests")]

COLUMNS = ("tries", "lost", "different", "tracebacks", "wrong_codes", "outside", "seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first try")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    options = parser.parse_args()
    # Under nohup SIGHUP is ignored, and every command that is attacked would inherit that.
    signal.signal(signal.SIGHUP, lambda *_: None)
    from lungan.runs.prepare import git_commit, machine, versions
    from tests.attack.attacks import ATTACKS, Arena, Figures, as_values, attack

    root = Path(tempfile.mkdtemp(prefix="lungan-soak-"))
    figures = {name: Figures() for name in ATTACKS}
    number = dict.fromkeys(ATTACKS, options.first)
    began = time.monotonic()
    try:
        arena = Arena(root)
        while time.monotonic() - began < 60 * options.minutes:
            name = min(ATTACKS, key=lambda each: figures[each].seconds)
            before = figures[name].faults
            attack(name, number[name], arena, figures[name])
            if figures[name].faults > before:
                said = " / ".join(figures[name].examples[-1].splitlines())
                print(f"{name} {number[name]}: {said}"[:2000], flush=True)
            number[name] += 1
    except KeyboardInterrupt:
        print("stopped; the figures so far:")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{'':12}" + "".join(f"{column:>12}" for column in COLUMNS))
    for name, each in figures.items():
        values = [getattr(each, column) for column in COLUMNS]
        print(f"{name:12}" + "".join(f"{value:12.0f}" for value in values))
    if options.json is not None:
        values = {
            "command": f"make soak MINUTES={options.minutes:g}",
            "first": options.first,
            "minutes": (time.monotonic() - began) / 60,
            "machine": machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "versions": versions(),
            "git_commit": git_commit(),
            "attacks": as_values(figures),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=1).replace(str(root), "<folder>")
        options.json.write_text(text + "\n")
    return 1 if any(each.faults for each in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
