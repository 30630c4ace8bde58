"""Processes on this machine, which share its CPU cores and GPUs out among them, by joblib."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import joblib
import torch
from joblib.externals.loky import get_reusable_executor

from lungan.config.rules import rule
from lungan.launchers.jobs import JobLauncher, Place, run_job


@dataclass(kw_only=True, slots=True)
class JoblibConfig:
    """``n_jobs``: processes at a time; -1 is as many as there are GPUs, or else CPU cores, -2 one
    fewer, and so on. ``batch_size``: jobs that a process is handed at a time."""

    n_jobs: int = rule("at least 1, or -1 for all", lambda value: value != 0)
    batch_size: int | str = rule(
        "auto, or at least 1",
        lambda value: value == "auto" or (str(value).isdecimal() and int(value) >= 1),
    )


class JoblibLauncher(JobLauncher):
    name = "joblib"
    elsewhere = False

    def __init__(self, config: JoblibConfig) -> None:
        self._config = config

    def place(self, num_jobs: int, /) -> Place:
        processes = self._processes(num_jobs)
        return Place(processes, max(1, _cores() // processes), wait_seconds=0)

    def launch(self, folder: Path, num_jobs: int) -> None:
        size = self._config.batch_size
        pool = joblib.Parallel(
            n_jobs=self._processes(num_jobs),
            batch_size=size if size == "auto" else int(size),
        )
        try:
            pool(joblib.delayed(run_job)(folder, number) for number in range(num_jobs))
        finally:
            # joblib keeps its processes, and their memory, for calls that will not come.
            get_reusable_executor(reuse=True).shutdown(wait=True)

    def _processes(self, num_jobs: int) -> int:
        wanted = self._config.n_jobs
        if wanted < 0:
            all_of_them = torch.cuda.device_count() or _cores()
            wanted = max(1, all_of_them + 1 + wanted)
        return min(wanted, num_jobs)


def _cores() -> int:
    """CPU cores that this process may use, by affinity and container limits."""
    return int(joblib.cpu_count())
