"""One run: find out whether it was done, do it where it was not, and stop it with a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from lungan.config.run import plugins
from lungan.data.inspect import summarize
from lungan.device import choose_threads
from lungan.errors import DivergedError, LunganError, RunFolderError
from lungan.files import write_bytes, write_json
from lungan.models.build import Classes
from lungan.models.saving import serialize_generator
from lungan.runs import pictures
from lungan.runs.folder import (
    CHECKPOINT,
    GENERATOR,
    SUMMARY,
    Run,
    losses_path,
    read_metrics,
    write_config,
)
from lungan.runs.naming import beside_folder, name_in_sweep
from lungan.runs.prepare import Prepared, git_commit, machine, versions
from lungan.runs.scoring import RunScorer, build_scorer
from lungan.runs.sinks import FolderSink, LogFile, ProgressSink, rewind_metrics
from lungan.runs.store import Claimed, Store, adopt, store_path
from lungan.tracking.live import Followers, chosen
from lungan.tracking.records import describe_run
from lungan.tracking.upload import replay_for_agent
from lungan.training.events import Event, Sink, Snapshot
from lungan.training.loop import train
from lungan.training.state import TrainingState, build_state
from lungan.training.step import build_step
from lungan.training.training_data import gather

STOP_LOOK_SECONDS = 1.0
"""How often at most the file is looked for that stops a run."""

log = logging.getLogger(__name__)


class StopSignal:
    """Ctrl-C, SIGTERM and SIGHUP, turned into a question that training asks between steps.

    ``requested()`` is True once a signal came, or once ``file`` exists, which is how the jobs
    of a sweep on other processes or machines are stopped. ``after``: what is still done then, for
    the log.

    Outside of ``deferred``, and at Ctrl-C after another signal, KeyboardInterrupt is raised too.
    """

    def __init__(
        self, file: Path | None = None, after: str = "this step with a checkpoint"
    ) -> None:
        self.received: set[int] = set()
        self._file = file
        self._after = after
        self._looked = -STOP_LOOK_SECONDS
        self._requested = False
        self._deferring = False
        self._interrupted = False

    def requested(self) -> bool:
        now = time.monotonic()
        if self._file is not None and now - self._looked >= STOP_LOOK_SECONDS:
            self._looked = now
            self._requested = self._requested or self._file.exists()
        return self._requested

    @contextlib.contextmanager
    def installed(
        self, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ) -> Iterator[StopSignal]:
        """Handle the signals inside; they reach only a process's main thread.

        SIGHUP stays ignored where the process was started so, as nohup does it. SIGINT does not: a
        shell has it ignored by every command in the background, and may still be asked to stop one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in signals}
        if before.get(signal.SIGHUP) is signal.SIG_IGN:
            del before[signal.SIGHUP]
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        except Exception as error:
            # The writer of a checkpoint turns an interrupt into an error of its own.
            if self._interrupted:
                raise KeyboardInterrupt from error
            raise
        finally:
            self._deferring = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = not self.received
        self.received.add(number)
        if not first and number != signal.SIGINT:
            return  # clusters send several of them at once
        self._requested = True
        if not first or not self._deferring:
            self._interrupted = True  # what is being imported may turn it into an error of its own
            raise KeyboardInterrupt
        log.info("%s: stopping after %s", signal.Signals(number).name, self._after)


def run(prepared: Prepared, *, sweep: str | None = None, stop: StopSignal | None = None) -> Run:
    """Do the run, or find that it was done.

    A result with status ``diverged`` is returned, not raised. What is not the user's doing is
    recorded as ``failed``, with its traceback in log.txt, and raised.

    Raises: BusyError where another process has the run, RunFolderError where the store cannot be
    used, KeyboardInterrupt where it was stopped: the same call goes on.
    """
    config, identity = prepared.config, prepared.identity
    found = Store(store_path(config)).claim(identity, retry_diverged=config.retry == "diverged")
    if isinstance(found, Run):
        result = _score_again(prepared, found)
        replay_for_agent(config, result)
        return result
    with contextlib.ExitStack() as closing:  # each, also where an interrupt ends another
        closing.callback(found.claim.release)
        return _ActiveRun(prepared, found, sweep, closing).run(stop or StopSignal())


