"""What all commands share: output that may get lost, errors as one line, exit codes, completion."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

import lungan
from lungan import registry
from lungan.config import GROUPS, RunConfig, presets, rules
from lungan.config.presets import EXPERIMENT
from lungan.errors import ConfigError, LunganError, shown

FAILED = 1
"""Exit code where a run of a sweep has no result."""
INTERRUPTED = 130

log = logging.getLogger("lungan")


class CallableModule(types.ModuleType):
    """A command's module that can be called, so that ``lungan.train`` is both the module of
    ``python -m lungan.train`` and the function of ``lungan.api``."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("lungan.api"), name)(*arguments, **keywords)


_OF_TRAIN = "it is an option of python -m lungan.train"
_OF_YAML = "--config-dir DIR adds YAML of your own to lungan.train and lungan.search"
HYDRAS = {
    "--info": "python -m lungan.train --cfg job prints the config, and docs/hydra.md says more",
    "--hydra-help": "--help serves, and docs/hydra.md says what is as in Hydra",
    "--config-name": "there is one main config; experiment=NAME, or --from RUN, starts elsewhere",
    "--config-path": _OF_YAML,
    "--config-dir": _OF_YAML,
    "--run": "a run is what happens without --multirun",
    "--experimental-rerun": "--from RUN starts from a saved config",
    **dict.fromkeys(("--multirun", "-m", "--cfg", "-c", "--shell-completion"), _OF_TRAIN),
}
"""Hydra's own options, and what serves in a command that has none of this name."""


class _Refuse(argparse.Action):
    def __call__(self, parser: Any, _: Any, __: Any, option: str | None = None) -> None:
        parser.error(f"unrecognized arguments: {option}: {HYDRAS[str(option)]}")


class CommandParser(argparse.ArgumentParser):
    """Of ``python -m lungan.<name>``, with examples in its epilog. Reports a wrong option in one
    line, as every other mistake is reported.

    Every command takes ``--plugin FILE`` and ``--version``.
    """

    def __init__(self, name: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"python -m lungan.{name}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            conflict_handler="resolve",  # a command's own option takes the place of Hydra's
        )
        for option in HYDRAS:
            self.add_argument(
                option, nargs="?", action=_Refuse, help=argparse.SUPPRESS, default=argparse.SUPPRESS
            )
        self.add_argument(
            "--plugin",
            metavar="FILE",
            type=registry.load_file,  # at once, so that what it brings can be named
            default=argparse.SUPPRESS,
            help="a Python file whose networks, losses, ... can be named (docs/extend.md)",
        )
        self.add_argument("--version", action="version", version=f"lungan {lungan.__version__}")

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(ConfigError.exit_code, f"ConfigError: {text}; see {self.prog} --help\n")


def run_as_program(main: Callable[[], int]) -> NoReturn:
    """Run a command's ``main`` and end the process with its exit code."""
    try:
        sys.exit(main())
    finally:
        # Nothing is left to interrupt but Python's own clearing up, which would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """``--config-dir DIR``, as often as wanted, of the commands that compose configs."""
    parser.add_argument(
        *("-cd", "--config-dir"),
        metavar="DIR",
        action="append",
        default=[],
        help="a folder of YAML of your own: optimizer/NAME.yaml, experiment/..., sweeps/...",
    )


def run_command(command: Callable[[], int]) -> int:
    """Run a command, which reads its arguments itself, with the log on stderr; gives the exit code.

    A LunganError becomes one line and its code, an interrupt 130. Any other error is a fault of
    lungan's own and keeps its traceback. Output that cannot be written changes nothing.
    """
    with _unbreakable_output(), _log_on_stderr(), _interrupts() as interrupts:
        try:
            return command()
        except LunganError as error:
            log.debug("where it arose:\n%s", traceback.format_exc())
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.exit_code
        except (OSError, MemoryError) as error:
            if interrupts:
                return _interrupted()
            # What a disk, a path or a machine cannot do is no fault of lungan's.
            log.debug("where it arose:\n%s", traceback.format_exc())
            what = " ".join(str(error).split()) or "there is not enough memory"
            print(f"{type(error).__name__}: {what[:500]}", file=sys.stderr)
            return ConfigError.exit_code
        except KeyboardInterrupt as error:
            return _interrupted(str(error))
        except Exception:
            if interrupts:  # Some packages turn one into an error of their own.
                return _interrupted()
            raise


