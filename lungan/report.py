"""The command ``python -m lungan.report``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.files import write_json
from lungan.results.read import collect
from lungan.runs.folder import SWEEPS
from lungan.tracking.upload import upload_line
from lungan.tracking.wandb import logged_in, sent
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
    parser = CommandParser("report", DESCRIPTION, EXAMPLES)
    parser.add_argument("--sweep", metavar="NAME", required=True, help="the sweep to report on")
    parser.add_argument(
        "--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument("--entity", help="W&B user or team (default: the runs', else your own)")
    parser.add_argument("--project", help="W&B project (default: the runs')")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: results/NAME)"
    )
    return run_command(lambda: _report(parser.parse_args(arguments)))


def _report(options: argparse.Namespace) -> int:
    store, sweep = options.store, options.sweep
    out = options.out or Path("results") / sweep
    collection = collect(store, sweep)
    where = place(collection, options.entity, options.project)
    # Without an entity W&B is not asked for anything while the report is built.
    offline = build_report(collection, Place("", where.project, where.group))
    write_json(out / SPEC, spec(offline))
    folders = [run.folder for run in collection.runs if run.status != "missing"]
    lacking = len(collection.runs) - sum(bool(sent(each)) for each in folders)
    if lacking:
        line = upload_line(store, sweep=sweep)
        print(f"W&B lacks {lacking} of {len(collection.runs)} runs: {line}")
    if logged_in():
        print(f"report: {save(collection, where)}")
        return 0
    print(
        "no W&B login: run wandb login (or set WANDB_API_KEY), then this command again; "
        f"the report's spec is in {out / SPEC}"
    )
    # The second is written at the end of every multirun.
    pages = [path for path in (out / PAGE, store / SWEEPS / sweep / PAGE) if path.is_file()]
    make_it = f"python -m lungan.results {store} --sweep {sweep} --out {out}"
    print(f"the same findings, without W&B: {pages[0] if pages else make_it}")
    return 0


if __name__ == "__main__":
    run_as_program(main)