def _score_again(prepared: Prepared, found: Run) -> Run:
    """A finished run as it is, with the scores that this config asks for and it has not."""
    folder, summary = found.folder, found.summary
    scorer = build_scorer(prepared, folder) if summary["status"] == "done" else None
    if scorer is not None:
        result = scorer.find(summary["epochs_done"])
        if result is None or result != summary["scores"]:
            torch.set_num_threads(choose_threads(prepared.config.threads, prepared.share))
            summary = scorer.score_finished(anew=False)
    return Run(folder, summary)


class _ActiveRun:
    """A run while its claim is held. ``closing``: ends what it has opened."""

    def __init__(
        self,
        prepared: Prepared,
        claimed: Claimed,
        sweep: str | None,
        closing: contextlib.ExitStack,
    ) -> None:
        self._prepared = prepared
        self._config = prepared.config
        self._claimed = claimed
        self._folder = claimed.folder
        self._sweep = sweep
        self._display_name = name_in_sweep(self._folder.parent, sweep, prepared.identity.run)
        self._called = beside_folder(self._display_name, self._folder.name)
        self._closing = closing
        self._continued_from: str | None = None
        self._threads_before = 0  # of the checkpoint that the run goes on from
        self._scorer: RunScorer | None = None
        self._seconds = {"data": prepared.data_seconds, "training": 0.0, "scoring": 0.0}
        log_file = LogFile(self._folder)
        logging.getLogger("lungan").addHandler(log_file)
        closing.callback(log_file.close)
        closing.callback(logging.getLogger("lungan").removeHandler, log_file)

    def run(self, stop: StopSignal) -> Run:
        """The run's result, also where it diverged; other failures are written down and raised."""
        try:
            state = self._train(stop)
            return self._finish("done", None, state, self._score(state))
        except DivergedError as error:
            log.warning("%s: diverged: %s", self._called, error)
            return self._finish("diverged", str(error))
        except LunganError:
            raise  # the user can mend it: unfinished, and the same command goes on
        except Exception as error:
            log.exception("%s failed", self._called)
            self._finish("failed", f"{type(error).__name__}: {error}")
            raise

    def _train(self, stop: StopSignal) -> TrainingState:
        """Train to the end, and leave the generator and the loss curves."""
        prepared, config, folder = self._prepared, self._config, self._folder
        training_set = prepared.training_set
        data = gather(config, prepared.image_set, training_set, prepared.device)
        self._scorer = build_scorer(prepared, folder)
        write_config(folder, config)
        with pictures.spared("grid of real images"):
            conditional = config.generator.conditional
            pictures.write_real_images(folder, training_set, config.seed, conditional)
        state = self._start(data.classes)
        log.info(
            "%s: %d images, %s on %s (CPU threads: %d), from epoch %d to %d%s",
            self._called,
            len(training_set),
            prepared.precision,
            prepared.device,
            torch.get_num_threads(),
            state.epoch,
            config.epochs,
            f", continued from {self._continued_from}" if self._continued_from else "",
        )
        if self._scorer is not None:
            self._scorer.announce()
        if trackers := chosen(config):
            settings = dataclasses.asdict(config)
            tracked = describe_run(folder, prepared.identity.run, settings, self._sweep)
            self._closing.callback(Followers(tracked, trackers).close)
        on_disk = FolderSink(folder, self._claimed.claim, self._continued_from)
        progress = ProgressSink(self._display_name, config.epochs)
        sinks: list[Sink] = [on_disk, self._score_snapshot, progress]

        def emit(event: Event) -> None:
            for sink in sinks:
                sink(event)

        with self._timed("training"), contextlib.closing(progress), stop.deferred():
            step = build_step(config, state, prepared.precision)
            train(config, state, step, data, emit=emit, stop=stop.requested)
        weights = serialize_generator(
            state.inference_generator,
            config.generator,
            image_size=training_set.size,
            channels=training_set.channels,
        )
        write_bytes(folder / GENERATOR, weights)
        with pictures.spared("loss curves"):
            pictures.write_loss_curves(losses_path(folder), read_metrics(folder))
        return state

    def _score(self, state: TrainingState) -> dict[str, Any] | None:
        scorer, epochs = self._scorer, self._config.epochs
        if scorer is None:
            return None
        log.info("scoring with %s", ", ".join(scorer.names) or "no encoder")
        with self._timed("scoring"):
            return scorer.find(epochs) or scorer.score(state.inference_generator, epochs)

    def _score_snapshot(self, event: Event) -> None:
        if isinstance(event, Snapshot) and self._scorer is not None:
            began = time.perf_counter()
            self._scorer.score(event.generator, event.epoch)
            seconds = time.perf_counter() - began
            self._seconds["scoring"] += seconds
            self._seconds["training"] -= seconds  # the phase that this happens in

    def _start(self, classes: Classes | None) -> TrainingState:
        """A fresh state, or the one of the checkpoint that the run goes on from, and the threads
        that the run computes with."""
        prepared, folder, images = self._prepared, self._folder, self._prepared.training_set
        state = build_state(self._config, images.size, images.channels, prepared.device, classes)
        self._load(state)
        shorter = self._claimed.shorter
        if shorter is not None and state.epoch < shorter.summary["epochs_done"]:
            adopt(shorter.folder, folder)
            self._load(state)
        rewind_metrics(folder, state.epoch)
        threads = self._config.threads
        if threads in (0, "auto") and self._threads_before:
            threads = self._threads_before  # so that the run has the bits of one never stopped
        torch.set_num_threads(choose_threads(threads, prepared.share))
        return state

    def _load(self, state: TrainingState) -> None:
        """Take up the folder's checkpoint, where there is one."""
        checkpoint = self._folder / CHECKPOINT
        if not checkpoint.exists():
            return
        try:
            saved = torch.load(checkpoint, map_location=self._prepared.device, weights_only=True)
            own = saved["run"] == self._folder.name
            self._continued_from = saved["continued_from"] if own else saved["run"]
            self._threads_before = saved.get("threads", 0)  # lungan 0.1's do not tell
            if self._threads_before not in range(4097):
                raise ValueError("threads")
            state.load_state_dict(saved["state"])
        except Exception as error:
            raise RunFolderError(
                f"{checkpoint} cannot be read ({type(error).__name__}); remove it to start "
                "the run from the beginning"
            ) from error

    def _finish(
        self,
        status: str,
        reason: str | None,
        state: TrainingState | None = None,
        scores: dict[str, Any] | None = None,
    ) -> Run:
        prepared, config, folder = self._prepared, self._config, self._folder
        used = {choice: dataclasses.asdict(each) for choice, each in plugins(config).items()}
        summary = {
            "status": status,
            "reason": reason,
            "run_id": prepared.identity.run,
            "trajectory_id": prepared.identity.trajectory,
            "name": folder.name,
            "epochs": config.epochs,
            "epochs_done": len(read_metrics(folder)),
            "continued_from": self._continued_from,
            "sweeps": [self._sweep] if self._sweep else [],
            "num_train_images": len(prepared.training_set),
            "data_hash": prepared.image_set.content_hash,
            "data_source": prepared.image_set.source,
            "class_names": list(prepared.image_set.class_names),
            "data": summarize(prepared.image_set),
            "device": str(prepared.device),
            "precision": prepared.precision,
            "threads": torch.get_num_threads(),
            "machine": machine(),
            "versions": versions(),
            "plugins": used,
            "git_commit": git_commit(),
            "seconds": self._seconds | {"total": sum(self._seconds.values())},
            "scores": scores,
            "best_epoch": self._scorer.best() if self._scorer is not None else None,
            "config": dataclasses.asdict(config),
        }
        if state is not None:
            summary["num_parameters"] = {
                "generator": _count(state.generator),
                "discriminator": _count(state.discriminator),
            }
        self._claimed.claim.assert_held()
        write_json(folder / SUMMARY, summary)
        return Run(folder, summary, reused=False)

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - began


def _count(network: torch.nn.Module) -> int:
    """Parameters with batch norm's running statistics, as Keras counts them."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
