"""The cache folder, and lungan's own files: they appear whole or not at all, one process at a time
makes what others only use, and what is read back is validated before anyone uses it.

Disks fill, machines stop in the middle of a line, and people edit files by hand. Whatever a file
holds, reading it gives values of the shape that was asked for, or one line that names the file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

from filelock import FileLock

from lungan.errors import ConfigError, RunFolderError, shown

MAX_BYTES = 64 * 2**20
MAX_LINE_BYTES = 2**20
MAX_VALUES = 2_000_000
"""In a JSON file: a manifest of the largest sweeps has fewer."""
MAX_YAML_VALUES = 20_000
"""YAML's aliases let a small file stand for an endless tree."""
MAX_DEPTH = 32
MAX_WHOLE = 2**64

Shape: TypeAlias = Any
"""What a value must be: a type; None; a tuple, one of these; a frozenset, one of these texts;
``[shape]``, a list of them; a dict, a mapping with these keys, where ``key?`` may be absent and
``...`` stands for every other key, which may hold anything where it is not given."""

NUMBER = (int, float)

_WAY_OUT = "remove it and repeat the command that made it"

_PATHS = re.compile(
    r"""(?<=')[~/][^'\n]+(?=')|(?<=")[~/][^"\n]+(?=")"""  # in quotes, where blanks belong to it
    r"""|(?:(?<=file://)|(?<![\w/.~)%\]]))~?/(?!/)[^\s'",;:()\[\]{}]+"""
)

_PATH_KEYS = ("path", "root", "store", "inception_weights")

T = TypeVar("T")

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$LUNGAN_CACHE``, else ``$XDG_CACHE_HOME/lungan``, else ``~/.cache/lungan``; not made."""
    if own := os.environ.get("LUNGAN_CACHE"):
        return at_home(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification has relative paths ignored.
    if shared and Path(shared).is_absolute():
        return Path(shared) / "lungan"
    return Path.home() / ".cache" / "lungan"


def at_home(path: str | Path, key: str = "the path") -> Path:
    """The path with its ``~`` or ``~user`` replaced. key: what errors call it.

    Raises: ConfigError for no such user, for what is no path, and for a path that the system does
    not let this user look at.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise ConfigError(f"{key} must be text or a pathlib.Path, got {shown(path)}")
    try:
        found = Path(path).expanduser()
        # Path.exists has an error for some paths, by Python's version, and False for others.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found.stat()
    except (OSError, ValueError) as error:  # the latter: a zero byte
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{key} {shown(str(path))} cannot be looked at: {why}; give another path, "
            "or make this one readable"
        ) from error
    except RuntimeError as error:
        raise ConfigError(
            f"{key} {path} names a home folder that does not exist; write it in full"
        ) from error
    return found


def without_paths(value: Any, key: str = "") -> Any:
    """The value with file names in place of paths, inside of texts too.

    Where things lie on a machine says who works there, and is no part of a result. key: of the
    value, dotted or not; what is known to be a path need not look like one.
    """
    match value:
        case dict():
            return {key: without_paths(item, key) for key, item in value.items()}
        case list() | tuple():
            return [without_paths(item, key) for item in value]
        case str() if value.startswith(("/", "~")) or (value and key.split(".")[-1] in _PATH_KEYS):
            return Path(value).name
        case str():
            return _PATHS.sub(lambda found: Path(found[0]).name, _with_tilde(value))
    return value


def _with_tilde(text: str) -> str:
    """The text with ``~`` for the user's home folder, whose name may hold blanks."""
    home = Path.home()
    if home == Path(home.anchor):  # as a container's user has it: every path begins so
        return text
    return re.sub(rf"{re.escape(str(home))}(?![\w-]|\.\w)", "~", text)


