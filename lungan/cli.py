"""What all commands share: their log on stderr, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tqdm import tqdm

import lungan
from lungan import registry
from lungan.errors import ConfigError, LunganError

INTERRUPTED = 130


class _Handler(logging.Handler):
    """One line a record on stderr, not torn by a progress bar; tracebacks are for log files."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)


class _LoadPlugin(argparse.Action):
    """Loads a plug-in as soon as it is read, so that what it brings can be named."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _: argparse.Namespace,
        values: str | Sequence[Any] | None,
        __: str | None = None,
    ) -> None:
        try:
            registry.load_file(str(values))
        except LunganError as error:
            parser.exit(error.exit_code, f"{type(error).__name__}: {error}\n")


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong with an option as every other mistake is said: in one line.

    Every command takes ``--plugin FILE`` and ``--version``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_argument(
            "--plugin",
            metavar="FILE",
            action=_LoadPlugin,
            default=argparse.SUPPRESS,
            help="a Python file whose networks, losses, ... can be named (docs/extend.md)",
        )
        self.add_argument("--version", action="version", version=f"lungan {lungan.__version__}")

    def error(self, message: str) -> NoReturn:
        self.exit(ConfigError.exit_code, f"ConfigError: {message}; see {self.prog} --help\n")


def run_command(command: Callable[[], int], *, verbose: bool = False) -> int:
    """Run a command with the log on stderr; gives the exit code.

    verbose: the log's finer messages too, and where an error arose.

    A LunganError becomes one line and its code; an interrupt 130. Anything else is a fault of
    lungan's own and keeps its traceback.
    """
    handler = _Handler()
    logger = logging.getLogger("lungan")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    try:
        return command()
    except LunganError as error:
        logger.debug("where it arose:\n%s", traceback.format_exc())
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        logger.removeHandler(handler)
