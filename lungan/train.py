"""``python -m lungan.train [overrides]``: one run, or with ``--multirun`` a sweep."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lungan.cli import (
    COMPLETION,
    FAILED,
    INTERRUPTED,
    CallableModule,
    CommandParser,
    add_config_dir,
    complete,
    run_as_program,
    run_command,
    say_more,
)
from lungan.config import GROUPS, presets
from lungan.config.run import AGENT_VARIABLE
from lungan.errors import ConfigError, DivergedError
from lungan.files import at_home

if TYPE_CHECKING:
    from lungan.runs.folder import Run
    from lungan.runs.jobs import Launcher
    from lungan.runs.sweep import Settings

log = logging.getLogger(__name__)

IN_ORDER = [("hydra/launcher", name) for name in ("basic", "local")]
"""What may be said of how a single run is done."""

EPILOG = """\
groups and their choices (group=choice):
{groups}
settings: --cfg job prints them all; lr, epochs, batch_size, seed, precision, ...

examples:
  python -m lungan.train optimizer=adam
      the report's networks on the embedded phantom radiographs
  python -m lungan.train data=pneumoniamnist data.path=<file> optimizer=rmsprop epochs=100 lr=0.0005
      on PneumoniaMNIST, with other settings
  python -m lungan.train --from runs/<run> lr=0.0005
      a finished run's settings, with another learning rate
  python -m lungan.train --multirun optimizer=adam,rmsprop epochs=50,100
      four runs; what is finished is not run again, and 100 epochs go on from 50
  python -m lungan.train --multirun +sweeps=report
      a named sweep; there are {sweeps}
  python -m lungan.train --multirun +sweeps=report --processes 2
      the same by two processes at a time; hydra/launcher=slurm and ray use a cluster

Every run leaves a folder under runs/. Stopped by Ctrl-C, the same command goes on.
Exit codes: 0 good, 2 bad input, 3 training diverged (recorded), 130 interrupted (resumable)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if given[:1] == ["--complete"]:
        return complete(parser, given[1])
    return run_command(lambda: _train(parser.parse_intermixed_args(given)))


def _parser() -> CommandParser:
    groups = [
        f"  {group:14} {', '.join(presets.choices(group))}"
        for group in (*GROUPS, presets.EXPERIMENT)
    ]
    parser = CommandParser(
        "train",
        "Train a GAN on a small medical image set and score what it makes.",
        EPILOG.format(groups="\n".join(groups), sweeps=", ".join(presets.files(presets.SWEEPS))),
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination of comma lists"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="of a sweep on this machine, at a time (default: as the CPU's cores and memory allow)",
    )
    parser.add_argument("--sweep", metavar="NAME", help="a name for the sweep's table and manifest")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what a sweep would do, and do nothing"
    )
    add_config_dir(parser)
    parser.add_argument(
        "--from",
        dest="start",
        metavar="RUN",
        type=Path,
        help="start from a run's config, or a config.yaml, instead of the defaults",
    )
    parser.add_argument(
        "-c", "--cfg", choices=["job"], help="print the composed config and do nothing else"
    )
    parser.add_argument(
        "--resolve",
        action="store_true",
        help="with --cfg, which resolves anyway",
    )
    parser.add_argument("--package", metavar="KEY", help="with --cfg: what lies under this key")
    parser.add_argument("--verbose", action="store_true", help="say more, and where errors arose")
    parser.add_argument("--shell-completion", choices=COMPLETION, help="print what a shell needs")
    return parser


