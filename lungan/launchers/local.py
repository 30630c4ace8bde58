"""Processes on this machine, each at one job at a time: what lungan does by itself.

With as many processes of one thread as there are cores, a step's threads never wait for each other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lungan import memory, registry
from lungan.config.rules import rule
from lungan.device import cores
from lungan.runs.jobs import STOP, Launcher, Place, Tasks, do_jobs, run_job
from lungan.runs.run import StopSignal

PROCESS_MEMORY = 2**30
"""Bytes that -1 leaves for each process; one that trains the report's networks holds 0.6 GiB."""


@dataclass(kw_only=True, slots=True)
class LocalConfig:
    """``n_jobs``: processes at a time; 1 does all one after another in the command's own. -1 is
    one for each CPU core that lungan may use, as far as free memory goes, or for each GPU
    where they are used; -2 is one fewer, and so on."""

    n_jobs: int = rule(
        "at least 1, or -1 for all cores, -2 for one fewer and so on", lambda value: value != 0
    )


class LocalLauncher(Launcher):
    name = "local"
    elsewhere = False
    settings = LocalConfig

    def __init__(self, config: LocalConfig) -> None:
        self._n_jobs = config.n_jobs

    def place(self, jobs: Sequence[Tasks], /) -> Place:
        # Of all jobs, done ones too: after a stop, the same command has the same threads again.
        processes = min(self._processes(jobs), len(jobs))
        return Place(processes, max(1, cores() // processes))

    def describe(self, jobs: Sequence[Tasks], /) -> str:
        place = self.place(jobs)
        if place.processes == 1:
            return ""
        each = "one CPU thread" if place.threads == 1 else f"{place.threads} CPU threads"
        return (
            f"by {place.processes} processes at a time, each of {each}; --processes N sets others"
        )

    def run(self, jobs: Sequence[Tasks], sweep: str, stop: StopSignal) -> None:
        if self.place(jobs).processes == 1:
            do_jobs(jobs, sweep, stop)
        else:
            super().run(jobs, sweep, stop)

    def launch(self, folder: Path, num_jobs: int, place: Place) -> None:
        count = min(place.processes, num_jobs)
        command = [sys.executable, "-P", "-m", __name__, str(folder), str(num_jobs)]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(place.threads),
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        # A terminal's Ctrl-C, and its end, reach all its processes: the sweep's own decides.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        with contextlib.ExitStack() as processes:
            workers = [
                processes.enter_context(
                    subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
                )
                for _ in range(count)
            ]
            codes = [worker.wait() for worker in workers]
        if any(codes):
            raise ChildProcessError(
                f"{count - codes.count(0)} of {count} processes ended early, with exit codes "
                f"{', '.join(str(code) for code in codes if code)} (-9: killed, often for want of "
                f"memory); what they did last is in {folder.name}/job-*.log"
            )

    def _processes(self, jobs: Sequence[Tasks]) -> int:
        if self._n_jobs > 0:
            return self._n_jobs
        every = [task for tasks in jobs for task in tasks]
        if all(task.uses_cpu for task in every):
            left = memory.available()
            all_of_them = cores() if left is None else min(cores(), left // PROCESS_MEMORY)
        elif all(task.device == "auto" for task in every):
            all_of_them = torch.cuda.device_count()
        else:  # on the GPU that is named
            all_of_them = 1
        program = getattr(sys.modules["__main__"], "__file__", None)
        if program and str(Path(program).resolve()) in {
            each.file for each in registry.loaded_files()
        }:
            all_of_them = 1  # a process that loads such a plug-in would run the program again
        return max(1, all_of_them + 1 + self._n_jobs)


def work(folder: Path, num_jobs: int) -> int:
    """Do jobs of a launch that no other process took, until none is left; gives the exit code."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    for number in range(num_jobs):
        try:
            (folder / f"job-{number}.taken").touch(exist_ok=False)
        except FileExistsError:
            continue
        if (folder / STOP).exists():
            break
        if run_job(folder, number):
            return 1
    return 0


def _end_with_the_sweep() -> None:
    """Stop this process with a checkpoint when the sweep's process ends, however that ends."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), int(sys.argv[2])))
