"""``python -m lungan.train [overrides]``: one run, or with ``--multirun`` a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lungan import presets
from lungan.commands import run_command
from lungan.config import SCHEMAS

EXAMPLES = """examples:
  python -m lungan.train optimizer=adam
      the report's networks on the embedded phantom radiographs
  python -m lungan.train data=pneumoniamnist data.path=<file> optimizer=rmsprop epochs=100 lr=0.0005
      on PneumoniaMNIST, with other settings
  python -m lungan.train --multirun optimizer=adam,rmsprop epochs=50,100
      four runs; what is finished is not run again, and 100 epochs go on from 50

Every run leaves a folder under runs/. Stopped by Ctrl-C, the same command goes on.
Exit codes: 0 good, 2 bad input, 3 training diverged (recorded), 130 interrupted (resumable)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lungan.train",
        description="Train a GAN on a small medical image set and score what it makes.",
        epilog=f"{_groups()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination of comma lists"
    )
    parser.add_argument(
        "--cfg", choices=["job"], help="print the composed config and do nothing else"
    )
    options = parser.parse_intermixed_args(arguments)
    return run_command(lambda: _train(options))


def _train(options: argparse.Namespace) -> int:
    # Here, so that --help need not wait for Hydra and torch.
    from lungan import compose

    with compose.composer():
        if options.cfg:
            sys.stdout.write(compose.show(options.overrides))
            return 0
        if options.multirun:
            from lungan.runs.sweep import run_sweep

            jobs = compose.expand(options.overrides)
            return run_sweep([compose.compose(job) for job in jobs])
        config = compose.compose(options.overrides)

    from lungan.runs.single import run_single

    return run_single(config)


def _groups() -> str:
    lines = ["groups and their choices (group=choice):"]
    folder = presets.conf_folder()
    lines += [
        f"  {group:14} {', '.join(presets.choices(folder / group))}"
        for group in (*SCHEMAS, "experiment")
    ]
    lines.append(
        "settings: --cfg job prints them all; lr, epochs, batch_size, seed, precision, ..."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
