"""``python -m lungan.data PATH``: what lungan would take of a folder, a table or an .npz."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lungan.cli import CommandParser, run_as_program, run_command
from lungan.errors import DataError
from lungan.files import at_home

EXAMPLES = r"""examples:
  python -m lungan.data films
      classes, splits, sizes, and what was cropped, scaled or left out of a folder of images
  python -m lungan.data films 'data.group=(\d+)_'
      with whose images they are: the number before _ in a file's name is the patient
  python -m lungan.data films.csv data.image_column=file data.label_column=finding
      the same of a table
The settings are those of python -m lungan.train, which prints the same before it trains.
docs/data.md shows each step. Exit codes: 0 good, 2 the images cannot be used as they are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit code."""
    parser = CommandParser(
        "data", "See what lungan takes of your images, before it trains.", EXAMPLES
    )
    parser.add_argument("path", metavar="PATH", help="a folder, a .csv table or an .npz")
    # default: argparse calls a list without one required.
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="data.key=value", help="settings to change"
    )
    return run_command(lambda: _inspect(parser.parse_intermixed_args(arguments)))


def _inspect(options: argparse.Namespace) -> int:
    # Here, so that --help need not wait for Hydra.
    from lungan.config import compose
    from lungan.data.build import load
    from lungan.data.images import READERS

    path = at_home(options.path)
    reader = "folder" if path.is_dir() else READERS.get(path.suffix.lower())
    if reader is None:
        what = "is none of these" if path.exists() else "does not exist"
        raise DataError(f"give a folder of images, a .csv table or an .npz; {path} {what}")
    with compose.composer():
        config = compose.compose([f"data={reader}", "data.path=.", *options.overrides]).data
    config.path = str(path)  # type: ignore[attr-defined]
    load(config, say=print)
    return 0


if __name__ == "__main__":
    run_as_program(main)
