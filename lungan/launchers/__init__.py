"""Launchers by name: Hydra's, handed one job for each of a sweep's chains, and the stack."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from lungan.config import compose, presets
from lungan.errors import ConfigError
from lungan.launchers import slurm
from lungan.runs.claim import LEASE_SECONDS
from lungan.runs.jobs import Place, run_job
from lungan.runs.stacking import Stacking

GROUP = "hydra/launcher"
PREFIX = "hydra.launcher."
JOB_CONFIG = "launcher_job"
STACKED = "stacked"

PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher.config", "JobLibLauncherConf"),
    "ray": ("hydra_plugins.hydra_ray_launcher._config", "RayLauncherConf"),
    "slurm": ("hydra_plugins.hydra_submitit_launcher.config", "SlurmQueueConf"),
}
"""The module of each launcher's plugin, and the dataclass that its preset composes against."""


@dataclass
class _StackedSettings:
    """What ``hydra/launcher=stacked``, which is no plugin of Hydra's, composes against."""

    max_runs: int


@dataclass
class _Job:
    """The whole config of a launcher's job: which one it is."""

    number: int = 0


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides that choose or set a launcher, and those of the runs.

    Raises: ConfigError for other settings of Hydra's own.
    """
    own, rest = [], []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        if key == GROUP or key.startswith(PREFIX):
            own.append(text)
        elif key.startswith(("hydra.", "hydra/")):
            raise ConfigError(
                f"{key} is not a setting of lungan: of Hydra's own, {GROUP}=<choice> and "
                f"{PREFIX}<key>=<value> are"
            )
        else:
            rest.append(text)
    return own, rest


def build(overrides: Sequence[str]) -> _Launcher | Stacking | None:
    """The launcher that the overrides choose, within ``compose.composer``; None for this process.

    Raises: ConfigError for a launcher that is unknown or not installed, or a wrong setting.
    """
    if not overrides:
        return None
    choices = list(presets.files(GROUP))
    chosen = [text.partition("=")[2] for text in overrides if text.partition("=")[0] == GROUP]
    if not chosen:
        raise ConfigError(f"{overrides[0]} needs {GROUP}={'|'.join(choices)} beside it")
    name = chosen[-1]
    if name not in choices:
        raise ConfigError(f"{GROUP} must be one of {', '.join(choices)}, got {name}")
    _register(name)
    return _stacking(name, overrides) if name == STACKED else _LAUNCHERS[name](name, overrides)


def _stacking(name: str, overrides: Sequence[str]) -> Stacking:
    max_runs = int(_Preset(name, overrides).settings.max_runs)
    if max_runs < 2:
        raise ConfigError(f"{PREFIX}max_runs must be at least 2, got {max_runs}")
    return Stacking(max_runs)


class _Preset:
    """A launcher's settings, from its YAML file and the overrides."""

    def __init__(self, name: str, overrides: Sequence[str]) -> None:
        self.name = name
        self._overrides = list(overrides)
        self._loader = GlobalHydra.instance().config_loader()
        self.settings: Any = self._compose([]).hydra.launcher

    def _compose(self, overrides: list[str]) -> DictConfig:
        # Of Hydra's own files and logs only the launcher's folder is left, and it is in the store.
        quiet = ["hydra.output_subdir=null", "hydra.sweep.subdir=."]
        quiet += ["hydra/hydra_logging=none", "hydra/job_logging=none"]
        try:
            return self._loader.load_configuration(
                config_name=JOB_CONFIG,
                overrides=[*self._overrides, *quiet, *overrides],
                run_mode=RunMode.RUN,
            )
        except compose.COMPLAINTS as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ConfigError:
        schema = _schema(self.name)
        known = [field.name for field in dataclasses.fields(schema) if field.name != "_target_"]
        for text in self._overrides:
            key = text.partition("=")[0].lstrip("+~").removeprefix(PREFIX)
            if key != GROUP and key.partition(".")[0] not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {PREFIX}{close[0]}? The" if close else "the"
                return ConfigError(
                    f"{PREFIX}{key} is not a key; {hint} keys are {', '.join(known)}"
                )
        reason = str(error.__cause__ or error).splitlines()[0]
        given = " ".join(self._overrides)
        return ConfigError(f"{given} does not fit the launcher: {reason}")


