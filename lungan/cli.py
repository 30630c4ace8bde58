"""What all commands share: their log on stderr, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from tqdm import tqdm

from lungan.errors import ConfigError, LunganError

INTERRUPTED = 130


class _Handler(logging.Handler):
    """One line a record on stderr, not torn by a progress bar; tracebacks are for log files."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong with an option as every other mistake is said: in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(ConfigError.exit_code, f"ConfigError: {message}; see {self.prog} --help\n")


def run_command(command: Callable[[], int]) -> int:
    """Run a command with the log on stderr; gives the exit code.

    A LunganError becomes one line and its code; an interrupt 130. Anything else is a fault of
    lungan's own and keeps its traceback.
    """
    handler = _Handler()
    logger = logging.getLogger("lungan")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        return command()
    except LunganError as error:
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
