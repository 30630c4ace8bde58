"""The errors that a user can cause, each with the exit code that the commands give it.

A message names the key, the rule, the value and the way out, on one line:
``generator.width must be a multiple of 8, got 7``.
"""


class LunganError(Exception):
    """What a command prints as one line on stderr before it exits with ``exit_code``."""

    exit_code = 2


class ConfigError(LunganError):
    """A setting is unknown, of the wrong type, out of range, or impossible beside another."""


class DataError(LunganError):
    """Images cannot be found, read or used."""


class WeightsError(LunganError):
    """A weights file is missing, damaged, or not the one that was asked for."""


class RunFolderError(LunganError):
    """A run folder or the store cannot be read, written or claimed."""


class DivergedError(LunganError):
    """A loss became non-finite: a result of the run, recorded before this is raised."""

    exit_code = 3
