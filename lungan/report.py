"""The command ``python -m lungan.report``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.results.read import Collection, collect
from lungan.runs.folder import WANDB, write_json
from lungan.tracking.upload import upload_line
from lungan.tracking.wandb import SENT, logged_in
from lungan.tracking.wandb_report import Place, build_report, place, save, spec

SPEC = "wandb_report.json"
PAGE = "report.html"

DESCRIPTION = """\
Make the W&B report of a sweep: scores, loss curves, sample grids, a run comparer and the verdicts.
Without a W&B login it writes what W&B would be sent to a file and says what to do.
"""

EXAMPLES = """\
example:
  python -m lungan.report --sweep report --entity my-team --project lungan
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Gives the exit code: 0, or 2 for a sweep, folder or project that will not do."""
    parser = CommandParser(
        prog="python -m lungan.report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sweep", metavar="NAME", required=True, help="the sweep to report on")
    parser.add_argument(
        "--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument("--entity", help="W&B user or team (default: the runs', else your own)")
    parser.add_argument("--project", help="W&B project (default: the runs')")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: results/NAME)"
    )
    options = parser.parse_args(arguments)
    out = options.out or Path("results") / options.sweep

    def command() -> int:
        collection = collect(options.store, options.sweep)
        where = place(collection, options.entity, options.project)
        # Without an entity W&B is not asked for anything while the report is built.
        offline = build_report(collection, Place("", where.project, where.group))
        write_json(out / SPEC, spec(offline))
        for line in _missing(collection):
            print(line)
        if logged_in():
            print(f"report: {save(collection, where)}")
            return 0
        # The second is written at the end of every multirun.
        pages = [out / PAGE, options.store / "sweeps" / options.sweep / PAGE]
        page = next((path for path in pages if path.is_file()), None)
        print(
            "no W&B login: run wandb login (or set WANDB_API_KEY), then this command again; "
            f"the report's spec is in {out / SPEC}"
        )
        if page is not None:
            print(f"the same findings, without W&B: {page}")
        else:
            print(
                "the same findings, without W&B: "
                f"python -m lungan.results {options.store} --sweep {options.sweep} --out {out}"
            )
        return 0

    return run_command(command)


def _missing(collection: Collection) -> list[str]:
    """What W&B does not have of the sweep, as far as the run folders tell."""
    sent = sum(
        run.folder is not None and (run.folder / WANDB / SENT).is_file() for run in collection.runs
    )
    if sent == len(collection.runs):
        return []
    line = upload_line(collection.store, sweep=collection.sweep)
    return [f"W&B lacks {len(collection.runs) - sent} of {len(collection.runs)} runs: {line}"]


if __name__ == "__main__":
    run_as_program(main)