def _interrupted(text: str = "") -> int:
    print(text or "interrupted; the same command goes on", file=sys.stderr)
    return INTERRUPTED


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that is empty until an interrupt comes, which raises KeyboardInterrupt as ever.

    Where one meets a callback or a finalizer, imports have many, Python prints it with a traceback
    and goes on: it is raised again.
    """
    noticed: list[int] = []

    def notice(number: int, _frame: FrameType | None) -> None:
        noticed.append(number)
        raise KeyboardInterrupt

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            # Once this call is over; here the interrupt would be dropped as well.
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            unraisable(dropped)

    unraisable, sys.unraisablehook = sys.unraisablehook, raise_again
    is_main = threading.current_thread() is threading.main_thread()
    is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, notice)
    try:
        yield noticed
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = unraisable


class _Output:
    """A text stream that need not be read: once it cannot be written, the rest is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or self._null()  # None: closed by the parent

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError as error:
            return self.write(text.encode(error.encoding, "backslashreplace").decode("ascii"))
        except (OSError, ValueError):  # the latter: a stream that was closed
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        """Send what is still buffered, and what other code writes, to the null device."""
        null = self._null()
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null.fileno(), self._stream.fileno())
        self._stream = null

    @staticmethod
    def _null() -> TextIO:
        # Open to the process's end: no other file must take its number, which may be stdout's.
        return open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)


@contextlib.contextmanager
def _unbreakable_output() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(_Output(sys.stdout)),
        contextlib.redirect_stderr(_Output(sys.stderr)),
    ):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class _Handler(logging.Handler):
    """Writes one line a record on stderr, not torn by a progress bar; tracebacks go to files."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    handler = _Handler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)


def say_more() -> None:
    """Let the log have its finer messages too, and where an error arose."""
    log.setLevel(logging.DEBUG)


COMPLETION = {
    "bash": """\
_lungan_train() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }" cut=""
    if [[ $word == *=* ]]; then cut="${word%=*}="; fi  # where bash begins a word of its own
    COMPREPLY=($(python -m lungan.train --complete "$line"))
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    compopt -o nospace 2> /dev/null
}
complete -F _lungan_train lungan
# Now: eval "$(python -m lungan.train --shell-completion bash)"
# For good: put that line into ~/.bashrc""",
    "zsh": """\
_lungan_train() {
    local -a found
    found=("${(@f)$(python -m lungan.train --complete "${BUFFER[1,CURSOR]}")}")
    compadd -U -S '' -- $found
}
compdef _lungan_train lungan
# Now: eval "$(python -m lungan.train --shell-completion zsh)"
# For good: put that line into ~/.zshrc""",
    "fish": """\
complete -c lungan -f -a '(python -m lungan.train --complete (commandline -cp))'
# For good, into ~/.config/fish/completions/lungan.fish:
# python -m lungan.train --shell-completion fish""",
}
"""The lines that a shell has to read to complete commands."""


def complete(parser: argparse.ArgumentParser, line: str) -> int:
    """Print what the last word of a command line can become, a line each; gives the exit code."""
    words = line.split(" ")
    folders = [words[i + 1] for i, word in enumerate(words[:-2]) if word in ("-cd", "--config-dir")]
    try:
        with presets.searching(folders):
            found = _candidates(parser, words)
    except LunganError:
        return 1  # a shell has no place for words of ours
    print("\n".join(text for text in found if text.startswith(words[-1])))
    return 0


def _candidates(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """What can stand in the last word's place, whatever it is so far."""
    word = words[-1]
    if word.startswith("-"):
        actions = [each for each in parser._actions if each.help != argparse.SUPPRESS]
        return sorted(text for action in actions for text in action.option_strings)
    key, sign, value = word.partition("=")
    if sign:
        # What comes after a comma is a value of its own.
        before = word.removesuffix(value.rpartition(",")[2])
        return [f"{before}{each}" for each in _values(key.lstrip("+"), words)]
    below = [
        f"{group}.{name}="
        for group in GROUPS
        for name in rules.types_of(_schema(group, words))
        if name != "name"
    ]
    return sorted([*(f"{name}=" for name in (*rules.types_of(RunConfig), EXPERIMENT)), *below])


def _values(key: str, words: list[str]) -> list[str]:
    if key in (*GROUPS, EXPERIMENT, presets.SWEEPS, "hydra/launcher"):
        return presets.choices(key)
    group, _, name = key.rpartition(".")
    schema = _schema(group, words) if group in GROUPS else RunConfig
    if rules.types_of(schema).get(name) is bool:
        return ["false", "true"]
    fields = {field.name: field for field in dataclasses.fields(schema)}
    choices = fields[name].metadata.get("choices", ()) if name in fields else ()
    return [shown(value) for value in choices]


def _schema(group: str, words: list[str]) -> Any:
    """The dataclass of what the line chooses, else of the default. No plug-in is loaded for it: of
    one's choice, it is what all of the group have."""
    chosen = dict(presets.defaults())
    chosen |= dict(word.split("=", 1) for word in words[:-1] if "=" in word)
    return registry.configs(group).get(str(chosen[group]), GROUPS[group])
