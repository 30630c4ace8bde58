"""The choices that a config can name, lungan's own and other people's, through one door.

``@register("optimizer", "lion", config=LionConfig)`` above a builder makes ``optimizer=lion`` a
choice. ``declare("optimizer", "adam", "lungan.training.optimizers:build_adam", AdamConfig)`` does
the same before the builder's module, and torch with it, is imported.

A plug-in is a Python file (``--plugin FILE``), or a module of an installed distribution that an
entry point of the group ``lungan.plugins`` names as ``group.choice``, such as
``"optimizer.lion" = "lion_package.lungan"``, which is imported when that choice is asked for.
Configs hold names only. What a name stood for is kept beside them as a ``Plugin``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lungan.errors import ConfigError, shown
from lungan.files import at_home

ENTRY_POINTS = "lungan.plugins"

PARTS = (
    *("data", "generator", "discriminator", "loss", "optimizer", "schedule", "augment"),
    *("encoder", "score", "tracker"),
)
"""What can be registered. docs/extend.md shows what the builder of each takes and gives."""

Registered = TypeVar("Registered", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """Which code a choice stands for: ``sha256`` (64 hex digits) is of its source files.

    name, version: of the distribution, or of the file (its ``__version__``, else "").
    file: of a plug-in given by ``--plugin``, the absolute path; "" for a distribution's.
    """

    name: str
    version: str
    sha256: str
    file: str = ""

    def __str__(self) -> str:
        return " ".join(
            part for part in (self.name, self.version, f"(sha256 {self.sha256[:8]})") if part
        )

    def way_to_get(self) -> str:
        return f"--plugin {self.file}" if self.file else f"pip install {self.name}=={self.version}"


@dataclass(slots=True, kw_only=True)
class Choice:
    """One name of a group. ``config``: the dataclass of its settings, where it has any.
    ``builder``: what makes it, or ``"module:function"``. ``plugin``: None for lungan's own."""

    config: type[Any] | None
    builder: Callable[..., Any] | str
    plugin: Plugin | None = None


_choices: dict[tuple[str, str], Choice] = {}
_files: dict[Path, tuple[Plugin, list[Path]]] = {}
"""The plug-ins given as files, and the sources of each: its file first."""


def register(
    group: str, name: str, *, config: type[Any] | None = None
) -> Callable[[Registered], Registered]:
    """A decorator: the builder below it makes ``name`` of ``group``.

    config: the dataclass of its settings, for the groups that have settings.

    Raises: ConfigError for an unknown group, or a name that the group has already.
    """

    def add(builder: Registered) -> Registered:
        declare(group, name, builder, config)
        return builder

    return add


def declare(
    group: str, name: str, builder: Callable[..., Any] | str, config: type[Any] | None = None
) -> None:
    """Register ``name`` of ``group`` by its builder, or the builder's place ``"module:function"``.

    Raises: ConfigError as ``register``.
    """
    if group not in PARTS:
        raise ConfigError(f"group must be one of {', '.join(PARTS)}, got {group}")
    place = builder if isinstance(builder, str) else builder.__module__
    plugin = _origin(place.partition(":")[0])
    if known := _choices.get((group, name)):
        owner = known.plugin
        # A notebook's cell may run again.
        if plugin is None or owner is None or owner.name != plugin.name:
            raise ConfigError(
                f"{group}={name} comes from {owner or 'lungan itself'}; a plug-in needs another "
                "name"
            )
    _choices[group, name] = Choice(config=config, builder=builder, plugin=plugin)


def find(group: str, name: str) -> Choice:
    """The choice of this name; its entry point is loaded where it has one.

    Raises: ConfigError with the names that there are.
    """
    if isinstance(name, str):  # a saved config may hold anything
        if (group, name) not in _choices and f"{group}.{name}" in _entry_points():
            _load_entry_point(f"{group}.{name}")
        if choice := _choices.get((group, name)):
            return choice
    raise ConfigError(f"{group}.name must be one of {', '.join(names(group))}, got {shown(name)}")


def builder(group: str, name: str) -> Callable[..., Any]:
    """What makes the choice of this name; its module is imported now if it was not before.

    Raises: ConfigError as ``find``.
    """
    choice = find(group, name)
    if isinstance(choice.builder, str):
        module, _, function = choice.builder.partition(":")
        choice.builder = getattr(importlib.import_module(module), function)
    assert not isinstance(choice.builder, str)
    return choice.builder


def names(group: str) -> list[str]:
    """The names of a group, sorted, without importing anything."""
    there = {name.partition(".")[2] for name in _entry_points() if name.startswith(f"{group}.")}
    return sorted(there.union(known(group)))


def known(group: str) -> list[str]:
    """The names of a group that are registered by now, sorted."""
    return sorted(name for other, name in _choices if other == group)


def configs(group: str) -> dict[str, Any]:
    """The dataclasses of settings of those choices of a group that are registered by now and have
    any, by name, sorted."""
    found = {name: find(group, name).config for name in known(group)}
    return {name: config for name, config in found.items() if config is not None}