def is_folder_name(name: str) -> bool:
    """Whether a class of this name can have a folder of its own on every system."""
    return (
        0 < len(name) <= 100
        and name.isprintable()
        and not name.startswith(".")
        and name == name.strip()
        and not any(sign in name for sign in '/\\:*?"<>|')
    )


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that appears at ``path`` whole, and on disk, or not at all.

    Raises: RunFolderError, from the OSError, where the folder cannot be written or the disk is
    full.
    """
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        # torch.save puts an error of its own in front of the disk's.
        for disk in (error, error.__context__):
            if isinstance(disk, OSError):
                raise unwritable(path, disk) from disk
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``; the next then finds it made.

    The system drops the lock when its holder dies. Where the folder cannot be written, nothing is
    kept there either, and nobody waits.
    """
    held = FileLock(path.with_name(f".{path.name[:100]}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):  # the latter: no locks on this disk
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def cached(
    path: Path,
    read: Callable[[Path], T],
    make: Callable[[], T],
    write: Callable[[BinaryIO, T], object],
) -> T:
    """What ``read`` finds in the cache's file ``path``, else what ``make`` gives, which ``write``
    keeps there; of several processes, one makes it.

    A damaged file is made again, and a cache that cannot be written is said in the log.
    """
    with lock(path):
        try:
            if path.is_file():
                return read(path)
        except Exception as error:  # whatever a damaged file makes its reader say
            log.warning("%s is damaged and made again: %s", path, error)
        value = make()
        try:
            with write_whole(path) as file:
                write(file, value)
        except RunFolderError as error:
            why = error.__cause__
            log.warning("%s is not cached (set LUNGAN_CACHE to a writable folder): %s", path, why)
    return value


def write_bytes(path: Path, content: bytes) -> None:
    with write_whole(path) as stream:
        stream.write(content)


def write_json(path: Path, value: Any) -> None:
    """JSON with non-finite numbers as null, since JSON has none, and ``\\udce9`` spelled out for
    a byte of a file's name that is no character."""
    write_bytes(path, (json.dumps(_readable(value), indent=1, allow_nan=False) + "\n").encode())


def json_line(value: dict[str, Any]) -> str:
    return json.dumps(_readable(value), allow_nan=False) + "\n"


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Add one JSON object as a line and flush it to disk."""
    try:
        with path.open("a+b") as stream:
            # A line that a crash tore must not swallow this one.
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
            torn = stream.read(1) not in (b"", b"\n")
            stream.write((b"\n" if torn else b"") + json_line(value).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> RunFolderError:
    """What a full disk, a quota or a missing right to write is said by."""
    return RunFolderError(
        f"{path} cannot be written: {error.strerror or error}; free space there, or choose "
        "another folder (of runs: store=<folder>); what was written before stays good"
    )


def _readable(value: Any) -> Any:
    """The value with nothing in it that JSON, or ``read_json``, does not take."""
    if isinstance(value, dict):
        return {_readable(str(key)): _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # a file's name need not be UTF-8
        return value.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return value


class DamagedError(RunFolderError):
    """A file holds what lungan cannot have written there. ``reason``: without the folder."""

    def __init__(self, path: Path, reason: str, way_out: str) -> None:
        self.reason = f"{path.name} is damaged: {reason}"
        super().__init__(f"{path} is damaged: {reason}; {way_out}")


def read_json(path: Path, shape: Shape = dict, way_out: str = _WAY_OUT) -> Any:
    """What a JSON file holds, of this shape.

    Raises: DamagedError, or RunFolderError where it is absent or cannot be read.
    """
    return _parse(path, _from_json, shape, MAX_VALUES, way_out)


def read_yaml(path: Path, way_out: str = _WAY_OUT, shape: Shape = dict) -> dict[str, Any]:
    """The mapping, of this shape, that a YAML file holds. Raises: as ``read_json``."""
    values: dict[str, Any] = _parse(path, _from_yaml, shape, MAX_YAML_VALUES, way_out)
    return values


def read_lines(
    path: Path, shape: Shape = dict, begin: int = 0
) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Each whole line of a file of JSON lines from byte ``begin`` on, None where it is damaged, and
    where it ends. A torn last line, which a crash leaves, is passed over, and an absent file is
    one without lines.

    Raises: RunFolderError where the file cannot be read.
    """
    try:
        with open(path, "rb", opener=_open) as stream:
            stream.seek(begin)
            while line := stream.readline(MAX_LINE_BYTES):
                if len(line) < MAX_LINE_BYTES and not line.endswith(b"\n"):
                    return
                try:
                    row = _from_json(line)
                    is_sound = shape_problem(row, shape, MAX_YAML_VALUES) is None
                except (ValueError, RecursionError):
                    is_sound = False
                yield (row if is_sound else None), stream.tell()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def read_text(path: Path, way_out: str = _WAY_OUT) -> str:
    """Raises: as ``read_json``."""
    try:
        return _read_bytes(path, way_out).decode()
    except UnicodeDecodeError as error:
        raise DamagedError(path, "it is not UTF-8", way_out) from error


def _parse(
    path: Path, parse: Callable[[bytes], Any], shape: Shape, max_values: int, way_out: str
) -> Any:
    content = _read_bytes(path, way_out)
    try:
        value = parse(content)
        problem = shape_problem(value, shape, max_values)
    except (ValueError, OverflowError) as error:
        problem = " ".join(str(error).split())[:200]
    except (RecursionError, MemoryError):
        problem = "it is nested too deeply or too large"
    if problem is not None:
        raise DamagedError(path, problem, way_out)
    return value


def _read_bytes(path: Path, way_out: str) -> bytes:
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DamagedError(path, "it is no plain file", way_out)
            # A buffer of the file's size: one of the largest size costs more than the reading.
            content = file.read(min(status.st_size, MAX_BYTES) + 1)
    except IsADirectoryError as error:
        raise DamagedError(path, "it is a folder", way_out) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(content) > MAX_BYTES:
        raise DamagedError(path, f"it has more than {MAX_BYTES // 2**20} MiB", way_out)
    return content


def _open(path: str, flags: int) -> int:
    """Opening a pipe in a file's place would wait for someone to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _unreadable(path: Path, error: Exception) -> RunFolderError:
    reason = getattr(error, "strerror", None) or error
    return RunFolderError(
        f"{path} cannot be read: {reason}; see that it is there and that you may read it"
    )


def _from_json(content: bytes) -> Any:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    # JSON can escape halves of characters, which nothing can write again, and the end of C's texts.
    if b"\\ud" in content.lower() or b"\\u0000" in content:
        text = json.dumps(value, ensure_ascii=False)
        if "\\u0000" in text or text.encode(errors="replace") != text.encode(errors="ignore"):
            raise ValueError(
                "it holds half a character (\\ud800 to \\udfff) or \\u0000, which no text has"
            )
    return value


def _from_yaml(content: bytes) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(content, Loader=loader)  # a safe loader in both cases
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"it is not YAML: {error}") from error


def shape_problem(value: Any, shape: Shape, max_values: int = MAX_VALUES) -> str | None:
    """What makes the value no one of this shape, in words; None where nothing does."""
    level: list[Any] = [[value]]
    num_values = 0
    for _ in range(MAX_DEPTH + 1):
        num_values += sum(map(len, level))
        if num_values > max_values:
            return f"it has more than {max_values} values"
        inner = [item for node in level for item in (node.values() if type(node) is dict else node)]
        if any(type(item) is int and abs(item) > MAX_WHOLE for item in inner):
            return f"it holds a whole number beyond {MAX_WHOLE}"
        level = [item for item in inner if type(item) in (dict, list)]
        if not level:
            return _mismatch(value, shape, "")
    return f"it is nested more than {MAX_DEPTH} levels deep"


def _mismatch(value: Any, shape: Shape, at: str) -> str | None:
    """Where the value is not of the shape, in words. at: the dotted key of the value."""
    found: str | None = None
    match shape:
        case tuple():
            # The kind itself is looked for first: it is there, for most of a file's numbers.
            if type(value) not in shape and all(_mismatch(value, each, at) for each in shape):
                # The mapping or list among them, if it was meant to be that, says more.
                close = [each for each in shape if type(each) is type(value)]
                found = _mismatch(value, close[0], at) if close else _wrong(value, shape, at)
        case frozenset():
            if not (isinstance(value, str) and value in shape):
                found = _wrong(value, shape, at)
        case None | type():
            if type(value) is not (type(None) if shape is None else shape):
                found = _wrong(value, shape, at)
        case list():
            if type(value) is not list:
                return _wrong(value, shape, at)
            each = (_mismatch(item, shape[0], f"{at}[{n}]") for n, item in enumerate(value))
            found = next(filter(None, each), None)
        case dict():
            if type(value) is not dict:
                return _wrong(value, shape, at)
            keys = {str(key).removesuffix("?"): key for key in shape if key is not ...}
            for key, given in keys.items():
                if key not in value and not given.endswith("?"):
                    return f"it lacks {f'{at}.{key}'.lstrip('.')}"
            for key, item in value.items():
                wanted = shape[keys[key]] if key in keys else shape.get(...)
                if key in keys or ... in shape:
                    found = found or _mismatch(item, wanted, f"{at}.{key}".lstrip("."))
    return found


_WORDS = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    None: "null",
}


def _wrong(value: Any, shape: Shape, at: str) -> str:
    one = [shape] if not isinstance(shape, tuple | frozenset) else list(shape)
    kinds = [type(each) if type(each) in (dict, list) else each for each in one]
    names = {kind if isinstance(kind, str) else _WORDS[kind] for kind in kinds}
    wanted = " or ".join(sorted(names))
    got = " ".join(repr(value).split())[:40] if isinstance(value, str) else type(value).__name__
    return f"{at or 'it'} must be {wanted}, got {got}"
