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
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
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
REFERENCE = re.compile(r"\$\{([\w.]+)\}")

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


@dataclass(frozen=True, slots=True)
class _Given:
    """One override. ``value``: where it is a sweep, Hydra's description of the sweep."""

    text: str
    key: str
    value: Any
    sweep: Override | None = None

    @property
    def is_group(self) -> bool:
        return self.key in (*GROUPS, EXPERIMENT)


@contextlib.contextmanager
def composer(config_dirs: Sequence[str | Path] = ()) -> Iterator[None]:
    """Hydra made ready for ``compose`` and ``expand`` inside. config_dirs: more folders of YAML.

    Raises: ConfigError for a folder that is none of YAML.
    """
    with presets.searching(config_dirs):
        store = ConfigStore.instance()
        of_plugins = [
            (group, name)
            for group in GROUPS
            for name in set(presets.choices(group)) - set(presets.files(group))
        ]
        for group, name in of_plugins:
            store.store(group=group, name=name, node={"name": name})
        _compose_groups.cache_clear()  # files may have changed since the last time
        # A caller may be a Hydra application itself, which goes on as it was.
        before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
        try:
            with hydra.initialize_config_dir(str(presets.conf_folder()), version_base="1.3"):
                yield
        finally:
            GlobalHydra.instance().hydra = before
            for group, name in of_plugins:
                store.repo[group].pop(f"{name}.yaml", None)
            _compose_groups.cache_clear()


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
    # experiment=null is the default, which Hydra takes from the file and not as an override.
    groups = [each for each in given if each.is_group and each.value is not None]
    chosen = tuple(f"{each.key}={each.value}" for each in groups)
    config = copy.deepcopy(_compose_groups(chosen))
    if start is not None:
        config = _changed(start, config, {each.key for each in given if each.is_group})
    for each in given:
        if not each.is_group:
            _set(config, each)
    parsed: RunConfig = parse(RunConfig, _resolved(config))
    parsed.check()
    return parsed


def show(config: RunConfig, package: str | None = None) -> str:
    """A config, or what it holds under a dotted key, as YAML.

    Raises: ConfigError for a package that it does not hold.
    """
    values: Any = dataclasses.asdict(config)
    for part in (package or "").split(".") if package else ():
        if not isinstance(values, dict) or part not in values:
            raise ConfigError(f"--package must be a key of the config, got {package}")
        values = values[part]
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
        if given.sweep is not None:
            if not given.sweep.is_discrete_sweep():
                raise _no_steps(given)
            try:
                each = given.sweep.sweep_string_iterator()
                values = [f"{given.key}={value}" for value in each]
            except COMPLAINTS as error:
                raise ConfigError(f"{text} cannot be swept over: {_one_line(error)}") from error
        if not values:
            raise ConfigError(f"{text} is an empty sweep; give at least one value")
        alternatives[given.key] = values
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
    name, question, jobs = None, "", []
    if files:
        file = files[-1].partition("=")[2]
        sweep = presets.read_sweep(file)
        name, question = Path(file).stem, sweep["question"]
        given = {text.partition("=")[0].lstrip("+~") for text in own}
        for more in sweep["runs"]:
            values = {**sweep["overrides"], **more}
            before = [
                f"{key}={'' if value == '' else shown(value)}"
                for key, value in values.items()
                if key not in given
            ]
            jobs += expand([*before, *own])
    else:
        jobs = expand(own)
    runs = [
        (compose(job, start), dict(text.lstrip("+").split("=", 1) for text in job)) for job in jobs
    ]
    return Sweep(name, question, runs)


