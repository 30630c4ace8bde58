"""The command ``python -m lungan.results``."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.results.report import write_results

DESCRIPTION = """\
Write the tables, tests, figures and report.html of a store's runs or of one sweep.
Reads run folders only: it can be repeated at any time, also while runs are under way.
"""

EXAMPLES = """\
examples:
  python -m lungan.results --sweep report
  python -m lungan.results runs --columns generator.width,data.size --out results/all
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Gives the exit code: 0, or 2 for a store, sweep, column or folder that will not do."""
    parser = CommandParser("results", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "store", nargs="?", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep")
    parser.add_argument(
        "--columns",
        metavar="KEY,KEY",
        default="",
        help="config keys to show in results.csv although they do not vary",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where to write (default: results/NAME, or results/all without a sweep)",
    )

    def command() -> int:
        options = parser.parse_args(arguments)
        columns = [column.strip() for column in options.columns.split(",") if column.strip()]
        out = options.out or Path("results") / (options.sweep or "all")
        # Collections would walk through every run read so far, and all are kept to the end.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            results = write_results(options.store, options.sweep, out, columns)
        finally:  # a process that goes on would keep every figure drawn until it ends
            if was_enabled:
                gc.enable()
        for verdict in results.verdicts:
            print(verdict)
        print(f"\n{len(results.files)} files in {out}; open {out / 'report.html'}")
        return 0

    return run_command(command)


if __name__ == "__main__":
    run_as_program(main)
