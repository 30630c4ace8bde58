"""Overrides to RunConfigs: Hydra puts YAML files together, ``rules`` judges what comes out.

The only module that imports Hydra and OmegaConf.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lungan import registry
from lungan.config import presets
from lungan.config.presets import EXPERIMENT
from lungan.config.rules import parse, schema, types_of
from lungan.config.run import GROUPS, RunConfig, ScoreConfig
from lungan.errors import ConfigError, shown

COMPLAINTS = (HydraException, OmegaConfBaseException, yaml.YAMLError, AttributeError, ValueError)
"""What Hydra and OmegaConf raise for wrong overrides and files."""

ESCAPED = re.compile(r"\\([ ()\[\]{}:=,])")
"""Signs that Hydra's grammar, and a shell, let people escape."""

ABSENT = re.compile(r"Could not find '(\w+)/([^']*)' *Available options in '\w+': (.*)")

OWN_CHOICE = "--plugin FILE adds one of your own"
OWN_FILE = "--config-dir DIR adds YAML of your own"

INSTEAD = {
    "hydra.run": "store=<folder> says where runs lie",
    "hydra.sweep.": "store=<folder> says where runs lie, --sweep <name> names a sweep",
    "hydra.sweeper": "comma lists with --multirun sweep, +sweeps=FILE.yaml keeps them in a file, "
    "python -m lungan.search searches",
    "hydra/sweeper": "python -m lungan.search searches",
    "hydra.job.": "--sweep <name> names a sweep; runs are named by what they are",
    "hydra.verbose": "--verbose says more",
    "hydra.mode": "--multirun sweeps",
    "hydra.output_subdir": "every run keeps its config in config.yaml",
    "hydra.searchpath": OWN_FILE,
    "hydra.callbacks": "a tracker of your own (docs/extend.md)",
} | {
    f"hydra{sign}{kind}_logging": "every run has its log.txt; --verbose says more"
    for sign in "./"
    for kind in ("hydra", "job")
}
"""What serves instead of Hydra's own settings, by how their keys begin."""


@contextlib.contextmanager
def composer(config_dirs: Sequence[str | Path] = ()) -> Iterator[None]:
    """Hydra made ready for ``compose`` and ``expand`` inside. config_dirs: more folders of YAML.

    Raises: ConfigError for a folder that is none of YAML.
    """
    with presets.searching(config_dirs):
        # A caller may be a Hydra application itself, which goes on as it was.
        store = ConfigStore.instance()
        before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
        without_file = [
            (group, name)
            for group in GROUPS
            for name in set(presets.choices(group)) - set(presets.files(group))
        ]
        for group, name in without_file:
            store.store(group=group, name=name, node={"name": name})
        _compose_groups.cache_clear()  # files may have changed since the last time
        try:
            with hydra.initialize_config_dir(str(presets.conf_folder()), version_base="1.3"):
                yield
        finally:
            GlobalHydra.instance().hydra = before  # Hydra makes a new instance meanwhile
            for group, name in without_file:
                store.repo[group].pop(f"{name}.yaml", None)


def compose(
    overrides: Sequence[str], start: RunConfig | None = None, *, sweeping: str = "add --multirun"
) -> RunConfig:
    """The checked config of one run.

    start: a saved config that the overrides change; None for the defaults of conf/.
    sweeping: what an error advises where a key has several values.

    Raises: ConfigError for anything wrong with the overrides.
    """
    given = [_read(text) for text in overrides]
    for each in given:
        _check_override(each, sweeping)
    chosen = {each.key_or_group: each.value() for each in given if _is_group(each)}
    # experiment=null is the default, which Hydra takes from the file and not as an override.
    groups = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    values = copy.deepcopy(_compose_groups(tuple(groups)))
    if start is not None:
        values = _changed(start, values, set(chosen))
    for each in given:
        if not _is_group(each):
            _set(values, each)
    parsed: RunConfig = parse(RunConfig, _resolved(values))
    parsed.check()
    return parsed


