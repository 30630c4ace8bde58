"""``python -m lungan.train [overrides]``: one run, or with ``--multirun`` a sweep."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

import yaml

from lungan.cli import CommandParser, run_command
from lungan.config import GROUPS, presets
from lungan.errors import ConfigError

EXAMPLES = """examples:
  python -m lungan.train optimizer=adam
      the report's networks on the embedded phantom radiographs
  python -m lungan.train data=pneumoniamnist data.path=<file> optimizer=rmsprop epochs=100 lr=0.0005
      on PneumoniaMNIST, with other settings
  python -m lungan.train --multirun optimizer=adam,rmsprop epochs=50,100
      four runs; what is finished is not run again, and 100 epochs go on from 50
  python -m lungan.train --multirun +sweeps=report
      a named sweep; there are {sweeps}
  python -m lungan.train --multirun +sweeps=report hydra/launcher=joblib
      the same by several processes; slurm and ray use a cluster, stacked trains runs of one
      shape as one model, made for a GPU

Every run leaves a folder under runs/. Stopped by Ctrl-C, the same command goes on.
Exit codes: 0 good, 2 bad input, 3 training diverged (recorded), 130 interrupted (resumable)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    parser = CommandParser(
        prog="python -m lungan.train",
        description="Train a GAN on a small medical image set and score what it makes.",
        epilog=f"{_groups()}\n\n{_examples()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination of comma lists"
    )
    parser.add_argument(
        "--cfg", choices=["job"], help="print the composed config and do nothing else"
    )
    parser.add_argument("--sweep", metavar="NAME", help="a name for the sweep's table and manifest")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what a sweep would do, and do nothing"
    )
    options = parser.parse_intermixed_args(arguments)
    return run_command(lambda: _train(options))


def _train(options: argparse.Namespace) -> int:
    # Here, so that --help need not wait for Hydra.
    from lungan.config import compose

    if not options.multirun and (options.sweep or options.dry_run):
        raise ConfigError("--sweep and --dry-run belong to a sweep: add --multirun")
    if options.multirun and options.cfg:
        raise ConfigError("--cfg shows one run: leave out --multirun, or see a sweep by --dry-run")
    name, question, variants, overrides = _named_sweep(options.overrides)
    if name and not options.multirun:
        raise ConfigError(f"+sweeps={name} is a sweep: add --multirun")
    launching: list[str] = []
    if any(text.lstrip("+~").startswith("hydra") for text in overrides):
        from lungan import launchers as launch  # and torch, which a wrong setting need not wait for

        launching, overrides = launch.split(overrides)
    if launching and not options.multirun:
        raise ConfigError(f"{launching[0]} belongs to a sweep: add --multirun")
    with compose.composer():
        if options.cfg:
            sys.stdout.write(compose.show(compose.compose(overrides)))
            return 0
        if not options.multirun:
            config = compose.compose(overrides)
            from lungan.runs.single import run_single

            return run_single(config)
        launcher = launch.build(launching) if launching else None
        jobs = [job for variant in variants for job in compose.expand(variant + overrides)]
        configs = [(compose.compose(job), _swept(job)) for job in jobs]

    from lungan.runs import manifest, sweep

    name = options.sweep or name
    if name:
        manifest.check_name(name)
    command = shlex.join(["python", "-m", "lungan.train", *(sys.argv[1:])])
    return sweep.run_sweep(
        sweep.Request(configs, name, question, command, options.dry_run, launcher)
    )


def _named_sweep(
    overrides: Sequence[str],
) -> tuple[str | None, str, list[list[str]], list[str]]:
    """Take ``+sweeps=NAME`` out of the overrides: name, question, variants, and the others.

    A variant is what comes before the others: the sweep's overrides, and on top of them, in turn,
    each of its ``runs``, where it has any.

    Raises: ConfigError for an unknown name.
    """
    rest = [text for text in overrides if text.partition("=")[0] not in ("+sweeps", "sweeps")]
    named = [text.partition("=")[2] for text in overrides if text not in rest]
    if not named:
        return None, "", [[]], rest
    files, name = presets.files(presets.SWEEPS), named[-1]
    if name not in files:
        raise ConfigError(f"+sweeps must be one of {', '.join(files)}, got {name}")
    values = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    given = {text.partition("=")[0].lstrip("+") for text in rest}
    variants = [
        [f"{key}={value}" for key, value in (values["overrides"] | run).items() if key not in given]
        for run in values.get("runs", [{}])
    ]
    return name, values["question"], variants, rest


def _swept(job: Sequence[str]) -> dict[str, str]:
    pairs = (text.partition("=") for text in job)
    return {key.lstrip("+"): value for key, _, value in pairs}


def _examples() -> str:
    return EXAMPLES.format(sweeps=", ".join(presets.files(presets.SWEEPS)))


def _groups() -> str:
    lines = ["groups and their choices (group=choice):"]
    lines += [
        f"  {group:14} {', '.join(presets.choices(group))}"
        for group in (*GROUPS, presets.EXPERIMENT)
    ]
    lines.append(
        "settings: --cfg job prints them all; lr, epochs, batch_size, seed, precision, ..."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
