"""Tasks on a Ray cluster, or on this machine where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from lungan.config.rules import rule
from lungan.runs.jobs import Launcher, Place, run_job


@dataclass(kw_only=True, slots=True)
class RayConfig:
    """``ray.init`` and ``ray.remote``: what Ray's functions of these names are called with."""

    ray: dict = rule(  # type: ignore[type-arg]
        "the arguments of ray.init and ray.remote, by these names, such as "
        "hydra.launcher.ray.remote.num_cpus=2",
        lambda value: (
            set(value) == {"init", "remote"}
            and all(isinstance(part, dict) for part in value.values())
        ),
    )


class RayLauncher(Launcher):
    name = "ray"
    elsewhere = True
    settings = RayConfig

    def __init__(self, config: RayConfig) -> None:
        self._init: dict[str, Any] = config.ray["init"]
        self._remote: dict[str, Any] = config.ray["remote"]

    def launch(self, folder: Path, num_jobs: int, _place: Place) -> None:
        begun_here = not ray.is_initialized()
        if begun_here:
            ray.init(**self._init)
        try:
            task = ray.remote(**self._remote)(run_job) if self._remote else ray.remote(run_job)
            ray.get([task.remote(folder, number) for number in range(num_jobs)])
        finally:
            if begun_here:
                ray.shutdown()