def show(config: RunConfig, package: str | None = None) -> str:
    """A config, or what it holds under a dotted key, as YAML.

    Raises: ConfigError for a package that it does not hold.
    """
    values: Any = dataclasses.asdict(config)
    if package:
        try:
            values = _below(values, package)
        except LookupError as error:
            raise ConfigError(f"--package must be a key of the config, got {package}") from error
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n")


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every run of a sweep: the last key varies fastest.

    Raises: ConfigError where an override cannot be parsed or swept over.
    """
    alternatives = {}  # of a key that is given twice, the last
    for text in overrides:
        given = _read(text)
        values = [text]
        if given.is_sweep_override():
            if not given.is_discrete_sweep():
                raise _no_steps(given, "")
            try:
                each = given.sweep_string_iterator()
                values = [f"{given.key_or_group}={value}" for value in each]
            except COMPLAINTS as error:
                raise ConfigError(f"{text} cannot be swept over: {_one_line(error)}") from error
        if not values:
            raise ConfigError(f"{text} is an empty sweep; give at least one value")
        alternatives[given.key_or_group] = values
    return [list(job) for job in itertools.product(*alternatives.values())]


@dataclass(frozen=True, slots=True)
class Sweep:
    """``name``: of its file, where it has one. ``runs``: a config each, with the swept keys and
    their values as typed."""

    name: str | None
    question: str
    runs: list[tuple[RunConfig, dict[str, str]]]


def compose_sweep(overrides: Sequence[str], start: RunConfig | None = None) -> Sweep:
    """The runs of comma lists, and of ``+sweeps=NAME`` or ``+sweeps=FILE.yaml``, whose own
    overrides are those that are not given.

    Raises: ConfigError as ``compose``, for an unknown sweep, and for a file that is none.
    """
    files = [text for text in overrides if text.partition("=")[0] in ("+sweeps", "sweeps")]
    own = [text for text in overrides if text not in files]
    given = {text.partition("=")[0].lstrip("+~") for text in own}
    file = files[-1].partition("=")[2] if files else ""
    sweep = presets.read_sweep(file) if files else presets.NO_SWEEP
    runs = []
    for more in sweep["runs"]:
        before = [
            f"{key}={'' if value == '' else shown(value)}"
            for key, value in {**sweep["overrides"], **more}.items()
            if key not in given
        ]
        for job in expand([*before, *own]):
            typed = dict(text.lstrip("+").split("=", 1) for text in job)
            runs.append((compose(job, start), typed))
    return Sweep(Path(file).stem or None, sweep["question"], runs)


def split_sweeps(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The keys that are given several values or a range, as Hydra describes them, and the other
    overrides. Raises: ConfigError where an override cannot be parsed."""
    given = {text: _read(text) for text in overrides}
    sweeps = {each.key_or_group: each for each in given.values() if each.is_sweep_override()}
    return sweeps, [text for text, each in given.items() if not each.is_sweep_override()]


def split_launcher(
    overrides: Sequence[str], processes: int | None = None
) -> tuple[list[str], list[tuple[str, Any]]]:
    """Apart from the others, key and value of each ``hydra/launcher=...`` and
    ``hydra.launcher.<key>=...``, by Hydra's grammar, or those that ``--processes`` stands for.

    Raises: ConfigError where one cannot be parsed, has several values or is another of Hydra's own,
    and where they do not go with ``processes``.
    """
    others, settings = [], []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        if not key.startswith(("hydra.", "hydra/")):
            others.append(text)
            continue
        if key != "hydra/launcher" and not key.startswith("hydra.launcher."):
            raise refusal(key)
        given = _read(text)
        if given.is_sweep_override():
            raise ConfigError(f"{key} has one value for all runs of a sweep, got {text}")
        settings.append((key, given.value()))
    if processes is None:
        return others, settings
    if processes < 1:
        raise ConfigError(f"--processes must be at least 1, got {processes}")
    for key, value in settings:
        raise ConfigError(f"--processes is for this machine: leave out {key}={value}")
    return others, [("hydra/launcher", "local"), ("hydra.launcher.n_jobs", processes)]


def refusal(key: str) -> ConfigError:
    """Why a setting of Hydra's own is none here, and what serves instead."""
    otherwise = "of Hydra's own, hydra/launcher=<choice> and hydra.launcher.<key>=<value> are"
    serves = next((text for start, text in INSTEAD.items() if key.startswith(start)), otherwise)
    return ConfigError(f"{key} is not a setting of lungan: {serves}; see docs/hydra.md")


