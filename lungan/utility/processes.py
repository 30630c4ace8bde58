"""The trials of a study, each done once by whoever claims it first: this process, others that it
starts, or any that share the store."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from lungan import registry
from lungan.device import cores
from lungan.runs.folder import read_summary
from lungan.runs.store import BusyError, Finished, Store
from lungan.utility.trial import Settings, Trial, TrialRunner

log = logging.getLogger(__name__)


def run_trials(
    trials: Sequence[Trial], settings: Settings, root: Path, num_processes: int = 1
) -> int:
    """Do what is left to do, by so many processes at a time; gives how many trials are left to
    processes of other commands. Stopped anywhere, the same call goes on.

    Raises: RunFolderError where the store cannot be used.
    """
    with _helpers(trials, settings, root, num_processes - 1) as helpers:
        elsewhere = _do(trials, settings, root)
        ended_early = sum(helper.wait() != 0 for helper in helpers)
    if ended_early:
        log.warning("%d of %d processes ended early; this one goes on", ended_early, len(helpers))
        elsewhere = _do(elsewhere, settings, root)
    return sum(read_summary(root / trial.identity(settings).name) is None for trial in elsewhere)


def _do(
    trials: Sequence[Trial], settings: Settings, root: Path, *, shown: bool | None = None
) -> list[Trial]:
    """Do the trials; gives those under way elsewhere. shown: whether a bar is; None where stderr
    is a terminal."""
    store, runner = Store(root), TrialRunner(settings, root)
    elsewhere: list[Trial] = []
    with tqdm(total=len(trials), unit="trial", disable=None if shown is None else not shown) as bar:
        for trial in trials:
            try:
                found = store.claim(trial.identity(settings))
            except BusyError:
                log.info("%s is under way elsewhere", trial.describe())
                elsewhere.append(trial)
            else:
                if not isinstance(found, Finished):
                    try:
                        began = time.perf_counter()
                        summary = runner.do(trial, found.folder)
                    finally:
                        found.claim.release()
                    auc = summary["scores"]["values"].get("auc")
                    words = "diverged" if auc is None else f"AUC {auc:.4f}"
                    log.info("%s: %s, %.0f s", trial.describe(), words, time.perf_counter() - began)
            bar.update()
    return elsewhere


@contextlib.contextmanager
def _helpers(
    trials: Sequence[Trial], settings: Settings, root: Path, number: int
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that do the same trials; they end with this one, however that ends."""
    if not number:
        yield []
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, cores() // (number + 1))))
    plugins = [dataclasses.asdict(plugin) for plugin in registry.loaded_files()]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as processes:
        path = Path(folder) / "trials"
        # Twice, so that plug-ins are loaded before what they bring is read.
        work = pickle.dumps((trials, settings, root, torch.get_num_threads()))
        path.write_bytes(pickle.dumps((plugins, work)))
        command = [sys.executable, "-P", "-m", __name__, str(path)]
        places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        yield [
            processes.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": places}
                )
            )
            for _ in range(number)
        ]
    torch.set_num_threads(threads)


def _help(path: Path) -> None:
    # A terminal's Ctrl-C reaches all its processes: the command's own decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    try:
        plugins, work = pickle.loads(path.read_bytes())
    except FileNotFoundError:
        return  # the command has ended
    registry.load_again(plugins)
    trials, settings, root, num_threads = pickle.loads(work)
    torch.set_num_threads(num_threads)
    _do(trials, settings, root, shown=False)


def _end_with_the_command() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _help(Path(sys.argv[1]))
