"""The train command's single run: do it, and say what it made."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from lungan.cli import INTERRUPTED
from lungan.config import RunConfig
from lungan.errors import DivergedError
from lungan.runs import folder as names
from lungan.runs.prepare import prepare
from lungan.runs.run import run
from lungan.runs.stopping import StopSignal
from lungan.runs.work import Result
from lungan.scores.table import format_result
from lungan.tracking.wandb import sync_command
from lungan.training.loop import Interrupted


def run_single(config: RunConfig) -> int:
    """Gives the command's exit code. Raises: LunganError for what the user can mend."""
    stop = StopSignal()
    with stop.installed():
        prepared = prepare(config)
        try:
            result = run(prepared, stop=stop)
        except Interrupted:
            print("interrupted, checkpoint written; the same command goes on", file=sys.stderr)
            return INTERRUPTED
    print(describe(result))
    if result.summary["status"] == "diverged":
        print(
            f"DivergedError: {result.summary['reason']} (recorded in {result.folder}; "
            "retry=diverged runs it again)",
            file=sys.stderr,
        )
        return DivergedError.exit_code
    return 0


def describe(result: Result) -> str:
    """Status, time, scores and the paths of what the run made, for a terminal."""
    summary = result.summary
    seconds = tqdm.format_interval(summary["seconds"]["total"])
    verb = "was finished before" if result.reused else "finished"
    lines = [f"{summary['name']} {verb}: {summary['status']}, {seconds}"]
    if summary["scores"] is not None:
        lines += ["", format_result(summary["scores"]), ""]
    made: list[tuple[Path, str]] = [
        (names.sample_path(result.folder, summary["epochs_done"]), "images from fixed latents"),
        (names.losses_path(result.folder), "loss curves"),
        (result.folder / names.GENERATOR, "the generator"),
        (result.folder / names.METRICS, "losses, gradients and speed of every epoch"),
        (result.folder / names.SCORES, "scores and their floors"),
        (result.folder / names.SUMMARY, "config, versions, times and scores"),
    ]
    width = max(len(str(path)) for path, _ in made)
    lines += [f"  {path!s:{width}}  {what}" for path, what in made if path.exists()]
    sync = sync_command(result.folder)
    if sync is not None:
        lines.append(f"to upload what was recorded for W&B: {sync}")
    return "\n".join(lines)