def _read(text: str) -> Override:
    """What Hydra's grammar rejects is taken as typed, but for lists.

    Raises: ConfigError for what is no override at all.
    """
    key, sign, raw = text.partition("=")
    key = key.lstrip("+")
    try:
        loader = GlobalHydra.instance().config_loader()
        (given,) = OverridesParser.create(config_loader=loader).parse_overrides([text])
    except COMPLAINTS:
        if not sign or not key:
            wrong = shown(text) if text else "an empty word"
            raise ConfigError(f"{wrong} is not an override; write key=value") from None
        if list in _takes(key):
            items = raw.strip().removeprefix("[").removesuffix("]").split(",")
            quoted = ",".join(_quote(item.strip().strip("'\"")) for item in items)
            typed = shlex.quote(f"{key}=[{quoted}]")
            raise ConfigError(f"{text} cannot be read; type {typed}") from None
        raw = ESCAPED.sub(r"\1", raw)
        return Override(OverrideType.CHANGE, key, ValueType.ELEMENT, raw, input_line=text)
    name = given.key_or_group
    if given.package is not None:
        raise ConfigError(f"{text}: a group has one place here; write {name}=<choice>")
    if given.type is OverrideType.DEL:
        raise ConfigError(f"{name} cannot be removed: every run has it; choose another value")
    value, kinds = given.value(), _takes(name)
    is_other = not given.is_sweep_override() and value is not None and not isinstance(value, str)
    if is_other and str in kinds and not {list, type(value)} & kinds:
        return dataclasses.replace(given, _value=raw)  # 0001, 1e5 and [new] are names like others
    return given


def _is_group(given: Override) -> bool:
    return given.key_or_group in (*GROUPS, EXPERIMENT)


def _takes(key: str) -> set[type[Any]]:
    """The types that a dotted key takes (``list``, ``str``, ...), by the choices that have it."""
    group, _, name = key.rpartition(".")
    schemas = registry.configs(group) | ({} if group else {"": RunConfig})
    schemas |= {"": ScoreConfig} if group == "score" else {}
    hints = [types_of(each)[name] for each in schemas.values() if name in types_of(each)]
    return {kind for hint in hints for kind in (get_origin(hint) or hint, *get_args(hint))}


def _quote(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def _check_override(given: Override, sweeping: str) -> None:
    text, key, value = given.input_line, given.key_or_group, given.value()
    if given.is_interval_sweep():
        raise _no_steps(given, f", and {sweeping}")
    if given.is_sweep_override():
        whole = "quote a value with a comma"
        if str in _takes(key):
            typed = f"{key}={_quote(str(text).partition('=')[2])}"
            whole = f"for one value type {shlex.quote(typed)}"
        raise ConfigError(f"{text} is a sweep: {sweeping}, or {whole}")
    if key == presets.SWEEPS:
        raise ConfigError(f"{text} is a sweep: {sweeping}")
    group, _, name = key.rpartition(".")
    if name == "name" and group in GROUPS:
        choices = ", ".join(presets.choices(group))
        raise ConfigError(f"{key} is set by {group}=<choice>, one of {choices}; got {text}")
    if key == EXPERIMENT:
        options, own = [*presets.files(EXPERIMENT), None], OWN_FILE
    elif key in GROUPS:
        options, own = [*presets.choices(key)], OWN_CHOICE
    else:
        return
    if value not in options:
        listed = ", ".join(filter(None, options))
        raise ConfigError(f"{key} must be one of {listed}, got {shown(value)}; {own}")


def _no_steps(given: Override, ending: str) -> ConfigError:
    return ConfigError(
        f"{given.input_line} is a range without steps, which python -m lungan.search chooses from; "
        f"give values to sweep over, such as {given.key_or_group}=0.0001,0.001{ending}"
    )


@functools.cache
def _compose_groups(overrides: tuple[str, ...]) -> dict[str, Any]:
    """What Hydra puts together of the chosen files, references unresolved. It takes 0.2 s and is
    done once a choice: most runs of a sweep differ in values only."""
    added = ",".join(_quote(f"file://{folder}") for folder in presets.added_folders)
    searching = [f"hydra.searchpath=[{added}]"] if added else []
    try:
        values = _hydras([*overrides, *searching])
    except COMPLAINTS as error:
        text = _one_line(error)
        if absent := ABSENT.search(text):  # an experiment's own defaults name it
            group, name, options = absent.groups()
            names = ", ".join(options.split())
            text = f"{group} must be one of {names}, got {name}; {OWN_CHOICE}"
        raise ConfigError(text) from error
    own = values.pop("hydra")
    if any(text.startswith(EXPERIMENT) for text in overrides):
        _check_hydra(own)
    for group, base in GROUPS.items():
        part = values[group]
        part.setdefault("name", own["runtime"]["choices"][group])
        for field in dataclasses.fields(schema(base, group, part["name"])):
            if "follows" in field.metadata:
                part.setdefault(field.name, f"${{{field.metadata['follows']}}}")
            elif field.default is not dataclasses.MISSING:
                part.setdefault(field.name, field.default)
    return values


def _hydras(overrides: list[str]) -> dict[str, Any]:
    config = hydra.compose(config_name="config", overrides=overrides, return_hydra_config=True)
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))