def _train(options: argparse.Namespace) -> int:
    if options.shell_completion:
        print(COMPLETION[options.shell_completion])
        return 0
    verbose = [text for text in options.overrides if text.partition("=")[0] == "hydra.verbose"]
    options.overrides = [text for text in options.overrides if text not in verbose]
    if options.verbose or any(not text.endswith("=false") for text in verbose):
        say_more()
    if not options.multirun and (options.sweep or options.dry_run or options.processes is not None):
        raise ConfigError("--sweep, --processes and --dry-run belong to a sweep: add --multirun")
    if options.multirun and options.cfg:
        raise ConfigError("--cfg shows one run: leave out --multirun, or see a sweep by --dry-run")
    if options.multirun and os.environ.get(AGENT_VARIABLE):
        raise ConfigError(
            f"a W&B agent ({AGENT_VARIABLE} is set) asks for one run, --multirun makes several: "
            "leave it out of the sweep's command, and let W&B vary the settings (docs/wandb.md)"
        )
    if (options.resolve or options.package) and not options.cfg:
        raise ConfigError("--resolve and --package belong to --cfg job")
    from lungan import api  # and Hydra, which --help need not wait for
    from lungan.config import compose
    from lungan.runs.folder import read_config

    start = None if options.start is None else read_config(at_home(options.start))
    with compose.composer(options.config_dir):
        overrides, settings = compose.split_launcher(options.overrides, options.processes)
        if options.multirun:
            swept = compose.compose_sweep(overrides, start)
        else:
            for key, value in settings:
                if (key, value) not in IN_ORDER:
                    raise ConfigError(f"{key}={value} belongs to a sweep: add --multirun")
            config = compose.compose(overrides, start)
    if options.cfg:
        sys.stdout.write(compose.show(config, options.package))
        return 0
    if not options.multirun:
        return _show(api.train(config))
    from lungan import launchers  # and torch, which a wrong setting need not wait for

    name = swept.name if options.sweep is None else options.sweep
    launcher = launchers.build(settings)
    return sweep(swept.runs, launcher, name=name, question=swept.question, dry_run=options.dry_run)


def _show(run: Run) -> int:
    """Print what became of a run; gives the exit code."""
    print(describe(run))
    if run.status != "diverged":
        return 0
    print(
        f"DivergedError: {run.summary['reason']} (recorded in {run.folder}; "
        "retry=diverged runs it again)",
        file=sys.stderr,
    )
    return DivergedError.exit_code


def describe(run: Run) -> str:
    """Status, time, scores and the paths of what the run made, for a terminal."""
    from lungan.runs import folder as files
    from lungan.scores.table import format_result
    from lungan.tracking.upload import upload_line

    summary, folder = run.summary, run.folder
    seconds = tqdm.format_interval(summary["seconds"]["total"])
    verb = "was finished before" if run.reused else "finished"
    lines = [f"{summary['name']} {verb}: {run.status}, {seconds}"]
    if summary["scores"] is not None:
        lines += ["", format_result(summary["scores"]), ""]
    made: list[tuple[Path, str]] = [
        (files.sample_path(folder, summary["epochs_done"]), "images from fixed latents"),
        (files.losses_path(folder), "loss curves"),
        (folder / files.GENERATOR, "the generator"),
        (folder / files.METRICS, "losses, gradients and speed of every epoch"),
        (folder / files.SCORES, "scores and their floors"),
        (folder / files.SUMMARY, "config, versions, times and scores"),
    ]
    width = max(len(str(path)) for path, _ in made)
    lines += [f"  {path!s:{width}}  {what}" for path, what in made if path.exists()]
    if summary["config"]["tracker"]["name"] == "wandb":
        lines.append(f"to complete it in W&B: {upload_line(folder.parent, run=folder.name)}")
    return "\n".join(lines)


def sweep(
    runs: Settings,
    launcher: Launcher,
    *,
    name: str | None,
    question: str,
    dry_run: bool = False,
) -> int:
    """Plan a sweep, say so, do it, and leave its tables; gives the exit code.

    name: None for one made of the runs. dry_run: say the plan only.

    Raises: ConfigError, DataError, RunFolderError before the first run.
    """
    from lungan.runs import sweep as sweeps
    from lungan.tracking.upload import upload_line

    plan = sweeps.plan_sweep(runs, launcher, name, print)
    print(f"sweep {plan.sweep}: {plan.describe()}")
    if how := launcher.describe(plan.trajectories):
        print(how)
    sys.stdout.flush()
    if dry_run:
        print(plan.list_runs())
        return 0
    command = shlex.join(["python", "-m", "lungan.train", *(sys.argv[1:])])
    try:
        done = sweeps.run_sweep(plan, launcher, question=question, command=command)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is left")
        return INTERRUPTED
    if out := sweeps.write_results(plan.store, plan.sweep):
        print(f"results: {out / 'report.html'}, {out / 'results.csv'}, {out / 'summary.csv'}")
    print(f"to show it in W&B: {upload_line(plan.store, sweep=plan.sweep)}")
    lacking = [planned for planned, run in zip(plan.runs, done, strict=True) if not run.has_result]
    if not lacking:
        return 0
    log.error("%d of %d runs have no result:", len(lacking), len(done))
    for planned in lacking[:10]:
        log.error("  %s", planned.describe(plan.sweep))
    log.error("the same command tries them again; why is in each folder's log.txt")
    return FAILED


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    run_as_program(main)
