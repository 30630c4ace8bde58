"""SLURM's commands, and its signals inside a job."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from lungan.errors import ConfigError
from lungan.runs.jobs import run_job

COMMAND_SECONDS = 60.0
TERMINATION_SECONDS = 60.0

log = logging.getLogger(__name__)


def check_commands(asked_by: str) -> None:
    """Raises: ConfigError where jobs cannot be submitted from this machine."""
    for command in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise ConfigError(
                f"{asked_by} needs a SLURM cluster and finds no {command} here; run it where "
                "jobs are submitted from"
            )


def queued(job_name: str) -> bool | None:
    """Whether a job of that name waits or runs; None where SLURM does not answer."""
    try:
        return bool(_call("squeue", "--noheader", "--format=%i", f"--name={job_name}").strip())
    except (OSError, subprocess.SubprocessError):
        return None


def drop_waiting(job_name: str) -> None:
    """Take back the jobs of that name that have not begun."""
    try:
        _call("scancel", "--state=PENDING", f"--name={job_name}")
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("jobs that wait stay queued, and end when begun: %s", error)


def run_job_and_queue_again(folder: Path, number: int) -> None:
    """Do a launcher's job, and where SLURM wants the machine back, have the job queued again.

    submitit answers the signal that comes before the time limit or a preemption by queueing the
    job again and leaving at once. Here that waits until the run has its checkpoint.
    """
    give_way = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
    queue_again = signal.getsignal(give_way)
    received = run_job(folder, number, signals=(signal.SIGTERM, give_way))
    if give_way in received and callable(queue_again):
        queue_again(give_way, None)
    elif signal.SIGTERM in received:
        # Preempted or cancelled: the other signal follows, or the end does.
        time.sleep(TERMINATION_SECONDS)


def _call(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
    )
    return done.stdout