def _check_hydra(own: dict[str, Any]) -> None:
    """Refuse what an experiment's file sets of Hydra's own: nothing would read it."""
    plain = _hydras([])["hydra"]
    for section in ("sweeper", "launcher", "run", "sweep", "verbose", "mode", "callbacks"):
        here, default = own[section], plain[section]
        if here != default:
            changed = here if isinstance(here, dict) else {}
            keys = [key for key in changed if changed[key] != (default or {}).get(key)]
            raise refusal(".".join(["hydra", section, *keys[:1]]))


def _changed(start: RunConfig, composed: dict[str, Any], groups: set[str]) -> dict[str, Any]:
    """A saved config with the groups that are chosen anew; what followed a key follows it still."""
    if EXPERIMENT in groups:
        raise ConfigError("experiment=... is a start of its own: leave it out, or the saved config")
    # Saved values may be anybody's: a text that looks like a reference refers to nothing.
    saved = json.dumps(dataclasses.asdict(start)).replace("${", r"\\${")
    values: dict[str, Any] = json.loads(saved) | {group: composed[group] for group in groups}
    for group in set(GROUPS) - groups:
        for field in dataclasses.fields(getattr(start, group)):
            key = field.metadata.get("follows")
            if key and values[group][field.name] == values[key]:
                values[group][field.name] = f"${{{key}}}"
    return values


def _set(values: dict[str, Any], given: Override) -> None:
    *above, last = given.key_or_group.split(".")
    for number, key in enumerate(above, start=1):
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            leaf = ".".join(above[:number])
            raise ConfigError(f"{given.key_or_group} is not a key: {leaf} has none below it")
    try:
        OmegaConf.create({last: given.value()})
    except COMPLAINTS as error:
        text = f"{shown(given.key_or_group)} cannot be {shown(given.value())}: {_one_line(error)}"
        raise ConfigError(text) from error
    values[last] = given.value()


def _resolved(values: dict[str, Any]) -> Any:
    """The values with those of other keys in the place of references to them."""
    # Keys of the whole run first: the error lies in them, not in what follows them.
    in_order = dict(sorted(values.items(), key=lambda item: item[0] in GROUPS))
    try:
        return OmegaConf.to_container(OmegaConf.create(in_order), resolve=True)
    except COMPLAINTS as error:
        key = getattr(error, "full_key", None) or "a key"
        raw = "a key"
        with contextlib.suppress(LookupError):
            raw = shown(_below(values, key))
        raise ConfigError(f"{shown(key)} refers to {raw}, which is not there") from error


def _below(values: Any, key: str) -> Any:
    """What nested mappings hold under a dotted key. Raises: LookupError."""
    for part in key.split("."):
        if not isinstance(values, dict):
            raise KeyError(part)
        values = values[part]
    return values


def _one_line(error: Exception) -> str:
    """What Hydra says, without its list of folders."""
    return " ".join(str(error).partition("Config search path:")[0].split())