def load_file(path: Path | str) -> Plugin:
    """Run a plug-in's file, whose registrations become choices; once for the same content.

    Modules from the file's own folder that it imports belong to its source.

    Raises: ConfigError where it cannot be read or run, or registers nothing.
    """
    file = at_home(path, "a plug-in").resolve()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise ConfigError(f"a plug-in must be a Python file, {path} {what}")
    if file in _files:
        loaded, sources = _files[file]
        if loaded.sha256 == _hash(sources):
            return loaded
        _forget(file)
    modules = set(sys.modules)
    spec = importlib.util.spec_from_file_location(f"lungan_plugin_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.parent))
    with _undone_on_error() as before:
        try:
            spec.loader.exec_module(module)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # a script's own sys.exit() would end the command
            raise ConfigError(f"plug-in {path} {_failure(file, error)}") from error
        finally:
            sys.path.remove(str(file.parent))
        if len(_choices) == len(before):
            raise ConfigError(f"plug-in {path} registers nothing; see docs/extend.md")
    found = (getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - modules)
    beside = {Path(each) for each in found if each and "site-packages" not in each} - {file}
    sources = [file, *sorted(each for each in beside if each.is_relative_to(file.parent))]
    version = str(getattr(module, "__version__", ""))
    plugin = Plugin(name=file.stem, version=version, sha256=_hash(sources), file=str(file))
    for key, choice in _choices.items():
        if key not in before:
            choice.plugin = plugin
    _files[file] = plugin, sources
    return plugin


def loaded_files() -> list[Plugin]:
    """The plug-ins that lie in files, for jobs that have to load them too."""
    plugins = (choice.plugin for choice in _choices.values())
    return list(dict.fromkeys(plugin for plugin in plugins if plugin and plugin.file))


def load_again(described: Iterable[dict[str, str]]) -> None:
    """Load the plug-ins that a job was given, as ``asdict`` of ``loaded_files`` describes them.

    Raises: ConfigError where one is not there, or is not what it was.
    """
    for each in described:
        wanted = Plugin(**each)
        if not Path(wanted.file).is_file():
            raise ConfigError(
                f"plug-in {wanted} is not on this machine; put it at {wanted.file} there and "
                "repeat the command"
            )
        found = load_file(wanted.file)
        if found.sha256 != wanted.sha256:
            raise ConfigError(
                f"plug-in {wanted} has changed on this machine, to {found}; give all machines the "
                f"same {wanted.file} and repeat the command"
            )


def used_by(chosen: Iterable[tuple[str, str]]) -> dict[str, Plugin]:
    """The plug-ins behind groups and names, by ``group=name``."""
    return {
        f"{group}={name}": known.plugin
        for group, name in chosen
        if (known := _choices.get((group, name))) is not None and known.plugin is not None
    }


def check(name: str, **settings: Any) -> None:
    """Test what every choice of this name must hold; ``optimizer=lion``, or ``lion`` of any group.

    settings: of the choice, such as ``path="films.csv"``, where it has no values of its own.

    Shapes and ranges, gradients, the same bits from the same seed, and a state that can be saved
    and loaded, each where the group has it. For a plug-in's own tests: load its file first.

    Raises: ConfigError for an unknown name, AssertionError saying what does not hold.
    """
    importlib.import_module("lungan.contracts").check(name, settings)


@contextlib.contextmanager
def _undone_on_error() -> Iterator[dict[tuple[str, str], Choice]]:
    """Gives the choices that there were, and keeps to them where an error comes."""
    before = dict(_choices)
    try:
        yield before
    except BaseException:
        _choices.clear()
        _choices.update(before)
        raise


def _origin(module: str) -> Plugin | None:
    """Whose the module is: None for lungan's own; ``load_file`` knows better what a file is."""
    if module.partition(".")[0] == "lungan":
        return None
    for entry in _entry_points().values():
        if entry.module == module and entry.dist is not None:
            sources = _package_sources(module)
            return Plugin(name=entry.dist.name, version=entry.dist.version, sha256=_hash(sources))
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if file is None:
        raise ConfigError(
            f"{module} has no file, so nothing could say later what its choices were; put them "
            "into a .py file and import it, or give it as --plugin FILE"
        )
    version = str(getattr(found, "__version__", ""))
    path = Path(file).resolve()
    return Plugin(name=path.stem, version=version, sha256=_hash([path]), file=str(path))


def _forget(file: Path) -> None:
    plugin, sources = _files.pop(file)
    for key in [key for key, choice in _choices.items() if choice.plugin == plugin]:
        del _choices[key]
    imported = [str(source) for source in sources[1:]]
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in imported:
            del sys.modules[name]


def _failure(file: Path, error: BaseException) -> str:
    """What went wrong in the plug-in's file, and in which line."""
    traceback, line = error.__traceback__, getattr(error, "lineno", None)
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(file):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    reason = " ".join(str(error).split())
    return f"cannot be loaded: line {line}: {type(error).__name__}: {reason}"


def _hash(files: Iterable[Path]) -> str:
    """Of their names and contents, whatever ends their lines."""
    digest = hashlib.sha256()
    for file in files:
        text = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


@functools.cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in found if entry.name.partition(".")[0] in PARTS}


def _load_entry_point(name: str) -> None:
    """Raises: ConfigError where its module cannot be imported."""
    module = _entry_points()[name].module
    with _undone_on_error():
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ConfigError(
                f"plug-in {module}, which brings {name.replace('.', '=', 1)}, cannot be imported: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error


def _package_sources(module: str) -> list[Path]:
    """Every source file of the module's package, or its own file."""
    top = sys.modules[module.partition(".")[0]]
    if not hasattr(top, "__path__"):
        return [Path(str(top.__file__))]
    return sorted(path for folder in top.__path__ for path in Path(folder).rglob("*.py"))