def split_sweeps(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The keys that are given several values or a range, as Hydra describes them, and the other
    overrides. Raises: ConfigError where an override cannot be parsed."""
    given = [_read(text) for text in overrides]
    sweeps = {each.key: each.sweep for each in given if each.sweep is not None}
    return sweeps, [each.text for each in given if each.sweep is None]


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
        if given.sweep is not None:
            raise ConfigError(f"{given.key} has one value for all runs of a sweep, got {text}")
        settings.append((given.key, given.value))
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


def _read(text: str) -> _Given:
    """What Hydra's grammar rejects is taken as typed, but for lists.

    Raises: ConfigError for what is no override at all.
    """
    key, sign, raw = text.partition("=")
    key = key.lstrip("+")
    try:
        loader = GlobalHydra.instance().config_loader()
        (parsed,) = OverridesParser.create(config_loader=loader).parse_overrides([text])
    except COMPLAINTS:
        if not sign or not key:
            wrong = shown(text) if text else "an empty word"
            raise ConfigError(f"{wrong} is not an override; write key=value") from None
        if list in _takes(key):
            items = raw.strip().removeprefix("[").removesuffix("]").split(",")
            quoted = ",".join(_quote(item.strip().strip("'\"")) for item in items)
            typed = shlex.quote(f"{key}=[{quoted}]")
            raise ConfigError(f"{text} cannot be read; type {typed}") from None
        return _Given(text, key, ESCAPED.sub(r"\1", raw))
    name = parsed.key_or_group
    if parsed.package is not None:
        raise ConfigError(f"{text}: a group has one place here; write {name}=<choice>")
    if parsed.type is OverrideType.DEL:
        raise ConfigError(f"{name} cannot be removed: every run has it; choose another value")
    if parsed.is_sweep_override():
        return _Given(text, name, parsed.value(), parsed)
    value = parsed.value()
    is_other = value is not None and not isinstance(value, str)
    kinds = _takes(name)
    if is_other and str in kinds and not {list, type(value)} & kinds:
        value = raw  # 0001, 1e5 and [new] are names like others
    return _Given(text, name, value)


def _takes(key: str) -> set[type[Any]]:
    """The types that a dotted key takes (``list``, ``str``, ...), by the choices that have it."""
    group, _, name = key.rpartition(".")
    schemas: list[Any] = [RunConfig] if not group else [ScoreConfig] if group == "score" else []
    if group in GROUPS and not schemas:
        schemas = [registry.find(group, each).config for each in registry.known(group)]
    hints = [types_of(each)[name] for each in schemas if each and name in types_of(each)]
    return {kind for hint in hints for kind in (get_origin(hint) or hint, *get_args(hint))}


def _quote(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def _check_override(given: _Given, sweeping: str) -> None:
    if given.sweep is not None:
        if given.sweep.is_interval_sweep():
            raise _no_steps(given)
        whole = "quote a value with a comma"
        if str in _takes(given.key):
            raw = given.text.partition("=")[2]
            whole = f"for one value type {shlex.quote(f'{given.key}={_quote(raw)}')}"
        raise ConfigError(f"{given.text} is a sweep: {sweeping}, or {whole}")
    if given.key == presets.SWEEPS:
        raise ConfigError(f"{given.text} is a sweep: {sweeping}")
    group, _, name = given.key.rpartition(".")
    if name == "name" and group in GROUPS:
        raise ConfigError(
            f"{given.key} is set by {group}=<choice>, one of "
            f"{', '.join(presets.choices(group))}; got {given.text}"
        )
    if given.is_group:
        options, own = list(presets.files(EXPERIMENT)), OWN_FILE
        if given.key != EXPERIMENT:
            options, own = presets.choices(given.key), OWN_CHOICE
        if given.value not in options and not (given.key == EXPERIMENT and given.value is None):
            raise ConfigError(
                f"{given.key} must be one of {', '.join(options)}, got {shown(given.value)}; {own}"
            )


def _no_steps(given: _Given) -> ConfigError:
    return ConfigError(
        f"{given.text} is a range without steps, which python -m lungan.search chooses from; "
        f"give values to sweep over, such as {given.key}=0.0001,0.001, with --multirun"
    )


@functools.cache
def _compose_groups(overrides: tuple[str, ...]) -> DictConfig:
    """What Hydra puts together of the chosen files. It takes 0.2 s and is done once a choice: most
    runs of a sweep differ in values only."""
    added = ",".join(_quote(f"file://{folder}") for folder in presets.added_folders)
    searching = [f"hydra.searchpath=[{added}]"] if added else []
    try:
        config = hydra.compose(
            config_name="config", overrides=[*overrides, *searching], return_hydra_config=True
        )
    except COMPLAINTS as error:
        text = _one_line(error)
        if absent := ABSENT.search(text):  # an experiment's own defaults name it
            group, name, options = absent.groups()
            names = ", ".join(options.split())
            text = f"{group} must be one of {names}, got {name}; {OWN_CHOICE}"
        raise ConfigError(text) from error
    own = config.hydra
    with open_dict(config):
        del config["hydra"]
    if any(text.startswith(EXPERIMENT) for text in overrides):
        _check_hydra(own)
    for group, base in GROUPS.items():
        part = config[group]
        with open_dict(part):
            part.setdefault("name", own.runtime.choices[group])
            for field in dataclasses.fields(schema(base, group, part.name)):
                follows = field.metadata.get("follows")
                if field.name in part:
                    continue
                if follows:
                    part[field.name] = f"${{{follows}}}"
                elif field.default is not dataclasses.MISSING:
                    part[field.name] = field.default
    return config


def _check_hydra(own: DictConfig) -> None:
    """Refuse what an experiment's file sets of Hydra's own: nothing would read it."""
    plain = hydra.compose(config_name="config", overrides=[], return_hydra_config=True).hydra
    for section in ("sweeper", "launcher", "run", "sweep", "verbose", "mode", "callbacks"):
        set_here, default = (
            cast(Any, OmegaConf.to_container(each, resolve=False))[section] for each in (own, plain)
        )
        if set_here != default:
            changed = set_here if isinstance(set_here, dict) else {}
            keys = [key for key in changed if changed[key] != (default or {}).get(key)]
            raise refusal(".".join(["hydra", section, *keys[:1]]))


def _changed(start: RunConfig, composed: DictConfig, groups: set[str]) -> DictConfig:
    """A saved config with the groups that are chosen anew; what followed a key follows it still."""
    if EXPERIMENT in groups:
        raise ConfigError("experiment=... is a start of its own: leave it out, or the saved config")
    # Saved values may be anybody's: a text that looks like a reference refers to nothing.
    saved = json.dumps(dataclasses.asdict(start)).replace("${", r"\\${")
    config: DictConfig = OmegaConf.create(json.loads(saved))
    for group in GROUPS:
        if group in groups:
            config[group] = composed[group]
            continue
        for field in dataclasses.fields(getattr(start, group)):
            key = field.metadata.get("follows")
            if key and config[group][field.name] == config[key]:
                config[group][field.name] = f"${{{key}}}"
    return config


def _set(config: DictConfig, given: _Given) -> None:
    *above, _ = given.key.split(".")
    for key in itertools.accumulate(above, "{}.{}".format):
        if not isinstance(OmegaConf.select(config, key, default={}), DictConfig | dict):
            raise ConfigError(f"{given.key} is not a key: {key} has none below it")
    try:
        OmegaConf.update(config, given.key, given.value, merge=False, force_add=True)
    except COMPLAINTS as error:
        raise ConfigError(
            f"{shown(given.key)} cannot be {shown(given.value)}: {_one_line(error)}"
        ) from error


def _resolved(config: DictConfig) -> Any:
    try:
        return OmegaConf.to_container(config, resolve=True)
    except COMPLAINTS as error:
        key = getattr(error, "full_key", None) or "a key"
        unresolved: Any = OmegaConf.to_container(config, resolve=False)
        raw = _below(unresolved, key)
        # What only follows another key is not to blame: the error lies in what that key refers to.
        passed = {key}
        while (found := REFERENCE.fullmatch(str(raw))) and found[1] not in passed:
            below = _below(unresolved, found[1])
            if "${" not in str(below):
                break
            key, raw = found[1], below
            passed.add(key)
        text = f"{shown(key)} refers to {shown(raw) if raw else 'a key'}"
        raise ConfigError(f"{text}, which is not there") from error


def _below(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _one_line(error: Exception) -> str:
    """What Hydra says, without its list of folders."""
    return " ".join(str(error).partition("Config search path:")[0].split())
