"""Array jobs on a SLURM cluster, and the same jobs tried on this machine, by submitit."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.helpers import DelayedSubmission

from lungan.config.rules import at_least
from lungan.errors import ConfigError
from lungan.runs.jobs import Launcher, Place, Tasks, run_job

COMMAND_SECONDS = 60.0
TERMINATION_SECONDS = 60.0
POLL_SECONDS = 0.2
SUBMITTED = ".submitit/%j"
"""Where in a launch's folder submitit keeps what it submits; %j is a job's number."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class SubmititConfig:
    """What each job asks for, in submitit's words. ``timeout_min``: its time limit; it is told to
    stop ``signal_delay_s`` before, and is queued again up to ``max_num_timeout`` times.
    ``array_parallelism``: jobs at a time."""

    timeout_min: int = at_least(1)
    signal_delay_s: int = at_least(0)
    max_num_timeout: int = at_least(0)
    cpus_per_task: int = at_least(1)
    mem_gb: int | float | None
    gpus_per_node: int | None
    array_parallelism: int = at_least(1)


@dataclass(kw_only=True, slots=True)
class SlurmConfig(SubmititConfig):
    """The others are sbatch's options. ``additional_parameters``: any that are not among these.
    ``setup``: shell commands before the job."""

    partition: str | None
    account: str | None
    qos: str | None
    setup: list[str]
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    additional_parameters: dict | None = None  # type: ignore[type-arg]


class SubmititLocal(Launcher):
    """A cluster's path on this machine: each job is a process with a time limit, which is told to
    stop before the limit and begun again."""

    name = "submitit_local"
    elsewhere = False
    settings = SubmititConfig

    def __init__(self, config: SubmititConfig) -> None:
        self._config = config

    def place(self, jobs: Sequence[Tasks], /) -> Place:
        processes = min(self._config.array_parallelism, len(jobs))
        return Place(processes, self._config.cpus_per_task)

    def launch(self, folder: Path, num_jobs: int, _place: Place) -> None:
        config = self._config
        executor = submitit.LocalExecutor(
            folder / SUBMITTED, max_num_timeout=config.max_num_timeout
        )
        executor.update_parameters(
            timeout_min=config.timeout_min,
            signal_delay_s=config.signal_delay_s,
            gpus_per_node=config.gpus_per_node or 0,
        )
        jobs: list[submitit.Job[None]] = []
        for number in range(num_jobs):
            while sum(not job.done() for job in jobs) >= config.array_parallelism:
                time.sleep(POLL_SECONDS)
            # A terminal's Ctrl-C reaches all its processes: the sweep's own decides for the others.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                jobs.append(executor.submit(Job(), folder, number))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for job in jobs:
            job.result()


class SlurmLauncher(Launcher):
    """An array job on a SLURM cluster."""

    name = "slurm"
    elsewhere = True
    settings = SlurmConfig

    def __init__(self, config: SlurmConfig) -> None:
        for command in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(command) is None:
                raise ConfigError(
                    f"hydra/launcher={self.name} needs a SLURM cluster and finds no {command} "
                    "here; run it where jobs are submitted from, or try the jobs here by "
                    "hydra/launcher=submitit_local"
                )
        self._config = config
        self._job_name = ""

    def launch(self, folder: Path, num_jobs: int, _place: Place) -> None:
        # Of all jobs of a launch, in the queue: the sweep's and the launch's own.
        self._job_name = f"lungan-{folder.parents[1].name}-{folder.name}"
        values = dataclasses.asdict(self._config)
        executor = submitit.AutoExecutor(
            folder / SUBMITTED,
            cluster="slurm",
            slurm_max_num_timeout=values.pop("max_num_timeout"),
        )
        general = ("timeout_min", "cpus_per_task", "mem_gb", "gpus_per_node")
        executor.update_parameters(
            name=self._job_name,
            **{key: values.pop(key) for key in general},
            **{f"slurm_{key}": value for key, value in values.items()},
        )
        for job in executor.map_array(Job(), [folder] * num_jobs, range(num_jobs)):
            job.result()

    def queued(self) -> bool | None:
        try:
            found = _call("squeue", "--noheader", "--format=%i", f"--name={self._job_name}")
        except (OSError, subprocess.SubprocessError):
            return None
        return bool(found.strip())

    def drop_waiting(self) -> None:
        try:
            _call("scancel", "--state=PENDING", f"--name={self._job_name}")
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("jobs that wait stay queued, and end when begun: %s", error)


class Job:
    """Does a job, and where the cluster wants the machine back, has the job queued again.

    submitit answers the signal that comes before the time limit or a preemption by queueing the
    job again and leaving at once. Here that waits until the run has its checkpoint.
    """

    def __call__(self, folder: Path, number: int) -> None:
        give_way = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
        queue_again = signal.getsignal(give_way)
        received = run_job(folder, number, signals=(signal.SIGTERM, give_way))
        if give_way in received and callable(queue_again):
            queue_again(give_way, None)
        elif signal.SIGTERM in received:
            # Preempted or cancelled: the other signal follows, or the end does.
            time.sleep(TERMINATION_SECONDS)

    def checkpoint(self, folder: Path, number: int) -> DelayedSubmission:
        """What submitit queues again."""
        return DelayedSubmission(self, folder, number)


def _call(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
    )
    return done.stdout