class _Launcher(_Preset):
    """One of Hydra's launchers, as sweeps use it."""

    elsewhere = True

    def place(self, _num_jobs: int) -> Place:
        # Longer than a claim outlives an owner on another machine, which a requeued job had.
        return Place(processes=0, threads=0, wait_seconds=LEASE_SECONDS + 30)

    def launch(self, folder: Path, sweep: str, num_jobs: int) -> None:
        """Run ``jobs.run_job(folder, number)`` for every number, until all have ended."""
        config = self._compose(
            [
                f"hydra.sweep.dir={_quoted(str(folder))}",
                f"hydra.job.name={_quoted(f'lungan-{sweep}')}",
                *self._own_settings(num_jobs),
            ]
        )
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=self._loader, callbacks=Callbacks()),
            task_function=functools.partial(self._task(), str(folder)),
            config=config,
        )
        launcher.launch([[f"number={number}"] for number in range(num_jobs)], initial_job_idx=0)

    def queued(self) -> bool | None:
        return None

    def drop_waiting(self) -> None:
        pass

    def _own_settings(self, _num_jobs: int) -> list[str]:
        return []

    @staticmethod
    def _task() -> Callable[[str, Any], None]:
        return _do


class _Joblib(_Launcher):
    """Processes on this machine, which share its CPU cores and GPUs out among them."""

    elsewhere = False

    def place(self, num_jobs: int) -> Place:
        processes = self._processes(num_jobs)
        return Place(processes, max(1, _cores() // processes), wait_seconds=0)

    def launch(self, folder: Path, sweep: str, num_jobs: int) -> None:
        from joblib.externals.loky import get_reusable_executor

        try:
            super().launch(folder, sweep, num_jobs)
        finally:
            # joblib keeps its processes, and their memory, for calls that will not come.
            get_reusable_executor(reuse=True).shutdown(wait=True)

    def _own_settings(self, num_jobs: int) -> list[str]:
        return [f"{PREFIX}n_jobs={self._processes(num_jobs)}"]

    def _processes(self, num_jobs: int) -> int:
        wanted = int(self.settings.n_jobs)
        if wanted == 0:
            raise ConfigError(f"{PREFIX}n_jobs must be at least 1, or -1 for all, got 0")
        if wanted < 0:
            all_of_them = torch.cuda.device_count() or _cores()
            wanted = max(1, all_of_them + 1 + wanted)
        return min(wanted, num_jobs)


class _Ray(_Launcher):
    """Tasks on a Ray cluster, or on this machine where there is none."""


class _Slurm(_Launcher):
    """An array job on a SLURM cluster."""

    def __init__(self, name: str, overrides: Sequence[str]) -> None:
        slurm.check_commands(f"{GROUP}={name}")
        super().__init__(name, overrides)
        self._job_name = ""

    def launch(self, folder: Path, sweep: str, num_jobs: int) -> None:
        self._job_name = f"lungan-{sweep}-{folder.name}"
        super().launch(folder, sweep, num_jobs)

    def queued(self) -> bool | None:
        return slurm.queued(self._job_name)

    def drop_waiting(self) -> None:
        slurm.drop_waiting(self._job_name)

    def _own_settings(self, _num_jobs: int) -> list[str]:
        return [f"{PREFIX}name={_quoted(self._job_name)}"]

    @staticmethod
    def _task() -> Callable[[str, Any], None]:
        return _do_on_slurm


_LAUNCHERS = {"joblib": _Joblib, "ray": _Ray, "slurm": _Slurm}


def _cores() -> int:
    """CPU cores that this process may use, by affinity and container limits."""
    import joblib

    return int(joblib.cpu_count())


def _do(folder: str, job: Any) -> None:
    run_job(Path(folder), job.number)


def _do_on_slurm(folder: str, job: Any) -> None:
    slurm.run_job_and_queue_again(Path(folder), job.number)


def _schema(name: str) -> Any:
    """Raises: ConfigError where the launcher's package is not installed."""
    if name == STACKED:
        return _StackedSettings
    module, schema = PLUGINS[name]
    package = {"slurm": "submitit"}.get(name, name)
    try:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
        return getattr(importlib.import_module(module), schema)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{GROUP}={name} is not installed, there is no module {error.name}: "
            f"pip install 'lungan[{name}]'"
        ) from error


def _register(name: str) -> None:
    store = ConfigStore.instance()
    store.store(group=GROUP, name=f"schema_{name}", node=_schema(name))
    # The plugin's own choice of the same name: Hydra would warn that the preset shadows it.
    store.repo["hydra"]["launcher"].pop(f"{name}.yaml", None)
    store.store(name=JOB_CONFIG, node=_Job)


def _quoted(text: str) -> str:
    """As a value in an override."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"
