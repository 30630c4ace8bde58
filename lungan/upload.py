"""The command ``lungan upload``: runs of a store to W&B, trained with a tracker or without."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.config.run import WandbConfig
from lungan.errors import ConfigError
from lungan.runs.folder import SWEEPS

DESCRIPTION = """\
Make the W&B runs of what lies in a store, trained with or without a tracker, from the run folders
alone. What W&B has is not sent again, and an upload that was broken off goes on.
"""

EXAMPLES = """\
examples:
  lungan upload runs --sweep report --project my-project
  lungan upload runs --sweep report --artifacts
  lungan upload runs 1f2e3d4c --offline && wandb sync
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Gives the exit code: 0, or 2 where W&B or the store will not do."""
    parser = CommandParser("upload", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "store", type=Path, nargs="?", default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="folder names, or the 8 digits that they end in"
    )
    parser.add_argument("--sweep", metavar="NAME", help="the runs of this sweep only")
    parser.add_argument("--project", help="W&B project (default: WANDB_PROJECT, else lungan)")
    parser.add_argument("--entity", help="W&B user or team (default: WANDB_ENTITY, else your own)")
    parser.add_argument(
        "--real-images", action="store_true", help="send a grid of training images too"
    )
    parser.add_argument(
        "--artifacts",
        action="store_true",
        help="send generators and the sweep's tables as artifacts too, with what they come from",
    )
    parser.add_argument(
        "--offline", action="store_true", help="send nothing: record for a later wandb sync"
    )
    return run_command(lambda: _upload(parser.parse_args(arguments)))


def _upload(options: argparse.Namespace) -> int:
    # Here, so that --help need not wait for torch.
    from lungan.tracking.upload import choose_runs, upload, upload_tables

    if options.sweep and options.runs:
        raise ConfigError("give --sweep or names of runs, not both")
    if os.environ.get("WANDB_SWEEP_ID"):
        raise ConfigError("a W&B agent's process has one run of its own; upload outside of it")
    if options.artifacts and options.offline:
        raise ConfigError("--artifacts needs W&B's answers, so it does not go with --offline")
    tables = options.store / SWEEPS / (options.sweep or "")
    if options.artifacts and options.sweep and not any(tables.glob("*.csv")):
        again = ["python", "-m", "lungan.results", str(options.store), "--sweep", options.sweep]
        raise ConfigError(
            f"{tables} has no tables to send; {shlex.join([*again, '--out', str(tables)])}"
        )
    config = WandbConfig(
        name="wandb",
        mode="offline" if options.offline else "online",
        project=options.project,
        entity=options.entity,
        real_images=options.real_images,
    )
    runs, passed_over = choose_runs(options.store, options.sweep, options.runs)
    for line in passed_over:
        print(line, file=sys.stderr)
    recordings = Path(os.environ.get("WANDB_DIR") or ".") if options.offline else None
    steps = upload(runs, config, recordings=recordings, artifacts=options.artifacts)
    num_new = 0
    done = "uploaded" if recordings is None else "recorded"
    for number, (run, is_new) in enumerate(steps, start=1):
        num_new += is_new
        what = done if is_new else "there already"
        print(f"[{number}/{len(runs)}] {run.name} ({run.folder.name}): {what}")
    print(f"{num_new} of {len(runs)} runs {done}")
    if options.artifacts and options.sweep:
        is_new = upload_tables(options.store, options.sweep, runs, config)
        print(f"the tables of {options.sweep}: {done if is_new else 'there already'}")
    if recordings is not None:
        print(f"to send them: cd {shlex.quote(str(recordings.resolve()))} && wandb sync")
    return 0


if __name__ == "__main__":
    run_as_program(main)
