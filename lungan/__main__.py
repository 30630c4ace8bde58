"""``lungan COMMAND ...``, or ``python -m lungan COMMAND ...``: all commands behind one word."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import lungan
from lungan.cli import run_as_program
from lungan.errors import ConfigError

COMMANDS = {
    "train": ("lungan.train", "train a GAN on a small medical image set, or many in a sweep"),
    "search": ("lungan.search", "search the settings with the best score"),
    "score": ("lungan.score", "score runs, or any images against any real ones"),
    "generate": ("lungan.generate", "make a data set of images with a trained generator"),
    "utility": ("lungan.utility.__main__", "find out whether generated images help a classifier"),
    "results": ("lungan.results.__main__", "tables, figures and a page of a store or a sweep"),
    "upload": ("lungan.upload", "runs of a store to W&B, trained with a tracker or without"),
    "report": ("lungan.report", "the W&B report of a sweep"),
    "data": ("lungan.data.__main__", "see what lungan takes of your images"),
}
"""The module of each command, which ``python -m`` runs too, and what it does."""

HELP = """\
usage: lungan COMMAND ...

Find out, honestly, whether a GAN can augment a small medical image set.

commands, each with --help:
{commands}

python -m lungan.COMMAND does the same. From Python: import lungan (docs/python.md)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = (given[0], given[1:]) if given else ("--help", [])
    if name in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {key:8}  {COMMANDS[key][1]}" for key in COMMANDS)))
        return 0
    if name == "--version":
        print(f"lungan {lungan.__version__}")
        return 0
    if name not in COMMANDS:
        text = f"a command must be one of {', '.join(COMMANDS)}, got {name}; see lungan --help"
        print(f"ConfigError: {text}", file=sys.stderr)
        return ConfigError.exit_code
    if arguments is None:
        sys.argv = [sys.argv[0], *rest]  # runs record the command that they come from
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code


def program() -> None:
    """What the console script ``lungan`` calls."""
    run_as_program(main)


if __name__ == "__main__":
    program()
